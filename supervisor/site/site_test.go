package site

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
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
			config := Config{File: path("walt.hcl"), ServerConf: path("server.conf"), LastGood: path("last"), Effective: path("run/site.hcl")}
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
