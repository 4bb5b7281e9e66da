// Package confine runs one program that strangers type into, as psql for the users of
// `walt advanced sql`, so that it can do what it is there for and nothing else. It is a
// role of the program services: it takes rights away from itself, then becomes the program
// (execve).
//
// What is left to the program and to whatever it starts:
//
//   - the files it was given open, and reading files of the paths named by -read;
//   - executing itself, and so no shell, pager or editor;
//   - sockets of the unix domain that have a path, and TCP connections to the ports named
//     by -connect; no abstract names;
//   - signals to itself; no privilege of root, nor any that a set-id program would give.
//
// It needs Landlock, version 6 (Linux 6.12). Without it the program is not run at all.
package confine

import (
	"context"
	"debug/elf"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// Role is the name of this role of the program services.
const Role = "confined"

// Rules are what a program may do.
type Rules struct {
	Read    []string // paths of files and folders; they need not exist
	Connect []uint16 // ports of TCP
	Memory  uint64   // most bytes of memory of its own, at least 128 MiB
}

// Command returns the arguments that make the program services run a command.
func (r Rules) Command(command ...string) []string {
	args := []string{Role, "-memory", fmt.Sprint(r.Memory)}
	for _, path := range r.Read {
		args = append(args, "-read", path)
	}
	for _, port := range r.Connect {
		args = append(args, "-connect", fmt.Sprint(port))
	}
	return append(append(args, "--"), command...)
}

// Main does not return unless it fails.
func Main(_ context.Context, args []string) error {
	var r Rules
	flags := flag.NewFlagSet(Role, flag.ContinueOnError)
	flags.Func("read", "`path` below which the program may read; repeatable", func(path string) error {
		if !filepath.IsAbs(path) {
			return errors.New("the path must be absolute")
		}
		r.Read = append(r.Read, path)
		return nil
	})
	flags.Func("connect", "`port` of TCP that the program may connect to; repeatable", func(text string) error {
		port, err := strconv.ParseUint(text, 10, 16)
		r.Connect = append(r.Connect, uint16(port))
		return err
	})
	flags.Uint64Var(&r.Memory, "memory", 1<<30, "most `bytes` of memory of its own")
	if err := flags.Parse(args); err != nil {
		return err
	}
	command := flags.Args()
	if len(command) == 0 || !filepath.IsAbs(command[0]) {
		return errors.New("cannot confine: no program is named by an absolute path")
	}
	return r.run(command)
}

func (r Rules) run(command []string) error {
	executable := []string{command[0]}
	loader, err := interpreter(command[0])
	if err != nil {
		return fmt.Errorf("cannot confine %s: %w", command[0], err)
	}
	if loader != "" {
		executable = append(executable, loader)
	}
	// Credentials and limits belong to a thread, and it is this one that becomes the program.
	runtime.LockOSThread()
	if err := dropPrivileges(); err != nil {
		return fmt.Errorf("cannot confine %s: %w", command[0], err)
	}
	rules := []landlock.Rule{
		landlock.ROFiles(executable...),
		landlock.PathAccess(ll.AccessFSReadFile, r.Read...).IgnoreIfMissing(),
	}
	for _, port := range r.Connect {
		rules = append(rules, landlock.ConnectTCP(port))
	}
	if err := landlock.V6.Restrict(rules...); err != nil {
		return fmt.Errorf("cannot confine %s: %w", command[0], err)
	}
	// A limit of the address space would bite this program, before the other runs: the Go
	// runtime reserves more than any sensible one. Of what it may write to it has little.
	for resource, limit := range map[int]uint64{unix.RLIMIT_CORE: 0, unix.RLIMIT_FSIZE: 0, unix.RLIMIT_DATA: r.Memory} {
		if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
			return fmt.Errorf("cannot confine %s: cannot set a limit: %w", command[0], err)
		}
	}
	return fmt.Errorf("cannot execute %s: %w", command[0], unix.Exec(command[0], command, os.Environ()))
}

// dropPrivileges gives up all capabilities. Since no_new_privs will be set, executing a
// program does not bring them back, not even to root.
func dropPrivileges() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("cannot give up ambient capabilities: %w", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		return fmt.Errorf("cannot give up capabilities: %w", err)
	}
	return nil
}

// interpreter returns the loader that a program names, which the kernel executes in its
// place; "" for a static program.
func interpreter(program string) (string, error) {
	object, err := elf.Open(program)
	if err != nil {
		return "", err
	}
	defer object.Close()
	for _, segment := range object.Progs {
		if segment.Type != elf.PT_INTERP || segment.Filesz > unix.PathMax {
			continue
		}
		name, err := io.ReadAll(segment.Open())
		return strings.TrimRight(string(name), "\x00"), err
	}
	return "", nil
}
