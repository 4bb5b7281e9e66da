package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestLeaveRoom(t *testing.T) {
	root, options := t.TempDir(), t.TempDir()
	if err := errors.Join(
		os.WriteFile(filepath.Join(options, "pid_max"), []byte("4194304\n"), 0o600),
		os.WriteFile(filepath.Join(options, "threads-max"), []byte("7000\n"), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	if err := leaveRoom(root, options); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(root, "pids.max")); err != nil || string(text) != "6300" {
		t.Errorf("%q, %v", text, err)
	}
	if err := leaveRoom(root, t.TempDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
}
