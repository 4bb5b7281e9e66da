package client

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// apiRows are those of client-api 6.2, by the name that api.py gives them. Work of later
// is what the last ones do.
var (
	apiRows = []string{"get_nodes", "attribute booted", "config", "reboot", "wait", "boot", "release", "acquire", "rename",
		"create_vnode", "forget and remove", "get_logs", "get_images", "images rename and remove", "get_server"}
	apiLater = map[string]string{
		"clone": `api.images.clone("walt:bob/pc-x86-64-default")`,
		"build": `api.images.build("built", ".")`,
	}
)

// TestPythonAPI goes through the API object of the client.
func TestPythonAPI(t *testing.T) {
	p := startPlatform(t)
	script, err := os.ReadFile("testdata/api.py")
	if err != nil {
		t.Fatal(err)
	}
	p.nodes["n1"].Log("weather", "it rains", "it snows")
	if _, err := p.run(t, "alice", "", "walt", "log", "add-checkpoint", "start", "--date", "2020-01-01 00:00:00"); err != nil {
		t.Fatal(err)
	}
	r, err := p.run(t, "alice", "", "python", "-c", string(script))
	if err != nil {
		t.Fatal(err)
	}
	out, complaints := show(r.out), show(r.err)
	const expected = "testdata/api.out"
	want, err := os.ReadFile(expected)
	if err != nil && !*update {
		t.Fatal(err)
	}
	all := out + "## standard error\n" + complaints
	switch {
	case r.code != 0:
		t.Errorf("exit code %d\n%s", r.code, all)
	case matches(string(want), all):
	case *update:
		if err := os.WriteFile(expected, []byte(all), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("printed:\n%s\nexpected:\n%s", all, want)
	}
	for name, call := range apiLater {
		r, err := p.run(t, "alice", "", "python", "-c", "from walt.client import api\n"+call)
		if err != nil || !strings.Contains(r.err, "not available on this server yet") {
			t.Errorf("%s: no clear message but %+v, %v", name, r, err)
		}
	}

	var done []string
	for line := range strings.Lines(out) {
		if name, ok := strings.CutPrefix(line, "## "); ok {
			done = append(done, strings.TrimSpace(name))
		}
	}
	for _, name := range apiRows {
		if !slices.Contains(done, name) {
			t.Errorf("%s is not tried", name)
		}
	}
	t.Logf("checklist of client-api 6.2: %d rows covered, %d later\n%s", len(done), len(apiLater), strings.Join(done, "\n"))
}
