package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/waltos/waltos/supervisor/journal"
	"github.com/waltos/waltos/supervisor/security"
	"github.com/waltos/waltos/supervisor/unit"
	"github.com/waltos/waltos/supervisor/watchdog"
)

// house is a machine of two units whose orders the test lets come true.
type house struct {
	history *History
	done    chan struct{}
	did     chan string
}

func (h *house) Status() Status { return Status{Name: "here", Units: []Unit{{Name: "a"}, {Name: "b"}}} }

func (h *house) Unit(name string) (Detail, error) {
	if name != "a" && name != "b" {
		return Detail{}, unit.ErrUnknown{Name: name}
	}
	return Detail{Unit: Unit{Name: name, State: unit.Running}}, nil
}

func (h *house) Graph() []Node {
	return []Node{{Name: "a", Needs: []string{"b"}}, {Name: "b"}, {Name: "c"}}
}
func (h *house) Boot() Boot                  { return Boot{} }
func (h *house) Security() []security.Report { return []security.Report{{Unit: "a"}} }

func (h *house) Change(what, name string) (<-chan struct{}, error) {
	if _, err := h.Unit(name); err != nil {
		return nil, err
	}
	h.did <- what + " " + name
	return h.done, nil
}

func (h *house) Configure(_ context.Context, text []byte) (string, error) {
	if string(text) == "bad" {
		return "", errors.New("the site file is bad")
	}
	h.did <- "configure " + string(text)
	return "restarted all", nil
}

func (h *house) Shutdown(what string) { h.did <- what }

func (h *house) Watchdog(order string) (watchdog.Status, error) {
	h.did <- "watchdog " + order
	return watchdog.Status{State: watchdog.Armed, Device: "dog", Timeout: time.Minute}, nil
}

// open starts a server and returns its machine and a client.
func open(t *testing.T) (*house, Client) {
	h := &house{history: NewHistory(), done: make(chan struct{}), did: make(chan string, 10)}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "control.sock")
	ln, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	j := journal.New(journal.DefaultLimit)
	if err := j.Attach(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	j.Append("a", "a secret line")
	server := &Server{Machine: h, Journal: j, History: h.history}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ln) }()
	t.Cleanup(func() {
		ln.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		j.Close()
	})
	return h, Client{path}
}

func change(name string, to unit.State) unit.Change {
	return unit.Change{Unit: name, Old: unit.Waiting, New: to, Time: time.Unix(1e9, 0)}
}

func TestChangeTellsProgress(t *testing.T) {
	h, c := open(t)
	h.history.Add(change("a", unit.Failed)) // before the order: not of interest
	go func() {
		<-h.did
		for _, name := range []string{"b", "c", "a"} {
			h.history.Add(change(name, unit.Running))
		}
		close(h.done)
	}()
	var seen []string
	u, err := c.Change(t.Context(), "restart", "a", true, func(e Event) { seen = append(seen, e.Unit) })
	if err != nil || u.State != unit.Running || !slices.Equal(seen, []string{"b", "a"}) {
		t.Errorf("%+v, %v, events of %v", u, err, seen)
	}
}

func TestChangeDoesNotWait(t *testing.T) {
	h, c := open(t)
	if u, err := c.Change(t.Context(), "stop", "b", false, nil); err != nil || u.Name != "b" {
		t.Errorf("%+v, %v", u, err)
	}
	if got := <-h.did; got != "stop b" {
		t.Error(got)
	}
}

