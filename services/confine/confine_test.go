package confine

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waltos/waltos/services/confine/confinetest"
)

// TestMain is also the program services.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == Role {
		fmt.Fprintln(os.Stderr, Main(context.Background(), os.Args[2:]))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// confined runs a script of the shell of this machine.
func confined(t *testing.T, r Rules, script string, env ...string) string {
	t.Helper()
	shell, err := filepath.EvalSymlinks("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, r.Command(shell, "-c", script)...)
	cmd.Env = append(env, "PATH=/usr/bin:/bin")
	out, _ := cmd.CombinedOutput() // the script may fail
	return string(out)
}

// TestGarbage confines while garbage is collected all the time: the limit is set for what
// will run, but this program must not die of it.
func TestGarbage(t *testing.T) {
	confinetest.Need(t)
	for range 200 {
		if out := confined(t, Rules{Read: []string{"/usr/lib", "/lib", "/lib64"}, Memory: 256 << 20}, "echo here", "GOGC=1"); out != "here\n" {
			t.Fatalf("prints %q", out)
		}
	}
}

func TestConfined(t *testing.T) {
	confinetest.Need(t)
	dir := t.TempDir()
	for name, text := range map[string]string{"open/file": "readable", "closed": "secret"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text+"\n"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	rules := Rules{Read: []string{"/usr/lib", "/lib", "/lib64", "/etc/ld.so.cache", "/proc/self", dir + "/open", dir + "/none"}, Memory: 1 << 30}
	for _, test := range []struct{ script, want, not string }{
		{"read x <" + dir + "/open/file; echo $x", "readable\n", ""},
		{"read x <" + dir + "/closed; echo $x", "", "secret"},
		{"read x </etc/passwd; echo $x", "", "root"},
		{"echo x >" + dir + "/open/file && echo written", "", "written"},
		{"echo x >" + dir + "/new && echo written", "", "written"},
		{"ls / && echo executed", "", "executed"},
		{"/bin/sh -c 'echo executed'", "executed", ""}, // it may start itself
		{"while read k v; do case $k in CapEff:|CapPrm:|NoNewPrivs:) echo $v;; esac; done </proc/self/status", "0000000000000000\n0000000000000000\n1\n", ""},
		{"ulimit -c; ulimit -d", "0\n1048576\n", ""},
	} {
		out := confined(t, rules, test.script)
		if !strings.Contains(out, test.want) || test.not != "" && strings.Contains(out, test.not) {
			t.Errorf("%s prints %q", test.script, out)
		}
	}
}

func TestRefusals(t *testing.T) {
	for _, args := range [][]string{
		nil, {"--"}, {"--", "psql"}, {"-read", "etc", "--", "/bin/sh"}, {"-connect", "70000", "--", "/bin/sh"}, {"-x"}, {"--", "/nonexistent"}, {"--", "/etc/passwd"},
	} {
		if err := Main(t.Context(), args); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
}
