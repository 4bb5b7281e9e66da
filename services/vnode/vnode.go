// Package vnode is the command walt-virtual-node: it runs one virtual node of a WalT
// platform in QEMU (node-protocols 6). Package ipxe gets the kernel of the image that the
// server gives the node, packages disk and network what the virtual machine has.
//
// The server runs it with --managed: commands come on standard input, the console of the
// node goes to standard output. On another machine it runs in a terminal, registers the
// node itself, and may ask the DHCP server of the platform who it is.
//
// It needs no account of its own, but CAP_NET_ADMIN for the network cards, and access to
// /dev/net/tun, /dev/kvm and, for speed, /dev/vhost-net. QEMU gets none of its capabilities.
// The node depends on no connection to the server but while it gets its boot files.
//
// It refuses settings that it cannot read, --attach-usb on what is no Raspberry Pi 3B+, and
// to run a node that another process of it runs.
package vnode

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/waltos/waltos/services/vnode/ipxe"
	"github.com/waltos/waltos/services/vnode/network"
)

// failurePause is between a failure and the next attempt.
const failurePause = 2 * time.Second

// node is the virtual node that this process runs.
type node struct {
	options
	host   host
	output *output
	input  *input

	mu       sync.Mutex
	settings settings           // of the next start, as the name in identity
	restart  context.CancelFunc // ends the virtual machine, or what precedes it; nil: nothing runs
}

// run runs the node until ctx ends.
func run(ctx context.Context, o options, stdin io.Reader, stdout io.Writer) (err error) {
	n := &node{options: o, settings: o.settings, host: thisHost(), input: newInput()}
	if n.usb, err = n.host.usbPorts(o.attachUSB); err != nil {
		return err
	}
	var log io.Writer
	if o.logFile != "" {
		f, err := os.OpenFile(o.logFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
		if err != nil {
			return fmt.Errorf("cannot open the log file: %w", err)
		}
		defer f.Close()
		log = newPrefixer(f, o.logPrefix)
	}
	pid, err := o.leaveTraces()
	if err != nil {
		return err
	}
	defer pid.Close()
	n.output = newOutput(stdout, log)
	defer n.output.close()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if o.managed {
		go func() {
			n.obey(stdin)
			cancel()
		}()
	} else {
		restore, err := n.typed(stdin)
		if err != nil {
			return err
		}
		defer restore()
	}
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	// Without this the first line that nobody reads any more would end the node.
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, syscall.SIGPIPE)
	defer signal.Stop(broken)
	go func() {
		for {
			select {
			case <-hangups:
				n.kill()
			case <-ctx.Done():
				return
			}
		}
	}()
	n.loop(ctx)
	return nil
}

// typed makes what a person types the input of the console.
func (n *node) typed(stdin io.Reader) (restore func(), err error) {
	restore = func() {}
	if f, ok := stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		state, err := term.MakeRaw(int(f.Fd()))
		if err != nil {
			return nil, fmt.Errorf("cannot use the terminal: %w", err)
		}
		restore = func() { _ = term.Restore(int(f.Fd()), state) } // it may be gone
	}
	go func() {
		buffer := make([]byte, 4096)
		for {
			count, err := stdin.Read(buffer)
			n.input.send(buffer[:count])
			if err != nil {
				return
			}
		}
	}()
	return restore, nil
}

// say prints a line of this program on the console.
func (n *node) say(format string, args ...any) {
	fmt.Fprintf(n.output, format+"\n", args...) // never fails, see output
}

// loop starts the node again and again.
func (n *node) loop(ctx context.Context) {
	for ctx.Err() == nil {
		life, end := context.WithCancel(ctx)
		n.setRestart(end)
		err := n.live(life)
		ended := life.Err() != nil
		n.setRestart(nil)
		end()
		if err != nil && !ended {
			n.say("%v", err)
			pause(ctx, failurePause)
		}
	}
}

// live boots the node once, and returns when its virtual machine has ended.
func (n *node) live(ctx context.Context) error {
	if err := n.delay(ctx); err != nil {
		return err
	}
	n.say("Starting...")
	who, s := n.current()
	boot, err := n.netboot(ctx, &who, &s)
	if err != nil {
		return err
	}
	defer boot.Close()
	return n.machine(ctx, who, s, boot)
}

// delay waits until the node may start.
func (n *node) delay(ctx context.Context) error {
	_, s := n.current()
	for left := s.bootDelay.seconds(); left > 0; left-- {
		n.say("Starting in %ds...", left)
		if pause(ctx, time.Second); ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// netboot gets what to start from the server, and who the node is if that is to be asked.
func (n *node) netboot(ctx context.Context, who *identity, s *settings) (*ipxe.Boot, error) {
	switch {
	case n.dhcp:
		lease, err := network.Ask(ctx, who.MAC, "walt.node."+who.Model)
		if err != nil {
			return nil, err
		}
		// The virtual machine will have the addresses that the boot files come by.
		defer func() {
			if err := lease.Release(); err != nil {
				n.say("cannot give the addresses of the node back: %v", err)
			}
		}()
		who.Hostname, who.IP, who.Server = lease.Hostname, lease.IP, lease.Server
		who.Netmask, s.gateway = lease.Netmask, lease.Gateway
	case !n.managed:
		if err := n.register(ctx, who, s); err != nil {
			return nil, err
		}
	}
	i := &ipxe.Interpreter{
		Source: ipxe.Server{Address: who.Server, MAC: who.MAC, IP: who.IP},
		Variables: map[string]string{
			"ip": who.IP, "netmask": who.Netmask, "gateway": s.gateway, "hostname": who.Hostname, "name": who.Hostname,
			"mac": who.MAC, "model": who.Model, "manufacturer": n.host.manufacturer, "product": n.host.product,
			"next-server": who.Server,
		},
		Out:      n.output,
		Terminal: n.input.reader(ctx),
	}
	return i.Run(ctx, "/start.ipxe")
}

// ended runs the command that the end of a virtual machine calls for.
func (n *node) ended(ctx context.Context) {
	if n.onReboot == "" {
		return
	}
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", n.onReboot)
	cmd.Stdout, cmd.Stderr = n.output, n.output
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil && !errors.Is(err, context.Canceled) {
		n.say("cannot run %s: %v", strings.TrimSpace(n.onReboot), err)
	}
}

// current returns what the node is called, and its settings, for a start now.
func (n *node) current() (identity, settings) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.identity, n.settings
}

// kill ends the virtual machine, which is then started again.
func (n *node) kill() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.restart != nil {
		n.restart()
	}
}

func (n *node) setRestart(f context.CancelFunc) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.restart = f
}

// pause waits for a time, or the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
