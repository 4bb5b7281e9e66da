package tests

import (
	"context"
	"crypto/rand"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/waltos/waltos/qemu/platform"
	"github.com/waltos/waltos/supervisor/unit"
)

// TestPlatform boots the appliance from its disk through UEFI, and two nodes from it.
func TestPlatform(t *testing.T) {
	l := start(t, platform.Options{Nodes: 1, UEFINodes: 1})
	for _, test := range []struct {
		name string
		run  func(*lab)
	}{
		{"units are healthy", unitsAreHealthy},
		{"administrators look", administratorsLook},
		{"changed unit files restart only what they must", unitFilesChange},
		{"the console shows and obeys", consoleShows},
		{"nodes have booted over the network", nodesHaveBooted},
		{"client shows the platform", clientShows},
		{"client boots an image", clientBoots},
		{"client reads and marks logs", clientLogs},
		{"a virtual node", virtualNode},
		{"clients are refused in words", clientsAreRefused},
		{"hostile bytes", hostileBytes},
		{"boot files stay in their folder", bootFilesStay},
		{"units are confined", unitsAreConfined},
		{"kill -9 of each unit", killEachUnit},
		{"full data partition", fullDataPartition},
		{"wrong configuration", wrongConfiguration},
		{"power cut", powerCut},
	} {
		if !t.Run(test.name, func(t *testing.T) { test.run(l.on(t)) }) {
			break // what follows would fail for the same reason
		}
	}
}

