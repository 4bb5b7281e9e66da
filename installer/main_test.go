package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := command(&out)
	cmd.SetArgs(args)
	err := cmd.Execute()
	return out.String(), err
}

func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

const serverConf = "network:\n    walt-net: {raw-device: eth1, ip: 192.168.12.1/24}\n"

func TestCheck(t *testing.T) {
	for name, c := range map[string]struct{ file, content, want, refusal string }{
		"upstream":     {"server.conf", serverConf, "is valid: 1 networks, server 192.168.12.1 on 192.168.12.0/24", ""},
		"hcl":          {"walt.hcl", "network \"walt-net\" {\n ip = \"10.0.0.1/8\"\n}\n", "is valid", ""},
		"bad upstream": {"server.conf", "network: {}\n", "", "server.conf:1:"},
		"bad hcl":      {"walt.hcl", "network \"walt-net\" {\n adress = 1\n}\n", "", "walt.hcl line 2"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := run(t, "check", write(t, c.file, c.content))
			if c.refusal == "" && (err != nil || !strings.Contains(out, c.want)) {
				t.Errorf("printed %q, %v", out, err)
			}
			if c.refusal != "" && (err == nil || !strings.Contains(err.Error(), c.refusal)) {
				t.Errorf("error is %v, want %q", err, c.refusal)
			}
		})
	}
	if _, err := run(t, "check", filepath.Join(t.TempDir(), "none.hcl")); err == nil {
		t.Error("a missing file is valid")
	}
}

func TestImport(t *testing.T) {
	source := write(t, "server.conf", serverConf)
	target := filepath.Join(t.TempDir(), "walt.hcl")
	if _, err := run(t, "import", source, "-o", target); err != nil {
		t.Fatal(err)
	}
	if out, err := run(t, "check", target); err != nil {
		t.Errorf("the imported file is refused: %s, %v", out, err)
	}
	before, err := os.ReadFile(target)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := run(t, "import", source, "-o", target); err == nil || !strings.Contains(err.Error(), "already exists") {
		t.Errorf("importing over an existing file: %v", err)
	}
	if after, _ := os.ReadFile(target); !bytes.Equal(before, after) {
		t.Error("the existing file was changed")
	}
	if out, err := run(t, "import", source); err != nil || out != string(before) {
		t.Errorf("standard output differs: %q, %v", out, err)
	}
}
