package native

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waltos/waltos/services/daemon/db/dbtest"
)

// A Node is a process that speaks the protocols of a node from one address of walt-net
// (node-protocols 3, 4): it announces its boot, serves control requests and ssh, and
// logs. Its root is that of the machine, its home a folder of its own.
type Node struct {
	IP   string
	Home string

	d    *Daemon
	t    testing.TB
	mu   sync.Mutex
	boot net.Conn // the boot notification; nil: not booted
	// asked are the control requests received.
	asked []string
	fail  bool // control requests are refused
}

// dialFrom connects from the address of a device.
func dialFrom(ctx context.Context, ip, address string) (net.Conn, error) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}, Timeout: 10 * time.Second}
	return dialer.DialContext(ctx, "tcp", address)
}

// Node boots a node, and waits until the server knows it.
func (d *Daemon) Node(ip string) *Node {
	d.t.Helper()
	n := &Node{IP: ip, Home: d.t.TempDir(), d: d, t: d.t}
	d.SSH(ip, n.Home)
	n.listen("12346", n.control)
	n.Boot()
	d.t.Cleanup(n.halt)
	return n
}

// listen serves each connection to a port of the node until the end of the test.
func (n *Node) listen(port string, serve func(conn net.Conn)) { listen(n.t, n.IP, port, serve) }

func listen(t testing.TB, ip, port string, serve func(conn net.Conn)) {
	t.Helper()
	ln, err := net.Listen("tcp", net.JoinHostPort(ip, port))
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(func() { ln.Close(); all.Wait() })
	all.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn)
			}()
		}
	})
}

// Echo makes a port of the node return each line it gets, with its name.
func (n *Node) Echo(port string) {
	n.listen(port, func(conn net.Conn) {
		lines := bufio.NewScanner(conn)
		for lines.Scan() {
			if _, err := fmt.Fprintf(conn, "%s has %s\n", n.IP, lines.Text()); err != nil {
				return
			}
		}
	})
}

// control serves one request of the server.
func (n *Node) control(conn net.Conn) {
	r := bufio.NewReader(conn)
	mode, _ := r.ReadString('\n')
	request, err := r.ReadString('\n')
	if mode != "MODE single\n" || err != nil {
		return
	}
	request = strings.TrimSpace(request)
	n.mu.Lock()
	n.asked = append(n.asked, request)
	fail := n.fail
	n.mu.Unlock()
	if fail {
		io.WriteString(conn, "KO this node is not in the mood\n")
		return
	}
	io.WriteString(conn, "OK\n")
	if request != "REBOOT" {
		return
	}
	// A node is down for a while: not before the server has read the answer, and at least
	// until it knows.
	io.Copy(io.Discard, conn)
	n.halt()
	dbtest.Wait(n.t, "the end of node "+n.IP, func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, "GET", "http://127.0.0.1/api/v1/nodes?booted=true&ip="+n.IP, nil)
		if err != nil {
			return err
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		var found struct {
			Nodes int `json:"num_nodes"`
		}
		if err := json.NewDecoder(answer.Body).Decode(&found); err != nil || found.Nodes > 0 {
			return fmt.Errorf("%d nodes, %v", found.Nodes, err)
		}
		return nil
	})
	n.Boot()
}

// Asked returns the control requests received since the last time it was called.
func (n *Node) Asked() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	asked := n.asked
	n.asked = nil
	return asked
}

// Fail makes the node refuse control requests, or not any more.
func (n *Node) Fail(fail bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fail = fail
}

// halt ends the boot notification, by which the server sees the node go.
func (n *Node) halt() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.boot != nil {
		n.boot.Close()
		n.boot = nil
	}
}

// Boot announces that the node is up.
func (n *Node) Boot() {
	conn, err := dialFrom(context.Background(), n.IP, ServerIP+":12347")
	if err != nil {
		n.t.Error(err)
		return
	}
	io.WriteString(conn, "REQ_NOTIFY_BOOTUP_STATUS\n")
	if line, err := bufio.NewReader(conn).ReadString('\n'); line != "OK\n" {
		n.t.Errorf("the boot notification of %s is answered with %q, %v", n.IP, line, err)
		return
	}
	io.WriteString(conn, "\n")
	n.mu.Lock()
	n.boot = conn
	n.mu.Unlock()
}

// Log sends lines to a log stream of the node, and waits until the server has read them.
func (n *Node) Log(stream string, lines ...string) {
	n.t.Helper()
	if err := Log(n.t.Context(), n.IP, stream, lines...); err != nil {
		n.t.Error(err)
	}
}

// Log sends lines to a log stream of a device, and waits until the server has read them.
func Log(ctx context.Context, ip, stream string, lines ...string) error {
	conn, err := dialFrom(ctx, ip, ServerIP+":12347")
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(callLimit)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(conn, "REQ_NEW_INCOMING_LOGS\n%s\nNO_TIMESTAMPS\n%s\nCLOSE\n", stream, strings.Join(lines, "\n")); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, conn)
	return err
}

// key waits for a key file that the daemon makes at its first start.
func key(t testing.TB, path string) []byte {
	t.Helper()
	var text []byte
	dbtest.Wait(t, path, func(context.Context) (err error) {
		text, err = os.ReadFile(path)
		return err
	})
	return text
}
