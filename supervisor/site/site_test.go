package site

import (
	"errors"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waltos/waltos/hcl"
)

const (
	good    = "hostname = \"good\"\nnetwork \"walt-net\" { ip = \"10.1.0.1/24\" }\n"
	other   = "hostname = \"other\"\nnetwork \"walt-net\" { ip = \"10.2.0.1/24\" }\n"
	invalid = "network \"walt-net\" { ipp = \"10.1.0.1/24\" }\n"
	conf    = "network:\n  walt-net:\n    ip: 10.3.0.1/24\n"
)

func nothing() ([]byte, error) { return nil, os.ErrNotExist }

func TestLoad(t *testing.T) {
	for _, c := range []struct {
		name      string
		files     map[string]string
		sources   []string // "" is an absent one
		source    string   // of the result
		effective string   // contains
		refused   string   // contains
		kept      string   // walt.hcl afterwards contains
	}{
		{"configured", map[string]string{"walt.hcl": good}, nil, "DIR/walt.hcl", good, "", good},
		{"invalid with last good", map[string]string{"walt.hcl": invalid, "last": good}, nil,
			"the last good configuration", good, "DIR/walt.hcl line 1", invalid},
		{"invalid without last good", map[string]string{"walt.hcl": invalid}, nil,
			"the built-in configuration", "192.168.152.1/24", "DIR/walt.hcl line 1", invalid},
		{"all invalid", map[string]string{"walt.hcl": invalid, "last": "}"}, nil,
			"the built-in configuration", "192.168.152.1/24", "DIR/last line 1", invalid},
		{"server.conf", map[string]string{"server.conf": conf}, []string{good},
			"DIR/walt.hcl, imported from DIR/server.conf", "10.3.0.1/24", "", "10.3.0.1/24"},
		{"invalid server.conf", map[string]string{"server.conf": "network: [1]\n"}, []string{good},
			"the built-in configuration", "192.168.152.1/24", "DIR/server.conf", ""},
		{"first boot", nil, []string{"", other, good}, "DIR/walt.hcl, taken from source 1", other, "", other},
		{"first boot with an invalid source", nil, []string{invalid, other}, "DIR/walt.hcl, taken from source 1", other, "source 0 line 1", other},
		{"nothing", nil, []string{""}, "the built-in configuration", "192.168.152.1/24", "", ""},
		{"last good survives a lost file", map[string]string{"last": good}, nil, "the last good configuration", good, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			path := func(name string) string { return filepath.Join(dir, name) }
			for name, text := range c.files {
				if err := os.WriteFile(path(name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			config := Config{File: path("walt.hcl"), ServerConf: path("server.conf"), LastGood: path("last"), Effective: path("run/site.hcl"), Secret: path("run/url")}
			for i, text := range c.sources {
				read := nothing
				if text != "" {
					read = func() ([]byte, error) { return []byte(text), nil }
				}
				config.First = append(config.First, Source{Name: "source " + string(rune('0'+i)), Read: read})
			}
			r, err := config.Load()
			if err != nil {
				t.Fatal(err)
			}
			in := func(what, text, want string) {
				t.Helper()
				want = strings.ReplaceAll(want, "DIR", dir)
				if !strings.Contains(text, want) || want == "" && what == "refused" && text != "" {
					t.Errorf("%s is %q, want %q", what, text, want)
				}
			}
			effective, err := os.ReadFile(config.Effective)
			if err != nil {
				t.Fatal(err)
			}
			kept, err := os.ReadFile(config.File)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			if want := strings.ReplaceAll(c.source, "DIR", dir); r.Source != want {
				t.Errorf("source %q, want %q", r.Source, want)
			}
			in("effective", string(effective), c.effective)
			in("refused", strings.ReplaceAll(r.Refused, ",", ""), c.refused)
			in("walt.hcl", string(kept), c.kept)
			if r.Site == nil || r.Site.Network("walt-net") == nil {
				t.Error("no usable site")
			}
			// The next boot finds the same.
			again, err := config.Load()
			if err != nil || again.Site.Server() != r.Site.Server() {
				t.Errorf("the second boot has %v, %v", again.Site.Server(), err)
			}
		})
	}
}

// TestSecret: the password of a database is in no file that all may read.
func TestSecret(t *testing.T) {
	self, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	config := Config{
		File: path("walt.hcl"), ServerConf: path("server.conf"), LastGood: path("last"),
		Effective: path("run/site.hcl"), Secret: path("run/url"), Owner: self.Username,
	}
	configure := func(text string) {
		t.Helper()
		if err := os.WriteFile(config.File, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if r, err := config.Load(); err != nil || r.Refused != "" {
			t.Fatal(err, r.Refused)
		}
	}
	const url = "postgres://walt:s3cret@db/walt"
	configure(good + "database { url = \"" + url + "\" }\n")
	files, err := filepath.Glob(path("*"))
	run, err2 := filepath.Glob(path("run/*"))
	if err != nil || err2 != nil || len(run) != 2 {
		t.Fatal(run, err, err2)
	}
	for _, name := range append(files, run...) {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if text, err := os.ReadFile(name); err == nil && strings.Contains(string(text), "s3cret") && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s, %v, holds the password", name, info.Mode())
		}
	}
	site, err := hcl.LoadSite(config.Effective)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := site.Database.SecretURL(); err != nil || got != url {
		t.Errorf("server-db finds %q, %v", got, err)
	}
	config.Owner = "nobody-of-that-name"
	if _, err := config.Load(); err == nil || !strings.Contains(err.Error(), "cannot give") {
		t.Errorf("an owner who does not exist: %v", err)
	}
	configure(good)
	if _, err := os.Stat(config.Secret); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a database that is not used any more leaves %v", err)
	}
}
