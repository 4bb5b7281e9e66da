package rescue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/u-root/u-root/pkg/core"
	"github.com/u-root/u-root/pkg/core/base64"
	"github.com/u-root/u-root/pkg/core/cat"
	"github.com/u-root/u-root/pkg/core/chmod"
	"github.com/u-root/u-root/pkg/core/cp"
	"github.com/u-root/u-root/pkg/core/find"
	"github.com/u-root/u-root/pkg/core/gzip"
	"github.com/u-root/u-root/pkg/core/ls"
	"github.com/u-root/u-root/pkg/core/mkdir"
	"github.com/u-root/u-root/pkg/core/mv"
	"github.com/u-root/u-root/pkg/core/rm"
	"github.com/u-root/u-root/pkg/core/shasum"
	"github.com/u-root/u-root/pkg/core/tar"
	"github.com/u-root/u-root/pkg/core/touch"
	"github.com/u-root/u-root/pkg/core/xargs"
	"mvdan.cc/sh/v3/interp"
)

// borrowed are commands of u-root.
var borrowed = map[string]func() core.Command{
	"base64": base64.New, "cat": cat.New, "chmod": chmod.New, "cp": cp.New, "find": find.New, "ls": ls.New, "mkdir": mkdir.New,
	"mv": mv.New, "rm": rm.New, "shasum": shasum.New, "tar": tar.New, "touch": touch.New, "xargs": xargs.New,
	"gzip":   func() core.Command { return gzip.New("gzip") },
	"gunzip": func() core.Command { return gzip.New("gunzip") },
	"zcat":   func() core.Command { return gzip.New("gzcat") },
}

// call is one call of a command.
type call struct {
	args     []string // without the name
	in       io.Reader
	out, err io.Writer
	dir      string
}

// path is a path as the shell's folder makes it.
func (c *call) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(c.dir, name)
}

// own is a command of this package.
type own struct {
	usage string
	about string
	least int // arguments
	run   func(context.Context, *call) error
}

// ours is before the name of a command of this package on its way to [dispatch].
const ours = "walt "

// preferOurs takes the names of our commands away from the language, which has some of
// them (help, kill).
func preferOurs(_ context.Context, args []string) ([]string, error) {
	if _, ok := commands()[args[0]]; ok {
		return append([]string{ours + args[0]}, args[1:]...), nil
	}
	return args, nil
}

// dispatch runs a command of ours, or a program of a file system. A path is always one.
func dispatch(ctx context.Context, args []string, next interp.ExecHandlerFunc) error {
	shell := interp.HandlerCtx(ctx)
	name := strings.TrimPrefix(args[0], ours)
	fail := func(err error) error {
		if err == nil {
			return nil
		}
		fmt.Fprintf(shell.Stderr, "%s: %v\n", name, err)
		return interp.ExitStatus(1)
	}
	var in io.Reader = shell.Stdin
	if shell.Stdin == nil {
		in = strings.NewReader("")
	}
	if make := borrowed[args[0]]; make != nil {
		command := make()
		command.SetIO(in, shell.Stdout, shell.Stderr)
		command.SetWorkingDir(shell.Dir)
		command.SetLookupEnv(func(name string) (string, bool) {
			v := shell.Env.Get(name)
			return v.Str, v.IsSet()
		})
		return fail(command.RunContext(ctx, args[1:]...))
	}
	if command, ok := commands()[name]; ok {
		c := &call{args: args[1:], in: in, out: shell.Stdout, err: shell.Stderr, dir: shell.Dir}
		if len(c.args) < command.least {
			return fail(fmt.Errorf("usage: %s %s", name, command.usage))
		}
		return fail(command.run(ctx, c))
	}
	return next(ctx, args)
}

// names lists all commands that are not the language's own.
func names() []string {
	var list []string
	for name := range borrowed {
		list = append(list, name)
	}
	for name := range commands() {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

// complete completes the name of a command or of a file at the Tab key.
func complete(dir, line string, position int, key rune) (string, int, bool) {
	if key != '\t' || position != len(line) {
		return "", 0, false
	}
	start := strings.LastIndexAny(line, " \t;|&<>") + 1
	word := line[start:]
	var found []string
	if strings.TrimSpace(line[:start]) == "" && !strings.Contains(word, "/") {
		for _, name := range names() {
			if strings.HasPrefix(name, word) {
				found = append(found, name+" ")
			}
		}
	} else {
		folder, base := filepath.Split(word)
		from := folder
		if !filepath.IsAbs(folder) {
			from = filepath.Join(dir, folder)
		}
		entries, err := os.ReadDir(from)
		if err != nil {
			return "", 0, false
		}
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), base) {
				continue
			}
			end := " "
			if e.IsDir() {
				end = "/"
			}
			found = append(found, folder+e.Name()+end)
		}
	}
	if len(found) == 0 {
		return "", 0, false
	}
	common := found[0]
	for _, name := range found[1:] {
		for !strings.HasPrefix(name, common) {
			common = common[:len(common)-1]
		}
	}
	if len(common) <= len(word) {
		return "", 0, false
	}
	return line[:start] + common, start + len(common), true
}

var errNoNumber = errors.New("it is no number")
