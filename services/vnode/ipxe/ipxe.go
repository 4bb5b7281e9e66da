// Package ipxe interprets the boot scripts of WalT images in the place of iPXE, for
// machines whose kernel is not started by a firmware: virtual nodes, and nodes that
// reboot by kexec (node-protocols 6.5).
//
// It knows the subset of iPXE's language that images keep to: variables, sequences by
// "&&" and "||", and the directives set, echo, chain, imgfree, initrd, kernel, boot,
// sleep, reboot and shell. Files come from a [Source], which is [Server] but in tests.
//
// It refuses any other directive, which ends the boot, and what exceeds the limits below:
// a script of a user can neither hold the program up for ever nor fill its memory.
package ipxe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
)

// Limits of scripts.
const (
	maxScript     = 1 << 20  // bytes of a script
	maxLine       = 16 << 10 // bytes of a line
	maxValue      = 64 << 10 // bytes of a variable, or of the kernel's arguments
	maxVariables  = 1000
	maxDepth      = 32 // scripts that run each other
	maxDirectives = 10_000
)

// maxImage bounds a kernel and an initial file system.
const maxImage = 1 << 30

// Source has the boot files.
type Source interface {
	// Fetch writes a file. The error wraps ErrNoFile if there is none.
	Fetch(ctx context.Context, file Location, w io.Writer) error
}

// ErrNoFile says that a file does not exist.
var ErrNoFile = errors.New("no such file")

// Interpreter boots a node.
type Interpreter struct {
	Source    Source
	Variables map[string]string // those defined before the first script
	Folder    string            // where kernels are kept, without a name; "": that of temporary files
	Out       io.Writer         // what scripts say; lines end with LF
	// Terminal is where a person types the lines of directive shell; nil: nobody does.
	Terminal io.Reader
}

// Boot is what a boot ends with: what to start. The files have no name any more.
type Boot struct {
	Kernel    *os.File
	Initrd    *os.File // nil: none
	Arguments string   // of the kernel
}

// Close closes the files.
func (b *Boot) Close() {
	for _, f := range []*os.File{b.Kernel, b.Initrd} {
		if f != nil {
			f.Close() // only read from now on
		}
	}
}

// Run runs a script, and those that it chains to, until a directive boot. The caller
// closes what it returns.
func (i *Interpreter) Run(ctx context.Context, script string) (*Boot, error) {
	r := &run{Interpreter: i, ctx: ctx, variables: maps.Clone(i.Variables), boot: &Boot{}}
	if r.variables == nil {
		r.variables = map[string]string{}
	}
	err := r.chain(script)
	if errors.Is(err, errBooted) {
		return r.boot, nil
	}
	r.boot.Close()
	if err == nil {
		err = errors.New("the script ended without booting")
	}
	return nil, fmt.Errorf("cannot boot: %w", err)
}

// Outcomes of a directive that no "||" goes on from.
var (
	errBooted  = errors.New("booted")
	errAborted = errors.New("aborted")
)

// final tells whether an outcome ends all scripts.
func final(err error) bool { return errors.Is(err, errBooted) || errors.Is(err, errAborted) }

// run is the state of one boot.
type run struct {
	*Interpreter
	ctx       context.Context
	variables map[string]string
	boot      *Boot

	base       Location // of the script being run
	depth      int
	directives int
}

func (r *run) say(format string, args ...any) {
	fmt.Fprintf(r.Out, format+"\n", args...) // who listens is no business of the boot
}

// chain runs a script.
func (r *run) chain(name string) error {
	if r.depth == maxDepth {
		return r.abort("Scripts run each other more than %d deep.", maxDepth)
	}
	location, err := r.base.resolve(name)
	if err != nil {
		return r.fail("%v", err)
	}
	var text bytes.Buffer
	if err := r.fetch(location, &bounded{&text, maxScript}); err != nil {
		return err
	}
	outer := r.base
	r.base = location
	r.depth++
	defer func() { r.base, r.depth = outer, r.depth-1 }()
	for line := range bytes.Lines(text.Bytes()) {
		if err := r.line(string(line)); err != nil {
			return err
		}
	}
	return nil
}

// fetch gets a file, and says so as iPXE does.
func (r *run) fetch(file Location, w io.Writer) error {
	err := r.Source.Fetch(r.ctx, file, w)
	switch {
	case r.ctx.Err() != nil:
		return fmt.Errorf("%w: %w", errAborted, context.Cause(r.ctx))
	case errors.Is(err, ErrNoFile):
		r.say("%s... %v", file, ErrNoFile)
	case err != nil:
		r.say("%s... failed", file)
		r.say("[fake-ipxe] %v", err)
	default:
		r.say("%s... ok", file)
	}
	return err
}

// fail tells why a directive failed.
func (r *run) fail(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	r.say("[fake-ipxe] %v", err)
	return err
}

// abort tells why the boot ends.
func (r *run) abort(format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	r.say("[fake-ipxe] %s Aborted.", text)
	return fmt.Errorf("%w: %s", errAborted, text)
}

// bounded refuses what is longer than a limit.
type bounded struct {
	w    io.Writer
	left int64
}

func (b *bounded) Write(p []byte) (int, error) {
	if int64(len(p)) > b.left {
		return 0, errors.New("the file is too large")
	}
	b.left -= int64(len(p))
	return b.w.Write(p)
}
