package sysctl

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestApply(t *testing.T) {
	dir := t.TempDir()
	folder := filepath.Join(dir, "sys")
	for path, text := range map[string]string{"vm/swappiness": "60\n", "net/ipv4/conf/eth0.7/rp_filter": "0\n", "net/ipv4/tcp_rmem": "4096\t131072\t6291456\n", "../outside": "0"} {
		path = filepath.Join(folder, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	// What has its value already is not written, so that it may be read-only.
	if err := os.Chmod(filepath.Join(folder, "net/ipv4/tcp_rmem"), 0o444); err != nil {
		t.Fatal(err)
	}
	err := Apply(folder, map[string]string{
		"vm.swappiness": "10", "net/ipv4/conf/eth0.7/rp_filter": "1", "net.ipv4.tcp_rmem": "4096 131072 6291456",
		"vm.no_such": "1", "../outside": "1", "vm": "1",
	})
	if !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
	for _, want := range []string{
		`cannot set vm.no_such to "1": the kernel does not know it`, `cannot set ../outside to "1"`, `cannot set vm to "1": is a directory`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	for path, want := range map[string]string{"vm/swappiness": "10", "net/ipv4/conf/eth0.7/rp_filter": "1", "../outside": "0"} {
		if text, err := os.ReadFile(filepath.Join(folder, path)); err != nil || strings.TrimSpace(string(text)) != want {
			t.Errorf("%s is %q, %v", path, text, err)
		}
	}
}

func TestKernelKnows(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(Mount, "kernel/ostype"))
	if err != nil {
		t.Skipf("no %s here: %v", Mount, err)
	}
	if err := Apply(Mount, map[string]string{"kernel.ostype": strings.TrimSpace(string(text))}); err != nil {
		t.Error(err)
	}
	if err := Apply(Mount, map[string]string{"kernel.no_such_value": "1"}); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
}

func TestRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "walt.conf")
	if values, err := Read(file); len(values) != 0 || err != nil {
		t.Errorf("%v, %v", values, err)
	}
	if err := os.WriteFile(file, []byte("# text\n; text\n\nvm.swappiness = 10\n-net.ipv4.ip_forward=1\nnothing\na.b = c = d\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	values, err := Read(file)
	if want := map[string]string{"vm.swappiness": "10", "net.ipv4.ip_forward": "1", "a.b": "c = d"}; err != nil || !maps.Equal(values, want) {
		t.Errorf("%v, %v", values, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("a.b = c\n# x\n-d=e")
	f.Fuzz(func(t *testing.T, text string) {
		values, _ := parse(strings.NewReader(text)) // lines that are too long end it
		for name := range values {
			_ = apply(t.TempDir(), name, "1") // nothing outside of the folder is touched
		}
	})
}
