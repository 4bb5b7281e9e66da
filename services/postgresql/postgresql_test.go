package postgresql

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fakeInitdb writes a cluster that is only a version file, or fails half way.
func fakeInitdb(t *testing.T, script string) string {
	t.Helper()
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "initdb"), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	return bin
}

const makesCluster = `mkdir "${1#--pgdata=}" && echo 17 > "${1#--pgdata=}/PG_VERSION"`

func TestClusterIsMadeOnceAndWhole(t *testing.T) {
	data := filepath.Join(t.TempDir(), "main")
	fails := fakeInitdb(t, `mkdir "${1#--pgdata=}"; echo no space; exit 1`)
	if err := ensureCluster(t.Context(), fails, data); err == nil || !strings.Contains(err.Error(), "no space") {
		t.Fatalf("a failing initdb gives %v", err)
	}
	if _, err := os.Stat(data); err == nil {
		t.Fatal("half a cluster is in place")
	}
	works := fakeInitdb(t, makesCluster)
	if err := ensureCluster(t.Context(), works, data); err != nil {
		t.Fatal(err)
	}
	if err := ensureCluster(t.Context(), fails, data); err != nil {
		t.Errorf("an existing cluster is made again: %v", err)
	}
}

func TestFolderWithOtherContentIsRefused(t *testing.T) {
	data := t.TempDir()
	precious := filepath.Join(data, "precious")
	if err := os.WriteFile(precious, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ensureCluster(t.Context(), fakeInitdb(t, makesCluster), data); err == nil || !strings.Contains(err.Error(), "no PG_VERSION") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Error("the file is lost")
	}
}
