package core

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/waltos/waltos/services/daemon/core/registry"
	"github.com/waltos/waltos/services/daemon/core/settings"
	"github.com/waltos/waltos/services/daemon/core/text"
)

// exposeTimeout bounds the connection to the device.
const exposeTimeout = 2 * time.Second

// exposeStream is the log stream about redirects.
const exposeStream = "platform.expose"

// exposer holds the permanent redirects of setting expose: TCP ports of the server that
// lead to a port of a device (server-state §2.7).
type exposer struct {
	mu      sync.Mutex
	open    map[uint16]*redirect
	refused map[uint16]string // ports that could not be opened, with the target wanted
}

// redirect is one port of the server.
type redirect struct {
	target string
	close  func() // the port and its connections
}

// wantedRedirects are those that the settings of devices ask for: targets by port.
func wantedRedirects(v *registry.View) map[uint16]string {
	wanted := map[uint16]string{}
	for _, d := range v.Devices() {
		value, _ := d.Conf["expose"].(string)
		if value == "" || d.IP == "" {
			continue
		}
		redirects, err := settings.ParseExpose(value)
		if err != nil {
			continue // it was refused when it was set
		}
		for _, r := range redirects {
			wanted[r.ServerPort] = net.JoinHostPort(d.IP, fmt.Sprint(r.DevicePort))
		}
	}
	return wanted
}

// expose opens and closes redirects as the registry wants them.
func (d *Daemon) expose(ctx context.Context) {
	wanted := wantedRedirects(d.registry.View())
	e := &d.exposed
	e.mu.Lock()
	defer e.mu.Unlock()
	for port, r := range e.open {
		if wanted[port] != r.target {
			r.close()
			delete(e.open, port)
		}
	}
	for port := range e.refused {
		if wanted[port] != e.refused[port] {
			delete(e.refused, port)
		}
	}
	for port, target := range wanted {
		if e.open[port] != nil {
			continue
		}
		ln, err := net.Listen("tcp4", fmt.Sprintf(":%d", port))
		if err != nil {
			if e.refused[port] != target {
				d.logf(exposeStream, "cannot redirect server port %d to %s: %s", port, target, systemText(err))
				e.refused[port] = target
			}
			continue
		}
		delete(e.refused, port)
		within, cancel := context.WithCancel(ctx)
		e.open[port] = &redirect{target, func() { cancel(); ln.Close() }}
		context.AfterFunc(within, func() { ln.Close() })
		go redirectAll(within, ln, target)
	}
}

// checkPorts refuses a value of setting expose whose ports cannot be opened (F19).
func (e *exposer) checkPorts(value string) error {
	redirects, err := settings.ParseExpose(value)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range redirects {
		if e.open[r.ServerPort] != nil {
			continue
		}
		ln, err := net.Listen("tcp4", fmt.Sprintf(":%d", r.ServerPort))
		if err != nil {
			return text.Refuse("Failed: cannot use server port '%d': %s.\n", r.ServerPort, systemText(err))
		}
		ln.Close()
	}
	return nil
}

// systemText is strerror of the error of a system call.
func systemText(err error) string {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return err.Error()
	}
	text := errno.Error()
	return strings.ToUpper(text[:1]) + text[1:]
}

// redirectAll relays the connections accepted by ln until ctx ends.
func redirectAll(ctx context.Context, ln net.Listener, target string) {
	for {
		conn, err := ln.Accept()
		switch {
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			time.Sleep(acceptPause) // no descriptor left
			continue
		}
		go func() {
			defer conn.Close()
			dialer := net.Dialer{Timeout: exposeTimeout}
			device, err := dialer.DialContext(ctx, "tcp", target)
			if err != nil {
				return // the client sees its connection end, as if the device refused it
			}
			defer device.Close()
			relay(ctx, conn, conn, device)
		}()
	}
}

// relay copies both ways between a client and a device, until either ends or ctx does;
// r is where the client is read.
func relay(ctx context.Context, client net.Conn, r io.Reader, device net.Conn) {
	end := func() {
		client.Close()
		device.Close()
	}
	stop := context.AfterFunc(ctx, end)
	defer stop()
	var both sync.WaitGroup
	// The end of either side is the end of both; nobody is left to hear why.
	both.Go(func() { _, _ = io.Copy(device, r); end() })
	both.Go(func() { _, _ = io.Copy(client, device); end() })
	both.Wait()
}
