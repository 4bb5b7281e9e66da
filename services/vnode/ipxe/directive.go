package ipxe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/term"
)

// maxSleep bounds a directive sleep.
const maxSleep = time.Hour

// execute runs a directive.
func (r *run) execute(name string, args []string) error {
	switch name {
	case "set":
		return r.set(args)
	case "echo":
		r.say("%s", strings.Join(args, " "))
		return nil
	case "chain":
		return r.withFile(name, args, func(file string, _ []string) error { return r.chain(file) })
	case "imgfree":
		return nil
	case "initrd":
		return r.withFile(name, args, func(file string, _ []string) error { return r.load(&r.boot.Initrd, file) })
	case "kernel":
		return r.withFile(name, args, r.kernel)
	case "boot":
		if len(args) > 0 {
			if err := r.withFile(name, args, r.kernel); err != nil {
				return err
			}
		}
		if r.boot.Kernel == nil {
			return r.fail("there is no kernel to boot")
		}
		return errBooted
	case "sleep":
		return r.sleep(args)
	case "reboot":
		return r.fail("the script asks for a reboot")
	case "shell":
		return r.shell()
	}
	return r.abort("Unknown directive %q.", name)
}

// set gives a variable a value, or none.
func (r *run) set(args []string) error {
	if len(args) == 0 {
		return r.fail("set needs the name of a variable")
	}
	value := strings.Join(args[1:], " ")
	_, known := r.variables[args[0]]
	if len(value) > maxValue || !known && len(r.variables) == maxVariables {
		return r.abort("There are more than %d variables, or one of more than %d bytes.", maxVariables, maxValue)
	}
	r.variables[args[0]] = value
	return nil
}

// valued are the options of iPXE's image commands that take a value; all are of no
// effect here.
var valued = map[string]bool{"--name": true, "-n": true, "--timeout": true, "-t": true}

// withFile calls f with the file that a directive names, and what follows it.
func (r *run) withFile(directive string, args []string, f func(file string, rest []string) error) error {
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		skip := 1
		if valued[args[0]] {
			skip = min(2, len(args))
		}
		args = args[skip:]
	}
	if len(args) == 0 {
		return r.fail("%s needs the name of a file", directive)
	}
	return f(args[0], args[1:])
}

func (r *run) kernel(file string, args []string) error {
	arguments := strings.Join(args, " ")
	if len(arguments) > maxValue {
		return r.abort("The kernel has more than %d bytes of arguments.", maxValue)
	}
	if err := r.load(&r.boot.Kernel, file); err != nil {
		return err
	}
	r.boot.Arguments = arguments
	return nil
}

// load gets an image, in the place of an earlier one: the way a script tries again.
func (r *run) load(to **os.File, name string) error {
	location, err := r.base.resolve(name)
	if err != nil {
		return r.fail("%v", err)
	}
	f, err := os.CreateTemp(r.Folder, "walt-boot")
	if err != nil {
		return r.fail("cannot keep %s: %w", location, err)
	}
	// Without a name nothing is left, however this program ends.
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return r.fail("cannot keep %s: %w", location, err)
	}
	if err := r.fetch(location, &bounded{f, maxImage}); err != nil {
		f.Close()
		return err
	}
	if *to != nil {
		(*to).Close() // it was only read
	}
	*to = f
	return nil
}

func (r *run) sleep(args []string) error {
	seconds := 0
	var err error
	if len(args) == 1 {
		seconds, err = strconv.Atoi(args[0])
	}
	if len(args) != 1 || err != nil || seconds < 0 {
		return r.fail("sleep needs a number of seconds")
	}
	timer := time.NewTimer(min(time.Duration(min(seconds, 1<<20))*time.Second, maxSleep))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-r.ctx.Done():
		return fmt.Errorf("%w: %w", errAborted, context.Cause(r.ctx))
	}
}

// shell runs the lines that a person types, until "exit" or a boot.
func (r *run) shell() error {
	if r.Terminal == nil {
		return r.fail("there is no terminal for a shell")
	}
	if r.depth == maxDepth {
		return r.abort("Scripts run each other more than %d deep.", maxDepth)
	}
	r.depth++
	defer func() { r.depth-- }()
	terminal := term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{r.Terminal, r.Out}, "iPXE> ")
	for {
		line, err := terminal.ReadLine()
		switch {
		case r.ctx.Err() != nil:
			return fmt.Errorf("%w: %w", errAborted, context.Cause(r.ctx))
		case errors.Is(err, io.EOF): // Ctrl-D
			return nil
		case err != nil && !errors.Is(err, term.ErrPasteIndicator):
			return r.fail("cannot read from the terminal: %w", err)
		case strings.TrimSpace(line) == "exit":
			return nil
		}
		r.directives = 0 // a person is not in a loop
		// Failures and unknown directives are told; the person goes on.
		if err := r.line(line); errors.Is(err, errBooted) || r.ctx.Err() != nil {
			return err
		}
	}
}