func unitsAreHealthy(l *lab) {
	l.eventually("health", l.healthy)
	units, err := l.units(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	for _, name := range []string{
		"walt-server-netconfig", "postgresql", "rpcbind", "nfs-mountd", "nfs-server", "chrony", "sshd",
		"walt-server-hub", "walt-server-main", "walt-server-db", "walt-server-blocking", "walt-server-vnodes",
		"walt-server-dhcpd", "walt-server-tftpd", "walt-server-httpd", "walt-server-named",
	} {
		if u, ok := units[name]; !ok || !u.Wanted {
			l.t.Errorf("unit %s is not wanted", name)
		}
	}
	l.want(l.root("waltctl status"), "walt-server-main", "running")
	l.want(l.root("waltctl logs walt-server-main -n 5"), "")
	l.t.Log("\n" + l.root("waltctl boot; grep -E '^(VmRSS|RssAnon|RssFile)' /proc/1/status"))
}

// administratorsLook uses what looks at the machine without changing it.
func administratorsLook(l *lab) {
	l.want(l.root("waltctl status walt-server-main"), "running since", "processes", "server-main", "last lines")
	l.want(l.root("waltctl graph"), "walt-server (done)", "needs walt-server-main (running)")
	l.want(l.root("waltctl graph --dot"), `"walt-server" -> "walt-server-main" [style=solid]`)
	l.want(l.root("waltctl boot"), "kernel", "find root partition", "read units", "unit walt-server-main", "the critical path: ")
	for _, drawing := range []string{"boot", "graph"} {
		if err := xml.Unmarshal([]byte(l.root("waltctl "+drawing+" --svg")), new(struct{ XMLName xml.Name })); err != nil {
			l.t.Errorf("waltctl %s --svg: %v", drawing, err)
		}
	}
	l.want(l.root("waltctl restart chrony && waltctl events chrony"), "running for", "-> stopping: restarted by request", "-> running", "chrony is running")
	l.want(l.root("waltctl logs supervisor --boot -n 0 | head -n 3; waltctl logs --boots"), "supervisor: initramfs", "FIRST LINE")
	l.want(l.root("waltctl support -o /tmp/s.tar.gz && tar -xzOf /tmp/s.tar.gz walt-support/status.txt walt-support/network/addresses.txt; rm /tmp/s.tar.gz"), "walt-server-main", "walt-net")
	l.want(l.root("waltctl api"), "GET /v1/status")
	// Whoever is not root looks at what tells no secrets.
	l.want(l.root("setpriv --reuid=65534 --regid=65534 --clear-groups sh -c 'waltctl status chrony; waltctl stop chrony; echo $?'"), "running since", "\n4\n")
}

// unitFilesChange adds, changes and removes a unit of the administrator's.
func unitFilesChange(l *lab) {
	apply := func(text string) string {
		l.t.Helper()
		return l.root("mkdir -p /etc/walt/units.d && printf %s " + shellQuote(text) + " >/etc/walt/units.d/greeter.hcl && waltctl apply --yes && waltctl status greeter --json | grep '\"pid\"' | head -n 1")
	}
	pid := func(out string) string { return regexp.MustCompile(`"pid": \d+`).FindString(out) }
	l.want(l.root("waltctl plan"), "nothing changes")
	const unit = `unit "greeter" {
  exec = ["/bin/sleep", "1000"]
  limits { tasks = 10 }
}`
	first := apply(unit)
	l.want(first, "add      greeter", "-> running")
	limited := apply(strings.Replace(unit, "10 }", "20 }", 1))
	l.want(limited, "change   greeter", "limits.tasks: 10 -> 20")
	if pid(first) == "" || pid(first) != pid(limited) {
		l.t.Errorf("a new limit has restarted the unit:\n%s\n%s", first, limited)
	}
	l.want(l.root("cat /sys/fs/cgroup/units/greeter/pids.max"), "20")
	renewed := apply(strings.Replace(unit, "1000", "2000", 1))
	l.want(renewed, "restart  greeter", "(needs the restart)", "-> running")
	if pid(renewed) == pid(first) {
		l.t.Errorf("a new command has not restarted the unit:\n%s", renewed)
	}
	l.want(l.root("echo 'unit \"greeter\" { needs = [\"sshdd\"] }' >/etc/walt/units.d/greeter.hcl; waltctl plan 2>&1 || true"), "greeter.hcl")
	l.want(l.root("rm -r /etc/walt/units.d && waltctl apply --yes && waltctl plan"), "remove   greeter", "nothing changes")
	l.want(l.root("waltctl reload walt-server-main"), "walt-server-main is running")
}

// consoleShows is a person at the serial line.
func consoleShows(l *lab) {
	console := l.Appliance.Console()
	ctx, cancel := context.WithTimeout(l.t.Context(), patience)
	defer cancel()
	at := console.Position()
	for _, step := range []struct{ keys, want string }{
		{"\r\x1b[24;80R", `are up; running`}, // a terminal of that size
		{"", `192\.168\.152\.1/24`},
		{"", `S Shell`},
		{"s", `root@[^ ]+:.*# $`},
		{"waltctl status sshd\r", `running since`},
		{"exit\r", `S Shell`},
		{"q", `press Enter for the console`},
	} {
		if _, err := console.Write([]byte(step.keys)); err != nil {
			l.t.Fatal(err)
		}
		var err error
		if _, at, err = console.Wait(ctx, at, regexp.MustCompile(step.want)); err != nil {
			l.t.Fatalf("after %q: %v\n%q", step.keys, err, console.Lines(20))
		}
	}
	// The first virtual console shows the same, and no message of the kernel goes over it.
	l.root("echo '<1>a message of the kernel' > /dev/kmsg")
	screen := l.root("cat /dev/vcs1")
	l.want(screen, "are up; running", "S Shell")
	if strings.Contains(screen, "a message of the kernel") {
		l.t.Errorf("the kernel has drawn over the screen:\n%s", screen)
	}
}

func nodesHaveBooted(l *lab) {
	known, err := l.Inventory(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	for _, h := range l.Nodes() {
		n := known[h.MAC]
		if n == nil || !n.Booted || n.Model != "pc-x86-64" || n.Image != "waltplatform/pc-x86-64-default:latest" {
			l.t.Errorf("%s is %+v", h.Kind, n)
		}
	}
	l.want(l.onNode("cat /proc/mounts"), "overlay / overlay", ":/var/lib/walt/nodes/", "vers=3")
	l.want(l.onNode("cat /proc/cmdline"), "init=/bin/walt-init", "walt.node.model=pc-x86-64", "boot=walt")
	// The node finds names by the server.
	l.want(l.onNode("nslookup server.walt"), "192.168.152.1")
}

func clientShows(l *lab) {
	n := l.node()
	all := l.walt("node", "show", "--all")
	l.want(all, "The following nodes are currently free:", n.Name+" ", "pc-x86-64", n.IP)
	if !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(n.Name) + ` +physical +pc-x86-64 +` + regexp.QuoteMeta(n.IP) + ` +LAN +yes *$`).MatchString(all) {
		l.t.Errorf("the row of %s is not in upstream's layout:\n%s", n.Name, all)
	}
	l.want(l.walt("node", "show"), "You currently do not own any nodes.", "Re-run with --all to see all available nodes.")
	l.want(l.walt("device", "show"), "The WalT network contains the following devices:", "walt-server", "server", "node (physical)", "192.168.152.1")
	l.want(l.walt("image", "show", "--all"), "pc-x86-64-default", "Your working set is made of the following images:")
}

// clientBoots lets the first node boot an image of the user: it becomes the user's,
// reboots, and is back.
func clientBoots(l *lab) {
	n, before := l.node(), l.bootID()
	l.want(l.walt("node", "boot", n.Name, "pc-x86-64-default"), "will now boot pc-x86-64-default.", "rebooted ok.")
	l.walt("node", "wait", n.Name)
	l.eventually("the node's return", func(context.Context) error {
		if now := l.node(); !now.Booted || now.Image != "lab/pc-x86-64-default:latest" {
			return fmt.Errorf("the node is %+v", now)
		}
		return nil
	})
	if l.bootID() == before {
		l.t.Error("the node did not reboot")
	}
	l.want(l.walt("node", "show"), "You currently own the following nodes:", n.Name)
	l.want(l.walt("node", "rename", n.Name, "bench-1"), "")
	l.want(l.walt("node", "show", "--names-only"), "bench-1")
	l.want(l.onNode("nslookup bench-1.walt"), n.IP)
	// A soft reboot, waited for.
	before = l.bootID()
	l.want(l.walt("node", "reboot", "bench-1"), "Node bench-1: rebooted ok.")
	l.walt("node", "wait", "bench-1")
	if l.bootID() == before {
		l.t.Error("the node did not reboot")
	}
}

func clientLogs(l *lab) {
	n := l.node()
	l.want(l.walt("log", "add-checkpoint", "cp1"), "New checkpoint cp1 recorded at server time:")
	l.want(l.walt("log", "list-checkpoints"), "cp1")

	// A realtime session sees a line that the node logs now.
	ctx, cancel := context.WithTimeout(l.t.Context(), patience)
	defer cancel()
	reader, writer := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		_, err := l.Client(platform.DefaultUser).Run(ctx, nil, writer, writer, "log", "show", "--realtime", "--nodes", n.Name)
		writer.CloseWithError(errors.Join(err, io.EOF))
		ended <- err
	}()
	seen := make(chan string, 1)
	go func() {
		var all strings.Builder
		buffer := make([]byte, 4096)
		for {
			count, err := reader.Read(buffer)
			all.Write(buffer[:count])
			if strings.Contains(all.String(), "weather.test") || err != nil {
				seen <- all.String()
				io.Copy(io.Discard, reader)
				return
			}
		}
	}()
	for found := false; !found; {
		l.onNode("walt-log-echo weather.test it rains")
		select {
		case text := <-seen:
			l.want(text, n.Name+".weather.test -> it rains")
			found = true
		case <-time.After(time.Second): // the session was not open yet: log once more
		case <-ctx.Done():
			l.t.Fatal("the realtime session saw nothing")
		}
	}
	cancel()
	<-ended
	// The history has it too, and what the platform said of the node.
	l.want(l.walt("log", "show", "--history", "cp1:", "--nodes", n.Name), "it rains")
	l.want(l.walt("log", "show", "--history", "full", "--platform"), "node "+n.Name+" is booted", "new node (device type previously unknown) name=")
	l.want(l.walt("log", "show", "--history", "full", "--nodes", n.Name, "--streams", "walt-init"), "Handing over to WALT image init.")
	l.want(l.walt("log", "remove-checkpoint", "cp1"), "Done.")
}

