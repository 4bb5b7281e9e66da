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
	// The kernel must not choose this process when memory runs out: without it the
	// server would take the node for dead.
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0); err != nil {
		say("%v", err)
	}
	server, err := findServer()
	if err != nil {
		return err
	}
	failed := make(chan error, 3)
	go func() {
		listener, err := net.Listen("tcp", fmt.Sprintf(":%d", controlPort))
		if err != nil {
			failed <- fmt.Errorf("cannot serve control requests: %w", err)
			return
		}
		failed <- (&control{reboot: softReboot}).serve(ctx, listener)
	}()
	go func() { failed <- notifyBootup(ctx, netip.AddrPortFrom(server, streamsPort), "127.0.0.1:22") }()
	go func() { failed <- watchRoot(ctx, rootFS+"/mnt/nfsroot", watchdogPeriod, watchdogLimit) }()
	err = <-failed
	if _, statErr := os.Stat(rebooting); statErr == nil || ctx.Err() != nil {
		return nil // ended by the reboot that is under way
	}
	say("%v; rebooting", err)
	softReboot()
	return err
}

// notifyBootup tells the server that this node is up, and keeps telling it. It
// returns when the server cannot be told any more.
func notifyBootup(ctx context.Context, server netip.AddrPort, sshd string) error {
	for !answers(ctx, sshd) {
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
	failures := 0
	for {
		told, err := keepNotifying(ctx, server)
		if told {
			failures = 0
		}
		if failures++; failures > notifyRetries || ctx.Err() != nil {
			return fmt.Errorf("cannot notify the server that this node is up: %w", err)
		}
		say("%v; trying again", err)
		if err := pause(ctx, notifyPause); err != nil {
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

// keepNotifying holds one notification connection until it breaks; told is true once
// the server has answered.
func keepNotifying(ctx context.Context, server netip.AddrPort) (told bool, err error) {
	conn, err := dial(ctx, server.Addr(), server.Port())
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

// softReboot restarts the node: a physical node by the image's own script if it has
// one (it may use kexec), any other at once.
func softReboot() {
	for _, script := range []string{"/bin/walt-network-reboot", "/bin/walt-reboot"} {
		if isVirtual() || !executable(script) {
			continue
		}
		if f, err := os.Create(rebooting); err == nil {
			f.Close()
		}
		ctx, cancel := context.WithTimeout(context.Background(), scriptLimit)
		err := exec.CommandContext(ctx, script).Run()
		cancel()
		if err == nil {
			time.Sleep(scriptGrace) // the script has asked for the reboot; force it if it does not come
		}
		break
	}
	rebootNow()
}
