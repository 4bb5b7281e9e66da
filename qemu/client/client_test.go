package client

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// shell stands in for the client: it shows what a client would be given.
func shell(t *testing.T, script string) Client {
	return Client{
		Program: Program{Argv: []string{"/bin/sh", "-c", script, "walt"}},
		Home:    filepath.Join(t.TempDir(), "home"), Server: "127.0.0.9", User: "lab",
	}
}

func TestRun(t *testing.T) {
	t.Setenv("WALT_SOMETHING", "of the caller")
	c := shell(t, `cat "$HOME/.walt/config"; echo "$WALT_SOMETHING$1" >&2; exit 3`)
	stdout, stderr, code, err := c.Output(context.Background(), "node")
	if err != nil || code != 3 {
		t.Fatalf("ended with %d, %v", code, err)
	}
	if want := "walt:\n    server: 127.0.0.9\n    username: lab\n"; stdout != want || stderr != "node\n" {
		t.Errorf("printed %q and %q", stdout, stderr)
	}
}

func TestConfigurationIsKept(t *testing.T) {
	c := shell(t, "true")
	if _, _, _, err := c.Output(context.Background()); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(c.Home, ".walt", "config")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	longer := string(data) + "registries: {hub: {username: someone}}\n"
	if err := os.WriteFile(file, []byte(longer), 0o600); err != nil {
		t.Fatal(err)
	}
	for server, want := range map[string]bool{c.Server: true, "127.0.0.10": false} {
		c.Server = server
		if _, _, _, err := c.Output(context.Background()); err != nil {
			t.Fatal(err)
		}
		if data, _ := os.ReadFile(file); strings.Contains(string(data), "someone") != want {
			t.Errorf("with server %s the configuration is %q", server, data)
		}
		if err := os.WriteFile(file, []byte(longer), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestErrors(t *testing.T) {
	if _, _, _, err := (Client{}).Output(context.Background(), "node", "show"); err == nil || !strings.Contains(err.Error(), "walt node show") {
		t.Errorf("no client was told as: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, _, _, err := shell(t, "exec sleep 60").Output(ctx); err == nil {
		t.Error("a client that was interrupted has an exit code")
	}
	if _, _, _, err := shell(t, "kill -9 $$").Output(context.Background()); err == nil {
		t.Error("a client that was killed has an exit code")
	}
}
