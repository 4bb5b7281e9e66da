package client

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/waltos/waltos/services/daemon/db/dbtest"
	"github.com/waltos/waltos/services/wire/client"
	"github.com/waltos/waltos/services/wire/pickle"
	"github.com/waltos/waltos/tests/native"
)

// abuse is how long each kind of it lasts.
var abuse = flag.Duration("abuse", 2*time.Second, "how `long` TestAbuse does each of its things")

// attackers are the connections that garbage comes from at the same time.
const attackers = 100

// services are the processes of the daemon that users reach, directly or not.
var services = []string{"server-hub", "server-main", "server-db", "server-blocking", "httpd"}

// TestAbuse sends garbage from many connections, kills each process under load and takes
// the database away; afterwards the daemon serves, and holds no more descriptors than
// before.
func TestAbuse(t *testing.T) {
	p := startPlatform(t)
	p.load(t, *abuse/4, func(context.Context) {}) // what is opened once is open
	before := p.held()
	for _, what := range []struct {
		name string
		do   func(ctx context.Context)
	}{
		{"garbage", func(ctx context.Context) { p.garbage(ctx, t) }},
		{"kills", func(ctx context.Context) { p.kills(ctx, t) }},
		{"no database", func(ctx context.Context) {
			p.Postgres.Down()
			<-ctx.Done()
			p.Postgres.Up()
		}},
	} {
		t.Run(what.name, func(t *testing.T) {
			p.load(t, *abuse, what.do)
			p.Await()
			p.idle(t, before)
		})
	}
}

// TestDefectS1FailuresAreTold: a process that cannot go on says why, and does not end as
// one that has done its work.
func TestDefectS1FailuresAreTold(t *testing.T) {
	if native.Get().Services == "" {
		t.Skip("skipped: the services are not compiled where the daemon cannot run")
	}
	for service, arguments := range map[string][]string{
		"server-hub":  {"-listen", "192.0.2.1:12345", "-socket-dir", t.TempDir()},
		"server-main": {"-listen-streams", "192.0.2.1:12347", "-socket-dir", t.TempDir(), "-server-mac", native.ServerMAC, "-images=false"},
		"server-db":   {"-dsn", "host=", "-socket-dir", "/proc/none"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		out, err := exec.CommandContext(ctx, native.Get().Services, append([]string{service}, arguments...)...).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(string(out), "cannot ") {
			t.Errorf("%s: %v, %s", service, err, out)
		}
	}
}

// load uses the daemon for some time while something else is done, and logs what it could.
func (p *platform) load(t *testing.T, lasting time.Duration, do func(ctx context.Context)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), lasting)
	defer cancel()
	var answered, failed, lines atomic.Int64
	count := func(err error) {
		if err == nil {
			answered.Add(1)
		} else {
			failed.Add(1)
		}
	}
	var users errgroup.Group
	for i := range 4 {
		users.Go(func() error {
			for ctx.Err() == nil {
				count(p.visit(ctx, fmt.Sprint("user", i)))
			}
			return nil
		})
	}
	users.Go(func() error {
		for ctx.Err() == nil {
			if native.Log(ctx, "192.168.152.11", "load", strings.Split(strings.Repeat("x\n", 100), "\n")...) == nil {
				lines.Add(100)
			}
		}
		return nil
	})
	users.Go(func() error {
		for ctx.Err() == nil {
			client.DumpLogs(ctx, native.Streams, client.LogQuery{History: true, Streams: "^load$"}, func(client.Record) error { return nil })
		}
		return nil
	})
	do(ctx)
	users.Wait()
	t.Logf("%d sessions served, %d not, %d lines sent", answered.Load(), failed.Load(), lines.Load())
}

// visit is one session with some calls.
func (p *platform) visit(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	u, err := p.user(ctx, name)
	if err != nil {
		return err
	}
	defer u.Close()
	for _, call := range [][]any{{"get_time"}, {"show_nodes", name, true, false}, {"add_checkpoint", "c", 1.6e9}, {"remove_checkpoint", "c"}} {
		if _, _, err := u.ask(ctx, call[0].(string), call[1:]...); err != nil {
			return err
		}
	}
	return nil
}

// garbage sends what nobody should, until ctx ends.
func (p *platform) garbage(ctx context.Context, t *testing.T) {
	var group errgroup.Group
	var sent atomic.Int64
	for i := range attackers {
		group.Go(func() error {
			random := mathrand.New(mathrand.NewPCG(uint64(i), 0))
			for ctx.Err() == nil {
				s := seeds[random.IntN(len(seeds))]
				throw(ctx, random, s.network, fmt.Sprint("192.168.152.", 11+i%20), s.address, spoil(random, s.text))
				sent.Add(1)
			}
			return nil
		})
	}
	group.Wait()
	t.Logf("%d pieces of garbage sent", sent.Load())
}

// seed is the beginning of a conversation.
type seed struct{ network, address, text string }