func TestChangeEndsWithTheClient(t *testing.T) {
	h, c := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-h.did; cancel() }()
	if _, err := c.Change(ctx, "start", "a", true, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestRefusals(t *testing.T) {
	_, c := open(t)
	for path, want := range map[string]string{
		"POST /v1/units/x/start": `no unit is named "x"`, "POST /v1/units/a/explode": `no order is named "explode"`,
		"GET /v1/units/x": `no unit is named "x"`, "GET /v2/status": "no request is GET /v2/status",
		"POST /v1/status": "", "POST /v1/machine/dance": `no order is named "dance"`,
	} {
		method, path, _ := strings.Cut(path, " ")
		err := c.ask(t.Context(), method, path, &struct{}{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s %s: %v", method, path, err)
		}
	}
	if _, err := (Client{filepath.Join(t.TempDir(), "none")}).Status(t.Context()); !errors.Is(err, ErrUnreachable) {
		t.Error(err)
	}
}

func TestEventsFollow(t *testing.T) {
	h, c := open(t)
	h.history.Add(change("b", unit.Starting))
	h.history.Add(change("a", unit.Starting))
	enough := errors.New("enough")
	var seen []unit.State
	err := c.Events(t.Context(), "a", true, func(e Event) error {
		if seen = append(seen, e.To); len(seen) == 2 {
			return enough
		}
		h.history.Add(change("a", unit.Running)) // it is followed by now
		return nil
	})
	if !errors.Is(err, enough) || !slices.Equal(seen, []unit.State{unit.Starting, unit.Running}) {
		t.Errorf("%v, %v", err, seen)
	}
}

func TestHistoryForgets(t *testing.T) {
	h := NewHistory()
	for range historySize + 10 {
		h.Add(change("a", unit.Running))
	}
	all, _ := h.After(0)
	if len(all) != historySize || all[0].Number != 11 || h.Last() != historySize+10 {
		t.Errorf("%d events from %d to %d", len(all), all[0].Number, h.Last())
	}
	if rest, more := h.After(historySize + 9); len(rest) != 1 || more == nil {
		t.Errorf("%d events", len(rest))
	}
	if rest, _ := h.After(historySize + 10); len(rest) != 0 {
		t.Errorf("%d events", len(rest))
	}
}

// TestCurl: the protocol is what its page says to a program that is not ours.
func TestCurl(t *testing.T) {
	_, c := open(t)
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("curl is not here")
	}
	out, err := exec.Command(curl, "--silent", "--unix-socket", c.Path, "http://walt/v1/status").Output()
	var s Status
	if err != nil || json.Unmarshal(out, &s) != nil || s.Name != "here" {
		t.Errorf("%v: %s", err, out)
	}
	out, err = exec.Command(curl, "--silent", "--unix-socket", c.Path, "http://walt/").Output()
	if err != nil || !strings.Contains(string(out), "POST /v1/units/{unit}/{order}") {
		t.Errorf("%v: %s", err, out)
	}
}

// TestOthers asks as a user who is not root: this test, again.
func TestOthers(t *testing.T) {
	if path := os.Getenv("WALT_TEST_SOCKET"); path != "" {
		others(t, Client{path})
		return
	}
	if os.Getuid() != 0 {
		t.Skip("only root can become another user")
	}
	_, c := open(t)
	program := filepath.Join(filepath.Dir(c.Path), "test")
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, self, 0o755); err != nil {
		t.Fatal(err)
	}
	for dir := filepath.Dir(c.Path); dir != "/"; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err == nil && info.Mode()&0o001 == 0 {
			if err := os.Chmod(dir, info.Mode()|0o001); err != nil {
				t.Fatal(err)
			}
		}
	}
	cmd := exec.Command(program, "-test.run", "^TestOthers$", "-test.v")
	cmd.Env = append(os.Environ(), "WALT_TEST_SOCKET="+c.Path)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestOthers") {
		t.Errorf("%v\n%s", err, out)
	}
}

func others(t *testing.T, c Client) {
	if s, err := c.Status(t.Context()); err != nil || s.Name != "here" {
		t.Errorf("%+v, %v", s, err)
	}
	if d, err := c.Unit(t.Context(), "a"); err != nil || len(d.Log) != 0 {
		t.Errorf("%+v, %v", d, err)
	}
	for _, e := range Endpoints() {
		path := strings.NewReplacer("{unit}", "a", "{order}", "stop").Replace(e.Path)
		if !e.Root {
			continue
		}
		if err := c.ask(t.Context(), e.Method, path, &struct{}{}); !errors.Is(err, ErrForbidden) {
			t.Errorf("%s %s: %v", e.Method, path, err)
		}
	}
	// Connections that do nothing do not add up.
	var kept []net.Conn
	for range 3 * maxOthers {
		conn, err := net.Dial("unix", c.Path)
		if err != nil {
			t.Fatal(err)
		}
		kept = append(kept, conn)
	}
	refused := make(chan struct{}, len(kept))
	for _, conn := range kept {
		defer conn.Close()
		go func() {
			if _, err := conn.Read(make([]byte, 1)); errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
				refused <- struct{}{}
			}
		}()
	}
	for i := range 2 * maxOthers {
		select {
		case <-refused:
		case <-time.After(patience / 2): // then the others are refused for their silence
			t.Fatalf("only %d of %d connections were refused", i, len(kept))
		}
	}
}

// TestDoorOpensAgain: after a flood of bad clients the next good one is served.
func TestDoorOpensAgain(t *testing.T) {
	_, c := open(t)
	for i := range 200 {
		conn, err := net.Dial("unix", c.Path)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "GET /%s HTTP/9.9\r\n%d: \x00\x1b[2J\r\n\r\n", strings.Repeat("x", i*100), i)
		conn.Close()
	}
	if _, err := c.Status(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestBodiesAreBounded: nothing reads what is too long.
func TestBodiesAreBounded(t *testing.T) {
	_, c := open(t)
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", c.Path)
	}}}
	defer client.CloseIdleConnections()
	request, err := http.NewRequestWithContext(t.Context(), "GET", "http://walt/v1/status", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X-Long", strings.Repeat("x", 4*maxHeader))
	response, err := client.Do(request)
	if err == nil {
		response.Body.Close()
		if response.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("status %d", response.StatusCode)
		}
	}
}

func TestWatchdog(t *testing.T) {
	h, c := open(t)
	for _, order := range []string{"on", "off"} {
		status, err := c.Watchdog(t.Context(), order)
		if err != nil || status.Device != "dog" || status.Timeout != time.Minute {
			t.Errorf("%s: %+v, %v", order, status, err)
		}
		if did := <-h.did; did != "watchdog "+order {
			t.Errorf("%s became %s", order, did)
		}
	}
	if _, err := c.Watchdog(t.Context(), "bite"); err == nil || !strings.Contains(err.Error(), `no order is named "bite"`) {
		t.Errorf("an unknown order: %v", err)
	}
}
