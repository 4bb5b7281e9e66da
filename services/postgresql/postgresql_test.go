package postgresql

import (
	"context"
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

// TestExternalDatabase: with a database elsewhere, the service does nothing until it is
// stopped.
func TestExternalDatabase(t *testing.T) {
	site := filepath.Join(t.TempDir(), "site.hcl")
	text := "network \"walt-net\" { ip = \"192.168.152.1/24\" }\ndatabase { url = \"postgres://u@db.example/walt\" }\n"
	if err := os.WriteFile(site, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(t.TempDir(), "main")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- Main(ctx, []string{"-site", site, "-data", data, "-bin", "/nonexistent"}) }()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(data); err == nil {
		t.Error("a cluster was made")
	}
}