var seeds = func() (all []seed) {
	pickled := func(v any) string {
		data, err := pickle.Marshal(v)
		if err != nil {
			panic(err)
		}
		return string(data)
	}
	api := func(text string) { all = append(all, seed{"tcp", "192.168.152.1:12345", text}) }
	for _, method := range []string{"get_time", "show_nodes", "device_show", "set_device_config", "rename", "reboot_nodes", "get_images_tabular_data", "shell_autocomplete"} {
		call := pickle.Tuple{"API_CALL", method, pickle.Tuple{"n3", pickle.Tuple{"netsetup=LAN"}}, pickle.NewDict()}
		api("10\nCSAPI\n('SET_MODE', 'pickle4')\n" + pickled(call) + pickled(call))
	}
	api("10\nCSAPI\n('API_CALL', 'show_nodes', ('x', True), {})\n('CLOSE',)\n")
	api("REQ_API_SESSION\nNSAPI\n('API_CALL', 'sync_clock', (), {})\n('CLOSE')\n")
	stream := func(text string) { all = append(all, seed{"tcp", "192.168.152.1:12347", text}) }
	parameters := pickled(pickle.NewDict("history", pickle.Tuple{nil, nil}, "realtime", true, "issuers", pickle.Tuple{"n1"}, "streams_regexp", "^(a|b)*$",
		"logline_regexp", "x", "node_ip", "192.168.152.12", "device_ip", "192.168.152.5", "user", "root", "cmdargs", pickle.Tuple{"true"}, "tty_mode", true,
		"ssh_tty", true, "win_size", pickle.Tuple{int64(24), int64(80), int64(0), int64(0)}, "env", pickle.NewDict("TERM", "vt100"),
		"src_path", "x", "dst_dir", "y", "dst_name", "z", "node_port", int64(22), "node_mac", "02:00:00:00:00:0b", "path", "/start.ipxe"))
	for id := range 17 {
		stream(fmt.Sprintf("%d\n%s", id, parameters))
	}
	stream("REQ_NEW_INCOMING_LOGS\nTS\nstream\n1700000000.5 a line\n")
	stream("10\n" + "stream\nNO_TIMESTAMPS\n" + "line\nCLOSE\n")
	stream("14\n\n\n")
	all = append(all,
		seed{"tcp", "192.168.152.1:80", "GET /boot/start.ipxe?node_ip=192.168.152.11 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"},
		seed{"tcp", "192.168.152.1:80", "GET /api/v1/logs?from=-1h&stream=a%00b&issuer=n1 HTTP/1.1\r\nHost: x\r\n\r\n"},
		seed{"tcp", "192.168.152.1:80", "POST /walt-vpn/enroll HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nabc"},
		seed{"udp", "192.168.152.1:12342", "line\nline\xff\xfe"},
	)
	return all
}()

// spoil cuts a text, changes bytes of it and appends others.
func spoil(random *mathrand.Rand, text string) []byte {
	data := []byte(text)
	if random.IntN(2) == 0 {
		data = data[:random.IntN(len(data)+1)]
	}
	for range random.IntN(4) {
		if len(data) > 0 {
			data[random.IntN(len(data))] = byte(random.Uint32())
		}
	}
	if random.IntN(3) == 0 {
		more := make([]byte, random.IntN(1<<uint(random.IntN(16))))
		rand.Read(more)
		data = append(data, more...)
	}
	return data
}

// throw sends bytes from an address and leaves in one of the ways that there are.
func throw(ctx context.Context, random *mathrand.Rand, network, from, to string, data []byte) {
	dialer := net.Dialer{Timeout: limit}
	if network == "tcp" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	conn, err := dialer.DialContext(ctx, network, to)
	if err != nil {
		return
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Duration(random.IntN(300)) * time.Millisecond))
	conn.Write(data)
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	switch random.IntN(4) {
	case 0: // at once
	case 1:
		tcp.SetLinger(0) // as a machine that restarts
	case 2:
		tcp.CloseWrite()
		io.Copy(io.Discard, tcp)
	case 3:
		io.Copy(io.Discard, tcp)
	}
}

// kills ends the processes, one after the other, without any care, until ctx ends.
func (p *platform) kills(ctx context.Context, t *testing.T) {
	n := 0
	for ; ctx.Err() == nil; n++ {
		service := services[mathrand.IntN(len(services))]
		p.Kill(service)
		p.Up(service)
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(mathrand.IntN(1000)) * time.Millisecond):
		}
	}
	t.Logf("%d processes killed", n)
}

// held returns how many descriptors each process has.
func (p *platform) held() map[string]int {
	held := map[string]int{}
	for _, service := range services {
		if files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.PID(service))); err == nil {
			held[service] = len(files)
		}
	}
	return held
}

// spare are descriptors that a process may keep for what it did, as connections to the
// database.
const spare = 16

// idle waits until the processes hold no more descriptors than before.
func (p *platform) idle(t *testing.T, before map[string]int) {
	t.Helper()
	dbtest.Wait(t, "the end of what the users left", func(context.Context) error {
		for service, n := range p.held() {
			if n > before[service]+spare {
				return fmt.Errorf("%s holds %d descriptors, and held %d", service, n, before[service])
			}
		}
		return nil
	})
	t.Logf("descriptors: %v, before: %v", p.held(), before)
}
