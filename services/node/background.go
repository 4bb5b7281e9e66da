package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"time"
)

// backgroundRole is the process that lives beside the image's own init: control
// service, boot notification, watchdog of the root.
const backgroundRole = "walt-node-background"

const (
	heartbeat     = 20 * time.Second
	notifyRetries = 2
	notifyPause   = 5 * time.Second
	notifyReply   = 3 * time.Second

	watchdogPeriod = 5 * time.Second
	watchdogLimit  = 20 * time.Second
)

// runBackground returns only when the node must restart, and restarts it.
func runBackground(ctx context.Context, _ []string) error {
	server, err := findServer()
	if err != nil {
		return err
	}
	broken, rootGone := make(chan error, 2), make(chan error, 1)
	go func() {
		listener, err := net.Listen("tcp", fmt.Sprintf(":%d", controlPort))
		if err != nil {
			broken <- fmt.Errorf("cannot serve control requests: %w", err)
			return
		}
		broken <- (&control{reboot: softReboot, bootable: rebootable}).serve(ctx, listener)
	}()
	go func() {
		n := notifier{server: netip.AddrPortFrom(server, streamsPort), sshd: "127.0.0.1:22", pause: notifyPause}
		broken <- n.run(ctx)
	}()
	go func() { rootGone <- watchRoot(ctx, rootFS+"/mnt/nfsroot", watchdogPeriod, watchdogLimit) }()
	reboot := softReboot
	select {
	case err = <-broken:
	case err = <-rootGone:
		reboot = rebootNow // a script of the image could not even be read
	}
	if _, statErr := os.Stat(rebooting); statErr == nil || ctx.Err() != nil {
		return nil // ended by the reboot that is under way
	}
	announce("%v; rebooting", err)
	reboot()
	return err
}

// notifier tells the server that this node is up, and keeps telling it.
type notifier struct {
	server netip.AddrPort
	sshd   string        // address of the local ssh server
	pause  time.Duration // before it tries again
}

// run returns when the node must reboot: the server could not be told, or the
// connection on which it was told has ended, which is how the server sees a node go.
func (n *notifier) run(ctx context.Context) error {
	for !answers(ctx, n.sshd) {
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
	}
	if executable("/bin/on-bootup") {
		if err := foreground("/bin/on-bootup"); err != nil {
			say("/bin/on-bootup: %v", err)
		}
	}
	os.Remove("/run/nologin")
	writeUptime("/run/uptime-ready")
	for failures := 0; ; {
		told, err := n.keep(ctx)
		if told || ctx.Err() != nil {
			return err
		}
		if failures++; failures > notifyRetries {
			return fmt.Errorf("cannot notify the server that this node is up: %w", err)
		}
		say("%v; trying again", err)
		if err := pause(ctx, n.pause); err != nil {
			return err
		}
	}
}

// answers tells whether something accepts connections at an address.
func answers(ctx context.Context, address string) bool {
	dialer := net.Dialer{Timeout: dialLimit}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	defer conn.Close()
	if conn.SetDeadline(time.Now().Add(dialLimit)) != nil {
		return false
	}
	// A ssh server greets first, which shows that it runs and not only listens.
	n, err := conn.Read(make([]byte, 1))
	return n == 1 && err == nil
}

// keep holds one notification connection until it breaks; told is true once the
// server has answered.
func (n *notifier) keep(ctx context.Context) (told bool, err error) {
	conn, err := dial(ctx, n.server.Addr(), n.server.Port())
	if err != nil {
		return false, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := io.WriteString(conn, "REQ_NOTIFY_BOOTUP_STATUS\n"); err != nil {
		return false, fmt.Errorf("cannot notify the server: %w", err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(notifyReply)); err != nil {
		return false, err
	}
	reply := make([]byte, len("OK\n"))
	if _, err := io.ReadFull(conn, reply); err != nil {
		return false, fmt.Errorf("the server did not acknowledge the notification: %w", err)
	}
	if string(reply) != "OK\n" {
		return false, fmt.Errorf("the server answered %q to the notification", reply)
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return true, err
	}
	// The server never sends more: a read that ends means that it is gone, which a
	// write would find out only twenty seconds later.
	gone := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, conn)
		gone <- fmt.Errorf("the notification connection ended: %w", errors.Join(err, io.EOF))
	}()
	ticker := time.NewTicker(heartbeat)
	defer ticker.Stop()
	for {
		if _, err := conn.Write([]byte("\n")); err != nil {
			return true, fmt.Errorf("cannot notify the server: %w", err)
		}
		select {
		case err := <-gone:
			return true, err
		case <-ticker.C:
		}
	}
}

// watchRoot lists the image's root again and again, and returns when that fails or
// does not end: the server of the root is gone.
func watchRoot(ctx context.Context, root string, period, limit time.Duration) error {
	for {
		if err := pause(ctx, period); err != nil {
			return err
		}
		listed := make(chan error, 1)
		go func() {
			_, err := os.ReadDir(root)
			listed <- err
		}()
		timer := time.NewTimer(limit)
		select {
		case err := <-listed:
			timer.Stop()
			if err != nil {
				return fmt.Errorf("cannot read the root: %w", err)
			}
		case <-timer.C:
			return fmt.Errorf("cannot read the root: no answer in %v", limit)
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

const (
	scriptLimit = 60 * time.Second
	scriptGrace = 30 * time.Second
)

// rebootScript returns the image's own way to reboot, which may use kexec; "" if
// there is none or this is a virtual node, which boots fast enough.
func rebootScript() string {
	if isVirtual() {
		return ""
	}
	for _, script := range []string{"/bin/walt-network-reboot", "/bin/walt-reboot"} {
		if _, err := os.Stat(script); err == nil {
			return script
		}
	}
	return ""
}

// rebootable tells why a request to reboot must be refused.
func rebootable() error {
	if script := rebootScript(); script != "" && !executable(script) {
		return fmt.Errorf("%s is not executable on image", script)
	}
	return nil
}

// softReboot restarts the node, by the image's script if there is one. The script
// has its time, then the restart is forced, whatever it hangs on.
func softReboot() {
	defer rebootNow()
	script := rebootScript()
	if script == "" {
		return
	}
	if f, err := os.Create(rebooting); err == nil {
		f.Close()
	}
	ended := make(chan error, 1)
	go func() { ended <- exec.Command(script).Run() }()
	select {
	case err := <-ended:
		if err == nil {
			time.Sleep(scriptGrace) // it has asked for the restart, which is on its way
		}
	case <-time.After(scriptLimit):
	}
}
