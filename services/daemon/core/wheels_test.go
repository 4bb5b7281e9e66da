package core

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waltos/waltos/image/fetch"
	"github.com/waltos/waltos/image/inputs"
	"github.com/waltos/waltos/services/wire/pickle"
)

func TestWheelsAreComplete(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"walt_client-10.0-py3-none-any.whl", "walt_common-10.0-py3-none-any.whl", "other.whl"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, where := range []string{dir, filepath.Join(dir, "none")} {
		if _, err := readWheels(where); err == nil || !strings.Contains(err.Error(), "holds no wheel of walt_") {
			t.Errorf("an incomplete set: %v", err)
		}
	}
	doc := filepath.Join(dir, "walt_doc-10.0-py3-none-any.whl")
	if err := os.WriteFile(doc, []byte("doc"), 0o600); err != nil {
		t.Fatal(err)
	}
	wheels, err := readWheels(dir)
	if err != nil {
		t.Fatal(err)
	}
	if content, _ := wheels.Get("walt_doc-10.0-py3-none-any.whl"); wheels.Len() != 3 || string(content.([]byte)) != "doc" {
		t.Errorf("wheels %v", wheels.Entries())
	}
	if err := os.Truncate(doc, maxWheelBytes+1); err != nil {
		t.Fatal(err)
	}
	if _, err := readWheels(dir); err == nil || !strings.Contains(err.Error(), "have more than") {
		t.Errorf("too much: %v", err)
	}
}

// openInputs gives access to what the lock names, the real client among it.
func openInputs(t *testing.T) *inputs.Inputs {
	t.Helper()
	if testing.Short() {
		t.Skip("downloads packages")
	}
	in, err := inputs.Open(inputs.Options{Appliance: "../../../image/appliance.hcl", Override: true, Progress: fetch.NewProgress(os.Stderr)})
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Ensure(t.Context(), inputs.Python); err != nil {
		t.Fatal(err)
	}
	return in
}

// realClient returns a command that runs a script in Python, where the real client finds
// its configuration: that of alice, with more below it. The arguments of the script are
// the host and the port of the API, then its own.
func (n *native) realClient(t *testing.T, in *inputs.Inputs, more, script string, args ...string) *exec.Cmd {
	t.Helper()
	host, port, err := net.SplitHostPort(n.API)
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	if err := os.Mkdir(filepath.Join(home, ".walt"), 0o700); err != nil {
		t.Fatal(err)
	}
	config := "walt:\n  server: " + host + "\n  username: alice\n" + more
	if err := os.WriteFile(filepath.Join(home, ".walt", "config"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	site, err := in.Client(t.Context(), "client")
	if err != nil {
		t.Fatal(err)
	}
	python, err := in.Toolbox(t.Context(), inputs.Python)
	if err != nil {
		t.Fatal(err)
	}
	command := python.Command(t.Context(), "python3", append([]string{"-c", script, host, port}, args...)...)
	command.Env = append(command.Env, "PYTHONPATH="+site.Path("."), "HOME="+home)
	return command
}

// update runs the updater of the real client as one of another version does, but for
// pip: the files that it would install are copied to the folder named.
const update = `
import os, shutil, subprocess, sys
host, port, target = sys.argv[1:]
import walt.common.apilink, walt.client.update
walt.common.apilink.WALT_SERVER_DAEMON_PORT = int(port)
walt.client.update.__version__ = "9.0"
def run(command, check):
    for word in command:
        if word.endswith(".whl"):
            shutil.copy(word, target)
subprocess.run = run
class Restarted(Exception):
    pass
def execv(*args):
    raise Restarted
os.execv = execv
sys.argv[0] = "walt"
from walt.client.link import ClientToServerLink
try:
    with ClientToServerLink():
        pass
except Restarted:
    print("restarted")
`

// TestCN29UpdateOfClients has the real client of another version fetch the wheels of the
// lock from the daemon, and pip install them.
func TestCN29UpdateOfClients(t *testing.T) {
	in := openInputs(t)
	shipped, err := in.Shipped()
	if err != nil {
		t.Fatal(err)
	}
	if err := in.FetchWheels(t.Context(), shipped); err != nil {
		t.Fatal(err)
	}
	n := startNative(t, "")
	s, _ := n.session("CSAPI")
	if _, err := s.Call(t.Context(), "get_client_install_wheels"); err == nil || !strings.Contains(err.Error(), "this server has no client of its own version to give") {
		t.Errorf("without wheels: %v", err)
	}
	for _, w := range shipped {
		if err := os.Symlink(in.Fetcher.Cache.File(w.SHA256), filepath.Join(n.wheels, w.File)); err != nil {
			t.Fatal(err)
		}
	}
	answer, err := s.Call(t.Context(), "get_client_install_wheels")
	if err != nil {
		t.Fatal(err)
	}
	if wheels, _ := answer.(*pickle.Dict); wheels == nil || wheels.Len() != len(shipped) {
		t.Fatalf("answer of type %T", answer)
	}

	received := t.TempDir()
	client := n.realClient(t, in, "", update, received)
	if out, err := client.CombinedOutput(); err != nil || !strings.Contains(string(out), "Auto-upgrading") || !strings.HasSuffix(string(out), "restarted\n") {
		t.Fatalf("the client: %v\n%s", err, out)
	}

	python, err := in.Toolbox(t.Context(), inputs.Python)
	if err != nil {
		t.Fatal(err)
	}
	installed := t.TempDir()
	args := []string{"-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--disable-pip-version-check", "--target", installed}
	for _, w := range shipped {
		args = append(args, filepath.Join(received, w.File))
	}
	if out, err := python.Command(t.Context(), "python3", args...).CombinedOutput(); err != nil {
		t.Fatalf("pip: %v\n%s", err, out)
	}
	for _, name := range []string{"walt/client/client.py", "walt/common/version.py", "walt/doc/md/shells.md", "walt_client-10.0.dist-info"} {
		if _, err := os.Stat(filepath.Join(installed, name)); err != nil {
			t.Error(err)
		}
	}
}
