package client

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/waltos/waltos/services/daemon/db/dbtest"
	"github.com/waltos/waltos/tests/native"
)

// terminal is a command line that runs in a terminal of 24 lines of 100 columns.
type terminal struct {
	t    *testing.T
	cmd  *exec.Cmd
	pty  *os.File
	name string

	mu   sync.Mutex
	text bytes.Buffer // printed and not yet expected
	over bool
}

// terminal starts a command line of alice.
func (p *platform) terminal(t *testing.T, words ...string) *terminal {
	t.Helper()
	return p.terminalAt(t, p.Folder("alice"), words...)
}

// terminalAt starts a command line of whom a home folder belongs to.
func (p *platform) terminalAt(t *testing.T, home string, words ...string) *terminal {
	t.Helper()
	c, args, err := p.client("alice", words)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	cmd, err := c.Command(ctx, args...)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(cmd.Env, "TERM=xterm", "HOME="+home)
	cmd.Dir = home
	master, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 100})
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, cmd: cmd, pty: master, name: strings.Join(words, " ")}
	go term.read()
	t.Cleanup(func() {
		cancel()
		cmd.Wait()
		master.Close()
	})
	return term
}

func (term *terminal) read() {
	buffer := make([]byte, 4096)
	for {
		count, err := term.pty.Read(buffer)
		term.mu.Lock()
		term.text.Write(buffer[:count])
		term.over = err != nil // EIO: nobody has the terminal open any more
		term.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// cut takes what was printed up to the first match of a pattern.
func (term *terminal) cut(pattern *regexp.Regexp) (found, over bool) {
	term.mu.Lock()
	defer term.mu.Unlock()
	place := pattern.FindIndex(term.text.Bytes())
	if place != nil {
		term.text.Next(place[1])
	}
	return place != nil, term.over
}

func (term *terminal) rest() string {
	term.mu.Lock()
	defer term.mu.Unlock()
	return term.text.String()
}

// expect waits until a text is printed, which is a regular expression. meanwhile is done
// again and again, if not nil.
func (term *terminal) expect(text string, meanwhile func()) {
	term.t.Helper()
	pattern := regexp.MustCompile(text)
	for end := time.Now().Add(limit); ; {
		found, over := term.cut(pattern)
		if found {
			return
		}
		if over || time.Now().After(end) {
			term.t.Fatalf("%s does not print %q but %q", term.name, text, term.rest())
		}
		if meanwhile != nil {
			meanwhile()
		}
		time.Sleep(20 * time.Millisecond) // until the next look
	}
}

// key types.
func (term *terminal) key(text string) {
	term.t.Helper()
	if _, err := io.WriteString(term.pty, text); err != nil {
		term.t.Fatal(err)
	}
}

const interrupt = "\x03"

// end waits for the end of the command, and returns its exit code.
func (term *terminal) end() int {
	term.t.Helper()
	dbtest.Wait(term.t, "the end of "+term.name, func(context.Context) error {
		term.mu.Lock()
		defer term.mu.Unlock()
		if !term.over {
			return fmt.Errorf("it has printed %q", term.text.String())
		}
		return nil
	})
	term.cmd.Wait()
	return term.cmd.ProcessState.ExitCode()
}

// terminals tries the commands that are used in a terminal.
func (p *platform) terminals(t *testing.T, all *rows) {
	n1 := p.nodes["n1"]
	n1.Echo("8000")
	p.SSH("192.168.152.5", p.Folder("switch1"))
	run := func(command string, do func(term *terminal)) {
		t.Helper()
		words := words(command)
		t.Run(strings.Join(words[1:3], " "), func(t *testing.T) {
			do(p.terminal(t, words...))
			if !t.Failed() {
				all.cover(covered, words...)
			}
		})
	}
	t.Run("first use", p.firstUse)
	run("walt node shell n1", func(term *terminal) {
		term.expect(`Caution: changes outside /persist will be lost on next node reboot\.\r\nRun 'walt help show shells' for more info\.\r\n`, nil)
		term.expect(`# $`, nil)
		term.key("echo $(stty size) $TERM\r")
		term.expect(`\n24 100 xterm\r\n.*# $`, nil)
		if err := pty.Setsize(term.pty, &pty.Winsize{Rows: 50, Cols: 132}); err != nil {
			term.t.Fatal(err)
		}
		term.expect(`50 132\r\n`, func() { term.key("stty size\r") })
		term.key("\rsleep 1000\r")
		term.expect(`sleep 1000\r\n`, nil)
		term.key(interrupt)
		term.expect(`# $`, nil)
		term.key("exit\r")
		term.expect(`Connection to 192\.168\.152\.11 closed\.\s`, nil)
		if code := term.end(); code != 0 {
			term.t.Errorf("exit code %d", code)
		}
	})
	run("walt node run --term n1 tty", func(term *terminal) {
		term.expect(`/dev/pts/\d+\r\n`, nil)
		term.end()
	})
	run("walt device shell switch1", func(term *terminal) {
		term.expect(`SSH user name: $`, nil)
		term.key("\r")
		term.expect(`# $`, nil)
		term.key("echo $((6*7)); exit\r")
		term.expect(`\n42\r\n`, nil)
		term.end()
	})
	run("walt node console vn1", func(term *terminal) {
		term.expect(`This will connect to the virtual node console\.(?s:.*)to abort: $`, nil)
		term.key("\r")
		term.expect(`OK, connecting\.`, nil)
		term.expect(`Starting\.\.\.\r\n`, nil) // by walt-virtual-node, again and again
		term.expect(`vn1 login: `, func() { p.LogFrom("192.168.152.20", "virtualconsole", `b'\r\nvn1 login: '`) })
		term.key("\x01")
		term.expect(`vn1 login: `, func() { p.LogFrom("192.168.152.20", "virtualconsole", `b'\r\nvn1 login: '`) })
		term.key("d")
		term.expect(`Disconnected from console\.`, nil)
		term.end()
	})
	for _, command := range []string{"walt node ping n1", "walt device ping n1"} {
		run(command, func(term *terminal) {
			term.expect(`PING 192\.168\.152\.11 .*bytes of data\.\r\n`, nil)
			term.expect(`64 bytes from 192\.168\.152\.11: icmp_seq=1 ttl=64 time=`, nil)
			term.key(interrupt)
			term.expect(`\d+ packets transmitted, \d+ received, 0% packet loss`, nil)
			term.end()
		})
	}
	run("walt node expose n1 8000 8084", func(term *terminal) {
		term.expect(`Listening on TCP port 8084 and redirecting connections to n1:8000\.\r\n`, nil)
		dialer := net.Dialer{Timeout: limit}
		conn, err := dialer.DialContext(term.t.Context(), "tcp", "127.0.0.1:8084")
		if err != nil {
			term.t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(limit))
		fmt.Fprintln(conn, "a line")
		answer := make([]byte, len("192.168.152.11 has a line"))
		if _, err := io.ReadFull(conn, answer); string(answer) != "192.168.152.11 has a line" {
			term.t.Errorf("received %q, %v", answer, err)
		}
		term.expect(`New connection forwarded to node\.\r\n`, nil)
		term.key(interrupt)
		term.expect(`Aborted\.`, nil)
		term.end()
	})
	run("walt device expose walt-server 80 8083", func(term *terminal) {
		term.expect(`Listening on TCP port 8083 and redirecting connections to walt-server:80\.\r\n`, nil)
		ctx, cancel := context.WithTimeout(term.t.Context(), limit)
		defer cancel()
		request, err := http.NewRequestWithContext(ctx, "GET", "http://127.0.0.1:8083/", nil)
		if err != nil {
			term.t.Fatal(err)
		}
		request.Close = true
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			term.t.Fatal(err)
		}
		defer answer.Body.Close()
		if text, err := io.ReadAll(answer.Body); err != nil || !strings.Contains(string(text), "WalT server HTTP service") {
			term.t.Errorf("the page is %q, %v", text, err)
		}
		term.key(interrupt)
		term.end()
	})
	run("walt advanced sql", func(term *terminal) {
		term.expect(`Type \\dt for a list of tables\.\r\n`, nil)
		term.expect(`walt=[>#] `, nil)
		term.key("select 6*7 as answer;\r")
		term.expect(`answer \r\n-+\r\n +42\r\n\(1 row\)`, nil)
		term.expect(`walt=[>#] `, nil)
		term.key("\\q\r")
		term.end()
	})
	run("walt log show --realtime --nodes n1", func(term *terminal) {
		term.expect(`\d\d:\d\d:\d\d\.\d{6} n1\.weather -> it hails\r\n`, func() { n1.Log("weather", "it hails") })
		term.key(interrupt)
		term.end()
	})
	run("walt log wait --nodes n1,n2 --mode ALL sunset", func(term *terminal) {
		term.expect(`n1\.sky -> a sunset\r\n`, func() { n1.Log("sky", "a sunrise", "a sunset") })
		term.expect(`n2\.sky -> a sunset\r\n`, func() { p.nodes["n2"].Log("sky", "a sunset") })
		if code := term.end(); code != 0 {
			term.t.Errorf("exit code %d", code)
		}
	})
	n1.Log("many", strings.Split(strings.Repeat("x\n", 1100), "\n")...)
	run("walt log show --history full --nodes n1 --streams ^many$", func(term *terminal) {
		term.expect(`This will display approximately 1101 log records from history\.\r\nAre you sure\? \(y/n\): `, nil)
		term.key("n\r")
		term.expect(`Aborted\.`, nil)
		term.end()
	})
	run("walt node wait n3", func(term *terminal) {
		term.expect(`Waiting for bootup of node n3\.\.\.`, nil)
		term.key(interrupt)
		term.end()
	})
}

// firstUse is that of a person whose client has no configuration.
func (p *platform) firstUse(t *testing.T) {
	home := t.TempDir()
	term := p.terminalAt(t, home, "walt", "node", "show")
	term.expect(`You are a new user of this WalT platform`, nil)
	term.expect(`IP or hostname of WalT server: $`, nil)
	term.key("127.0.0.1\r")
	term.expect(`Do you intend to push or pull images to/from the docker hub\? \(y/n\): $`, nil)
	term.key("n\r")
	term.expect(`Please choose a username for this walt platform: $`, nil)
	term.key("newbie\r")
	term.expect(`Testing provided configuration\.\.\.\r\n(?s:.*)OK\.\r\n`, nil)
	term.expect(`You currently do not own any nodes\.\r\n`, nil)
	if code := term.end(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if text, err := os.ReadFile(home + "/.walt/config"); err != nil || !strings.Contains(string(text), "username: newbie") {
		t.Errorf("the configuration is %q, %v", text, err)
	}
}

// LogFrom sends a line to a log stream of any device.
func (p *platform) LogFrom(ip, stream, line string) {
	if err := native.Log(p.t.Context(), ip, stream, line); err != nil {
		p.t.Error(err)
	}
}
