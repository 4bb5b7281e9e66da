package replay

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gdamore/tcell/v2"

	"github.com/waltos/waltos/services/daemon/trackexec/timeline"
	"github.com/waltos/waltos/services/daemon/trackexec/tracetest"
)

// terminal is a browser on a simulated screen.
type terminal struct {
	t       *testing.T
	browser *browser
	screen  tcell.SimulationScreen
}

func browse(t *testing.T, folder string) *terminal {
	t.Helper()
	line, err := timeline.Open(folder, t.Errorf)
	if err != nil {
		t.Fatal(err)
	}
	screen := tcell.NewSimulationScreen("UTF-8")
	if err := screen.Init(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(screen.Fini)
	screen.SetSize(120, 14)
	return &terminal{t, newBrowser(screen, line, "test"), screen}
}

// press presses keys: runes, with '\r' for Enter.
func (x *terminal) press(keys string) {
	for _, r := range keys {
		if r == '\r' {
			x.browser.key(tcell.NewEventKey(tcell.KeyEnter, 0, 0))
			continue
		}
		x.browser.key(tcell.NewEventKey(tcell.KeyRune, r, 0))
	}
}

func (x *terminal) special(key tcell.Key) { x.browser.key(tcell.NewEventKey(key, 0, 0)) }

// lines returns what the screen shows.
func (x *terminal) lines() []string {
	x.browser.draw()
	cells, width, height := x.screen.GetContents()
	var lines []string
	for y := range height {
		var line strings.Builder
		for _, cell := range cells[y*width : (y+1)*width] {
			line.WriteString(string(cell.Runes))
		}
		lines = append(lines, strings.TrimRight(line.String(), " "))
	}
	return lines
}

// at checks which event is selected, by the second it is in, its process and what it is.
func (x *terminal) at(second float64, process, what string) {
	x.t.Helper()
	lines := x.lines()
	when, description := lines[len(lines)-3], lines[len(lines)-2]
	want := time.Unix(0, tracetest.Begin).Add(time.Duration(second * float64(time.Second))).Format(dateLayout + " " + clockLayout)
	if !strings.HasPrefix(when, want) || !strings.HasSuffix(when, process) || !strings.Contains(description, what) {
		x.t.Errorf("at %q %q; want %s of %s at %s\n%s", when, description, what, process, want, strings.Join(lines, "\n"))
	}
}

func TestScreen(t *testing.T) {
	x := browse(t, tracetest.Run(t, 20))
	lines := x.lines()
	for _, want := range []string{
		"trackexec test",
		"10:00:00.000000  20.0ms ▇▇▇▇▇    hub      request show_nodes session 7 [CSAPI]",
		"10:00:00.000000  0.000ms          main     start server-main pid 42",
		"10:00:00.000100  20.0ms ▇▇▇▇▇    main     request show_nodes session 7 [CSAPI]",
		"10:00:00.000500   begins          main     stream REQ_NEW_INCOMING_LOGS [192.168.152.7]",
		"10:00:00.001000  10.0ms ▇▇▇▇▇    main       task loadAll [server-db]",
		"10:00:00.002000  2.000ms ▇▇▇▇     main         sql SELECT mac FROM devices rows 0",
	} {
		found := false
		for _, line := range lines {
			found = found || squeeze(line) == squeeze(want)
		}
		if !found {
			t.Errorf("the screen lacks %q:\n%s", want, strings.Join(lines, "\n"))
		}
	}
	if len(lines) != 14 || !strings.Contains(lines[13], "q quit") {
		t.Errorf("last line %q", lines[len(lines)-1])
	}
}

func squeeze(text string) string { return strings.Join(strings.Fields(text), " ") }

func TestSteps(t *testing.T) {
	x := browse(t, tracetest.Run(t, 20))
	x.at(0, "server-hub", "request show_nodes")
	x.press("ss")
	x.at(0.0001, "server-main", "request show_nodes")
	x.press("s") // into
	x.at(0.0005, "server-main", "stream")
	x.press("s")
	x.at(0.001, "server-main", "task loadAll")
	x.press("n") // over its statements
	x.at(1.0001, "server-main", "request show_nodes")
	x.press("n")
	x.at(2.0001, "server-main", "request wait_for_nodes")
	if lines := x.lines(); !strings.Contains(strings.Join(lines, "\n"), "begins") {
		t.Errorf("its beginning is not shown as one:\n%s", strings.Join(lines, "\n"))
	}
	x.special(tcell.KeyUp)
	x.at(2, "server-hub", "request wait_for_nodes")
	x.special(tcell.KeyEnd)
	x.at(19.005, "server-main", "FAILED: PostgreSQL is restarting")
	x.press("s")
	x.at(19.005, "server-main", "sql")
	if lines := x.lines(); !strings.Contains(lines[13], "this is the end") {
		t.Errorf("last line %q", lines[13])
	}
	x.special(tcell.KeyHome)
	x.at(0, "server-hub", "request show_nodes")
	x.special(tcell.KeyPgDn)
	x.special(tcell.KeyPgUp)
	x.at(0, "server-hub", "request show_nodes")
}

func TestBreakpointsAndSearch(t *testing.T) {
	x := browse(t, tracetest.Run(t, 20))
	x.press("c")
	if lines := x.lines(); !strings.Contains(lines[13], "there is no breakpoint") {
		t.Errorf("last line %q", lines[13])
	}
	x.press("/RESTARTING\r")
	x.at(9.005, "server-main", "FAILED")
	x.press("c")
	x.at(19.005, "server-main", "FAILED")
	x.press("c")
	if lines := x.lines(); !strings.Contains(lines[13], "nothing further") {
		t.Errorf("last line %q", lines[13])
	}
	x.press("/\r") // no search any more
	x.special(tcell.KeyHome)
	x.press("nn")
	x.at(2, "server-hub", "request wait_for_nodes")
	x.press("b")
	x.special(tcell.KeyHome)
	x.press("c")
	x.at(2, "server-hub", "request wait_for_nodes")
	if lines := x.lines(); !strings.Contains(strings.Join(lines, "\n"), "●") {
		t.Errorf("no mark:\n%s", strings.Join(lines, "\n"))
	}
	x.press("cc")
	x.at(5, "server-hub", "end of request wait_for_nodes")
	x.press("b")
	x.special(tcell.KeyHome)
	x.press("c")
	x.at(0, "server-hub", "request show_nodes")
}

func TestJumpAndFilter(t *testing.T) {
	x := browse(t, tracetest.Run(t, 20))
	x.press("j10:00:07.5\r")
	x.at(8, "server-hub", "request show_nodes")
	x.press("j-3s\r")
	x.at(5, "server-hub", "end of request")
	x.press("j+1h\r") // the end
	x.at(19.005, "server-main", "sql")
	x.press("j2026-11-22\r")
	x.at(0, "server-hub", "request")
	x.press("jnoon\r")
	if lines := x.lines(); !strings.Contains(lines[13], "±<n>[smhd]") {
		t.Errorf("last line %q", lines[13])
	}
	x.press("j10:00:04\r")
	x.press("fmain sql\r")
	x.at(4.002, "server-main", "sql")
	x.press("s")
	x.at(4.005, "server-main", "sql")
	x.press("s")
	x.at(5.002, "server-main", "sql")
	x.press("fnone\r")
	if lines := x.lines(); !strings.Contains(lines[13], "no event is of none") {
		t.Errorf("last line %q", lines[13])
	}
	x.press("s")
	x.press("f\r")
	x.at(0, "server-hub", "request show_nodes")
	x.press("fxx")
	x.special(tcell.KeyBackspace2)
	x.special(tcell.KeyEscape)
	x.at(0, "server-hub", "request show_nodes")
}

func TestHelpAndQuit(t *testing.T) {
	x := browse(t, tracetest.Run(t, 20))
	x.press("h")
	if text := strings.Join(x.lines(), "\n"); !strings.Contains(text, "step over") {
		t.Errorf("no help:\n%s", text)
	}
	x.press("q") // leaves the help only
	x.special(tcell.KeyRight)
	if text := strings.Join(x.lines(), "\n"); strings.Contains(text, "request show_nodes session 7 [CSAPI]\n10") {
		t.Errorf("not shifted:\n%s", text)
	}
	x.special(tcell.KeyLeft)
	for _, size := range [][2]int{{1, 1}, {20, 3}, {200, 60}, {80, 5}} {
		x.screen.SetSize(size[0], size[1])
		x.lines()
	}
	x.press("x")
	x.screen.InjectKey(tcell.KeyRune, 'q', 0)
	x.browser.run()
	if !x.browser.quitting {
		t.Error("q does not quit")
	}
}

func TestEmptyTrace(t *testing.T) {
	folder := t.TempDir()
	tracetest.Write(t, folder)
	x := browse(t, folder)
	if lines := x.lines(); !strings.Contains(lines[13], "there is no event") {
		t.Errorf("last line %q", lines[13])
	}
	x.press("snj/b")
	x.special(tcell.KeyDown)
	x.special(tcell.KeyEnd)
	x.lines()
}

func TestParseJump(t *testing.T) {
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"23:59:01.25": "2026-11-22 23:59:01.25", "00:00:00": "2026-11-22 00:00:00", "2025-02-28": "2025-02-28 00:00:00",
		"+5s": "2026-11-22 10:00:05", "-2m": "2026-11-22 09:58:00", "+1h": "2026-11-22 11:00:00", "-3d": "2026-11-19 10:00:00",
	} {
		got, err := parseJump(text, now)
		if err != nil || got.Format("2006-01-02 15:04:05.999") != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "5s", "+s", "+5", "+5w", "24:00:00", "2026-13-01", "+999999999d", "+9999999999s", "10:00"} {
		if got, err := parseJump(text, now); err == nil {
			t.Errorf("%q is taken for %v", text, got)
		}
	}
}