// virtualNode has the appliance run a virtual node. It is translated by a machine that may
// be translated itself: its whole boot is the matter of package vnode, here its kernel
// only begins. Its machine outlives the service that holds it, in the sandbox of an appliance,
// until that is stopped; and its networks are restricted by the kernel of an appliance.
func virtualNode(l *lab) {
	began := time.Now()
	l.want(l.walt("node", "create", "vn1"), `Node vn1 is now booting your image "pc-x86-64-default".`)
	l.want(l.walt("node", "show"), "vn1 ", "virtual")
	seen := func(text string) {
		l.eventually(text+" on the console of vn1", func(ctx context.Context) error {
			stdout, stderr, _, err := l.Walt(ctx, "log", "show", "--history", "full", "--nodes", "vn1", "--streams", "virtualconsole")
			if err == nil && !strings.Contains(stdout, text) {
				err = fmt.Errorf("it shows\n%s%s", stdout, stderr)
			}
			return err
		})
	}
	seen("Starting...")
	seen("Linux version")

	const machines = "pgrep -x qemu-system-x86; true"
	machine := l.root(machines)
	if len(strings.Fields(machine)) != 1 {
		l.t.Fatalf("there are virtual machines %q", machine)
	}
	units, err := l.units(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	const service = "walt-server-vnodes"
	l.root(fmt.Sprintf("kill -9 %d", units[service].PID))
	l.eventually("the return of "+service, func(ctx context.Context) error {
		now, err := l.units(ctx)
		if u := now[service]; err == nil && (u.PID == 0 || u.PID == units[service].PID) {
			err = fmt.Errorf("it is %s with pid %d: %s", u.State, u.PID, u.Reason)
		}
		return err
	})
	l.want(l.root("waltctl restart "+service), "running")
	if now := l.root(machines); now != machine {
		l.t.Errorf("the machine was %q, is %q", machine, now)
	}

	// The service reaches it still.
	l.walt("node", "config", "vn1", "networks=walt-net,home-net[lat=8ms,bw=100Mbps]", "boot.delay=0")
	l.want(l.walt("node", "reboot", "--hard", "vn1"), "Node vn1: rebooted ok.")
	l.eventually("restrictions of its network", func(ctx context.Context) error {
		queues, err := l.SSH(ctx, "tc qdisc show")
		if err == nil && !(regexp.MustCompile(`netem 1: dev vnode\d+ root .*delay 7\.7ms`).MatchString(queues) &&
			regexp.MustCompile(`tbf a: dev vnode\d+ parent 1:1 rate 100Mbit`).MatchString(queues)) {
			err = fmt.Errorf("the queues are\n%s", queues)
		}
		return err
	})
	if now := l.root(machines); now == machine {
		l.t.Errorf("the machine was not ended: %q", now)
	}
	l.root("waltctl stop " + service)
	if left := l.root(machines + "; pgrep -f [w]alt-virtual-node; ip -o link show type bridge | grep home-net; ls /run/walt/vnodes"); left != "" {
		l.t.Errorf("after its stop there are %s", left)
	}
	l.root("waltctl start " + service)
	l.eventually("the virtual machine", func(ctx context.Context) error {
		now, err := l.SSH(ctx, machines)
		if err == nil && now == "" {
			err = errors.New("there is none")
		}
		return err
	})
	l.walt("node", "remove", "vn1")
	if left := l.root(machines); left != "" {
		l.t.Errorf("after its removal there is %s", left)
	}
	l.t.Logf("a virtual node came and went in %.0f s", time.Since(began).Seconds())
}

// clientsAreRefused: what fails is answered, never silent.
func clientsAreRefused(l *lab) {
	for _, args := range [][]string{
		{"node", "boot", "no-such-node", "default"},
		{"node", "boot", "bench-1", "no-such-image"},
		{"image", "publish", "no-such-image"},
		{"advanced", "update-default-images"},
	} {
		ctx, cancel := context.WithTimeout(l.t.Context(), time.Minute)
		stdout, stderr, _, err := l.Walt(ctx, args...)
		if err != nil || ctx.Err() != nil || strings.TrimSpace(stdout+stderr) == "" {
			l.t.Errorf("walt %s: %v, %q", strings.Join(args, " "), err, stdout+stderr)
		}
		cancel()
	}
}

// hostileBytes sends garbage to both ports: the session is closed, the daemon lives,
// the next client is served.
func hostileBytes(l *lab) {
	before, err := l.units(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	random := make([]byte, 1<<16)
	rand.Read(random)
	for name, bytes := range map[string][]byte{
		"nothing":          nil,
		"random":           random,
		"endless line":     []byte(strings.Repeat("1", 1<<20)),
		"unknown request":  []byte("99\n"),
		"unknown api":      []byte("10\nNOAPI\n('API_CALL', 'x', (), {})\n"),
		"not a literal":    []byte("10\nCSAPI\n__import__('os').system('reboot')\n"),
		"deep literal":     []byte("10\nCSAPI\n" + strings.Repeat("(", 100000) + "\n"),
		"evil pickle":      []byte("10\nCSAPI\n('SET_MODE', 'pickle4')\n\x80\x04cos\nsystem\n(S'reboot'\ntR."),
		"huge pickle":      []byte("10\nCSAPI\n('SET_MODE', 'pickle4')\n\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f"),
		"dump of garbage":  []byte("1\n\x80\x04garbage."),
		"dump of nothing":  []byte("1\n"),
		"bad log stream":   []byte("0\n\xff\xfe\n\xff\n\xff\n"),
		"result unasked":   []byte("10\nCSAPI\n('RESULT', 1)\n"),
		"call of nothing":  []byte("10\nCSAPI\n('API_CALL',)\n"),
		"private method":   []byte("10\nCSAPI\n('API_CALL', '__class__', (), {})\n"),
		"server api":       []byte("10\nSSAPI\n('API_CALL', 'register_device', ('', '', '192.168.152.9', '00:00:00:00:00:01'), {})\n"),
		"boot of a client": []byte("14\n\n"),
	} {
		for _, port := range []uint16{12345, 12347} {
			if err := send(l.t.Context(), l.Endpoint(port), bytes); err != nil {
				l.t.Errorf("%s on %d: %v", name, port, err)
			}
		}
	}
	l.walt("node", "show", "--all")
	after, err := l.units(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	for name, u := range before {
		if after[name].PID != u.PID {
			l.t.Errorf("unit %s was restarted: %s", name, after[name].Reason)
		}
	}
}

// send connects, sends, and reads until the peer closes or a little time has passed.
func send(ctx context.Context, address string, bytes []byte) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	deadline := time.Now().Add(5 * time.Second)
	conn.SetDeadline(deadline)
	conn.Write(bytes) // a peer that closes early is right
	conn.(*net.TCPConn).CloseWrite()
	io.Copy(io.Discard, conn)
	return nil
}

// bootFilesStay: a node that asks for a file outside of its boot folder is refused,
// by TFTP and by HTTP.
func bootFilesStay(l *lab) {
	l.want(l.onNode("wget -q -O - http://192.168.152.1/boot/start.ipxe | head -n 1"), "#!ipxe")
	l.want(l.onNode("cd /tmp && tftp -g -r start.ipxe -l fetched 192.168.152.1 && head -n 1 fetched"), "#!ipxe")
	for _, path := range []string{"../../../../../../etc/passwd", "/etc/passwd", "..%2f..%2f..%2f..%2fetc/passwd", "nodes/../../../../etc/shadow"} {
		out := l.onNode("cd /tmp && rm -f stolen; tftp -g -r '" + path + "' -l stolen 192.168.152.1 2>&1; wget -O stolen2 'http://192.168.152.1/boot/" + path + "' 2>&1; cat stolen stolen2 2>/dev/null; true")
		if strings.Contains(out, "root:") {
			l.t.Errorf("the file %s was given out:\n%s", path, out)
		}
	}
}

// killEachUnit kills the process of each unit in turn, while the node logs and users call:
// each comes back, no node reboots, no log stream is cut, the client is served.
func killEachUnit(l *lab) {
	l.eventually("health", l.healthy)
	l.daemonIsHealthy()
	units, err := l.units(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	boot := l.bootID()
	var names []string
	for name, u := range units {
		if u.State == unit.Running { // not a job, whose time may come just now
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if len(names) < 12 {
		l.t.Fatalf("only %d units have a process: %v", len(names), names)
	}
	load := l.startLoad()
	defer load.end()
	for _, name := range names {
		began := time.Now()
		l.SSH(l.t.Context(), fmt.Sprintf("kill -9 %d", units[name].PID)) // for sshd the session may end too
		l.eventually("the return of "+name, func(ctx context.Context) error {
			now, err := l.units(ctx)
			if err != nil {
				return err
			}
			if u := now[name]; u.PID == 0 || u.PID == units[name].PID {
				return fmt.Errorf("unit %s is %s with pid %d: %s", name, u.State, u.PID, u.Reason)
			}
			return l.healthy(ctx)
		})
		l.t.Logf("%s is back after %.1f s", name, time.Since(began).Seconds())
		if slices.Contains(daemonProcesses, name) {
			l.daemonIsHealthy()
		}
	}
	// What was received and not stored yet goes with server-main, two seconds of it at
	// most; the same is allowed for the database and server-db.
	load.check(3 * 2 * 2 * perSecond)
	l.eventually("service to clients", func(ctx context.Context) error {
		stdout, stderr, code, err := l.Walt(ctx, "node", "show")
		if err != nil || code != 0 || !strings.Contains(stdout, "bench-1") {
			return fmt.Errorf("walt node show: %d, %v: %s%s", code, err, stdout, stderr)
		}
		return nil
	})
	if !l.node().Booted {
		l.t.Error("the server takes the node for down")
	}
	if l.bootID() != boot {
		l.t.Error("the node has rebooted")
	}
	// Files that the node has not read yet still come.
	l.want(l.onNode("echo 3 > /proc/sys/vm/drop_caches; ls /bin | wc -l; echo done"), "done")
}

// fullDataPartition: services say so, nothing stored is lost, and all recovers.
func fullDataPartition(l *lab) {
	l.walt("log", "add-checkpoint", "before-full")
	l.root("dd if=/dev/zero of=/var/fill bs=1M 2>/dev/null; dd if=/dev/zero of=/var/fill2 bs=4k 2>/dev/null; sync; true")
	for range 20 {
		l.onNode("walt-log-echo full.test line while full")
	}
	l.want(l.walt("node", "show"), "bench-1")
	l.want(l.root("waltctl status"), "FULL, nothing new is stored")
	l.eventually("a word on the console", func(context.Context) error {
		for _, line := range l.Appliance.Console().Lines(100) {
			if strings.Contains(line, "walt: data partition: FULL") {
				return nil
			}
		}
		return errors.New("the console does not say that the data partition is full")
	})
	l.want(l.walt("log", "list-checkpoints"), "before-full")
	l.root("rm -f /var/fill /var/fill2; sync")
	l.eventually("recovery", func(ctx context.Context) error {
		if err := l.healthy(ctx); err != nil {
			return err
		}
		if _, err := l.SSH(ctx, nodeShell(l.node().IP)+"walt-log-echo full.test space again"); err != nil {
			return err
		}
		stdout, stderr, _, err := l.Walt(ctx, "log", "show", "--history", "before-full:", "--nodes", "my-nodes", "--streams", "full.test")
		if err != nil || !strings.Contains(stdout, "space again") {
			return fmt.Errorf("the log shows %q, %v", stdout+stderr, err)
		}
		return nil
	})
	l.want(l.walt("log", "list-checkpoints"), "before-full")
}

// wrongConfiguration: the appliance boots with the last good one and says why. The
// boot of this test is also an ordered restart.
func wrongConfiguration(l *lab) {
	l.root("cp /etc/walt/walt.hcl /var/lib/walt/good.hcl; sed -i 's/interface/interfase/' /etc/walt/walt.hcl; sync")
	l.reboot()
	s, err := l.status(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	l.want(s.Refused, "interfase", `Did you mean "interface"`)
	l.want(l.root("waltctl status"), "interfase")
	l.root("mv /var/lib/walt/good.hcl /etc/walt/walt.hcl; sync")
}

// reboot restarts the appliance in order, and waits until it serves again.
func (l *lab) reboot() {
	l.t.Helper()
	l.SSH(l.t.Context(), "waltctl poweroff")
	l.eventually("power off", func(context.Context) error {
		if l.Appliance.Running() {
			return errors.New("it is still on")
		}
		return nil
	})
	if err := l.PowerOn(l.t.Context()); err != nil {
		l.t.Fatal(err)
	}
	l.eventually("health", l.healthy)
}

// powerCut: what was stored and acknowledged is there after the power came back.
func powerCut(l *lab) {
	n := l.node()
	if err := l.AwaitBooted(l.t.Context(), l.Nodes()[0]); err != nil {
		l.t.Fatal(err)
	}
	l.walt("log", "add-checkpoint", "before-cut")
	l.onNode("walt-log-echo cut.test before the cut")
	l.eventually("storage of the line", func(ctx context.Context) error {
		stdout, _, _, err := l.Walt(ctx, "log", "show", "--history", "before-cut:", "--nodes", n.Name)
		if err != nil || !strings.Contains(stdout, "before the cut") {
			return fmt.Errorf("the log shows %q, %v", stdout, err)
		}
		return nil
	})
	l.walt("node", "rename", n.Name, "bench-2")
	counting := l.count()
	l.PowerCut()
	if err := l.PowerOn(l.t.Context()); err != nil {
		l.t.Fatal(err)
	}
	l.eventually("health", l.healthy)
	counting.compare()
	l.want(l.walt("node", "show"), "bench-2")
	l.want(l.walt("log", "list-checkpoints"), "before-cut", "before-full")
	l.want(l.walt("log", "show", "--history", "before-cut:", "--nodes", "bench-2"), "before the cut")
	// The nodes come back by themselves.
	for _, h := range l.Nodes() {
		if err := l.AwaitBooted(l.t.Context(), h); err != nil {
			l.t.Error(err)
		}
	}
}
