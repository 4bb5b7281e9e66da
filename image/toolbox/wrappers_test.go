package toolbox_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/waltos/waltos/image/lock"
)

// PostgreSQL of the appliance makes a cluster on the host: initdb starts postgres.
func TestWrappers(t *testing.T) {
	in, ctx := open(t, lock.Root), context.Background()
	box, err := in.Toolbox(ctx, lock.Root)
	if err != nil {
		t.Fatal(err)
	}
	bin, err := box.Wrappers(ctx, "usr/lib/postgresql/17/bin")
	if err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(t.TempDir(), "data")
	c := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "--pgdata="+data, "--no-sync", "--locale=C.UTF-8", "--encoding=UTF8")
	if os.Getuid() == 0 {
		// PostgreSQL refuses root: be another user, of a namespace in which that is root.
		c.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 1000, HostID: 0, Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 1000, HostID: 0, Size: 1}},
		}
	}
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	raw, err := os.ReadFile(filepath.Join(data, "PG_VERSION"))
	if err != nil || strings.TrimSpace(string(raw)) != "17" {
		t.Errorf("got %q, %v", raw, err)
	}
}