func TestPrinted(t *testing.T) {
	folder := tracetest.Run(t, 20)
	var out, errs bytes.Buffer
	if status := run(t.Context(), []string{folder}, &out, &errs); status != 0 || errs.Len() > 0 {
		t.Fatalf("status %d, %s", status, &errs)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 104 || !strings.HasSuffix(lines[0], "20.0ms server-hub      request show_nodes session 7 [CSAPI]") {
		t.Errorf("%d lines, first %q", len(lines), lines[0])
	}
	out.Reset()
	if status := run(t.Context(), []string{"--json", filepath.Join(folder, "server-main")}, &out, &errs); status != 0 || errs.Len() > 0 {
		t.Fatalf("status %d, %s", status, &errs)
	}
	decoder := json.NewDecoder(&out)
	n, last := 0, time.Time{}
	for ; decoder.More(); n++ {
		var l line
		if err := decoder.Decode(&l); err != nil {
			t.Fatal(err)
		}
		if l.Process != "server-main" || l.Time.Before(last) || l.State == "open" != (l.Duration == nil) {
			t.Errorf("line %+v", l)
		}
		last = l.Time
	}
	if n != 83 {
		t.Errorf("%d lines", n)
	}
}

func TestExitStatus(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	for _, test := range []struct {
		args   []string
		status int
		out    string
		err    string
	}{
		{[]string{"--help"}, 0, "±<n>[smhd]", ""},
		{[]string{none}, 1, "", "No such directory: " + none + "\n"},
		{[]string{}, 2, "", "accepts 1 arg"},
		{[]string{"--bad", none}, 2, "", "unknown flag"},
	} {
		var out, errs bytes.Buffer
		status := run(t.Context(), test.args, &out, &errs)
		if status != test.status || !strings.Contains(out.String(), test.out) || !strings.Contains(errs.String(), test.err) {
			t.Errorf("%q: status %d, %q, %q", test.args, status, &out, &errs)
		}
	}
}
