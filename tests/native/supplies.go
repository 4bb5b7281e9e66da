package native

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/waltos/waltos/image/compose"
	"github.com/waltos/waltos/image/fetch"
	"github.com/waltos/waltos/image/inputs"
	"github.com/waltos/waltos/image/lock"
	"github.com/waltos/waltos/qemu/client"
	"github.com/waltos/waltos/qemu/provision"
)

// Supplies are what the tests need of the machine and of the lock.
type Supplies struct {
	Services string         // the program of all services, of these sources
	Walt     client.Program // the real walt client
	Helper   client.Program // its completion helper
	Python   client.Program // the interpreter that finds its packages
	Postgres string         // folder of the programs of PostgreSQL
	Bin      string         // folder of what the daemon runs: ssh, ping
	Psql     string         // the command of the SQL prompt
	Keep     []string       // folders that the tests must see
}

// supplies are those of this process; the tests read them, by Get.
var supplies Supplies

// Get returns what Run has got ready.
func Get() Supplies { return supplies }

func (s *Supplies) get(folder string) error {
	source, err := compose.FindSource(".")
	if err != nil {
		return err
	}
	ctx := context.Background()
	s.Services = filepath.Join(folder, "services")
	if out, err := exec.Command("go", "build", "-o", s.Services, source+"/services").CombinedOutput(); err != nil {
		return fmt.Errorf("cannot compile the services: %w\n%s", err, out)
	}
	in, err := inputs.Open(inputs.Options{
		Appliance: filepath.Join(source, "image", "appliance.hcl"), Override: true, Progress: fetch.NewProgress(os.Stderr)})
	if err != nil {
		return err
	}
	if err := in.Ensure(ctx, lock.Root, inputs.Python); err != nil {
		return err
	}
	site, err := in.Client(ctx, "client")
	if err != nil {
		return err
	}
	for _, p := range []struct {
		to  *client.Program
		cmd *exec.Cmd
	}{
		{&s.Walt, site.Command(ctx, "walt")},
		{&s.Helper, site.Command(ctx, "walt-autocomplete-helper")},
		{&s.Python, site.Python(ctx)},
	} {
		if p.cmd.Err != nil {
			return p.cmd.Err
		}
		p.to.Argv, p.to.Env = provision.Split(p.cmd)
	}
	box, err := in.Toolbox(ctx, lock.Root)
	if err != nil {
		return err
	}
	if s.Postgres, err = box.Wrappers(ctx, "usr/lib/postgresql/17/bin"); err != nil {
		return err
	}
	psql := box.Command(ctx, "usr/lib/postgresql/17/bin/psql")
	if psql.Err != nil {
		return psql.Err
	}
	s.Psql = strings.Join(append([]string{psql.Path}, psql.Args[1:]...), " ")
	tools, err := box.Wrappers(ctx, "usr/bin")
	if err != nil {
		return err
	}
	s.Bin = filepath.Join(folder, "bin")
	if err := os.Mkdir(s.Bin, 0o755); err != nil {
		return err
	}
	for _, program := range []string{
		filepath.Join(tools, "ssh"), filepath.Join(tools, "ssh-keyscan"), filepath.Join(tools, "ping"),
	} {
		if err := os.Symlink(program, filepath.Join(s.Bin, filepath.Base(program))); err != nil {
			return err
		}
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	for _, path := range []string{source, in.Fetcher.Cache.Path(), os.TempDir(), filepath.Dir(program), folder} {
		if path = absolute(path); path != "" {
			s.Keep = append(s.Keep, path)
		}
	}
	return nil
}
