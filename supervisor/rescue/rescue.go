// Package rescue is a shell that needs no disk and no network: everything is in this
// program, which the initramfs holds too. It speaks the language of bash
// (mvdan.cc/sh), its usual commands are those of u-root, and the few that look at and repair
// a machine are in commands.go. Programs that a file system holds are run like in any shell.
//
// It is for a machine whose root cannot be mounted, or whose disk has failed.
package rescue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/interp"
	"mvdan.cc/sh/v3/syntax"
)

// Name is the name that this program has as a rescue shell.
const Name = "walt-rescue"

// killTime is how long an interrupted program may take to end.
const killTime = 2 * time.Second

// Shell runs commands.
type Shell struct {
	In  *os.File
	Out io.Writer
	// Idle is how long a person may be silent before the shell ends; 0: for ever.
	Idle time.Duration
}

// Run is the shell on a terminal, or for a script from elsewhere, until its end. The
// status is that of the last command.
func (s *Shell) Run(ctx context.Context) (status int) {
	runner, err := s.runner()
	if err != nil {
		fmt.Fprintf(s.Out, "%s: %v\n", Name, err)
		return 1
	}
	next := s.script
	if term.IsTerminal(int(s.In.Fd())) {
		next = s.dialogue(runner)
		fmt.Fprintf(s.Out, "Rescue shell of WalT. \"help\" lists its commands, \"exit\" leaves.\n")
	}
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt)
	defer signal.Stop(interrupts)
	for {
		program, err := next(ctx)
		if errors.Is(err, io.EOF) {
			return status
		}
		if err != nil {
			fmt.Fprintf(s.Out, "%v\n", err)
			status = 2
			if !term.IsTerminal(int(s.In.Fd())) {
				return status
			}
			continue
		}
		status = s.execute(ctx, runner, program, interrupts)
		if runner.Exited() || ctx.Err() != nil {
			return status
		}
	}
}

// execute runs what was read; Ctrl-C ends it.
func (s *Shell) execute(ctx context.Context, runner *interp.Runner, program *syntax.File, interrupts <-chan os.Signal) int {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-interrupts:
			cancel()
		case <-ended:
		}
	}()
	err := runner.Run(ctx, program)
	var status interp.ExitStatus
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		return int(status)
	}
	fmt.Fprintf(s.Out, "%v\n", err)
	return 1
}

func (s *Shell) runner() (*interp.Runner, error) {
	dir := "/"
	if now, err := os.Getwd(); err == nil {
		dir = now
	}
	env := append(os.Environ(), "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/")
	return interp.New(
		interp.Env(expand.ListEnviron(env...)), interp.Dir(dir), interp.StdIO(s.In, s.Out, s.Out), interp.Interactive(true),
		interp.CallHandler(preferOurs), interp.ExecHandlers(
			func(next interp.ExecHandlerFunc) interp.ExecHandlerFunc {
				return func(ctx context.Context, args []string) error { return dispatch(ctx, args, next) }
			},
			func(interp.ExecHandlerFunc) interp.ExecHandlerFunc { return interp.DefaultExecHandler(killTime) },
		),
	)
}

// script reads all of the input as one program.
func (s *Shell) script(context.Context) (*syntax.File, error) {
	text, err := io.ReadAll(s.In)
	if err != nil {
		return nil, err
	}
	if len(text) == 0 {
		return nil, io.EOF
	}
	return syntax.NewParser().Parse(strings.NewReader(string(text)), "")
}

// dialogue returns a function that reads one command from a person, over several lines if
// it needs them.
func (s *Shell) dialogue(runner *interp.Runner) func(context.Context) (*syntax.File, error) {
	terminal := term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{&idleReader{s.In, s.Idle}, s.Out}, "")
	terminal.AutoCompleteCallback = func(line string, position int, key rune) (string, int, bool) {
		return complete(runner.Dir, line, position, key)
	}
	return func(ctx context.Context) (*syntax.File, error) {
		if err := ctx.Err(); err != nil {
			return nil, io.EOF
		}
		if width, height, err := term.GetSize(int(s.In.Fd())); err == nil && width > 0 {
			_ = terminal.SetSize(width, height) // else lines wrap elsewhere
		}
		state, err := term.MakeRaw(int(s.In.Fd()))
		if err != nil {
			return nil, fmt.Errorf("cannot read commands: %w", errors.Join(err, io.EOF))
		}
		defer func() { _ = term.Restore(int(s.In.Fd()), state) }()
		text := ""
		terminal.SetPrompt("rescue:" + runner.Dir + "# ")
		for {
			line, err := terminal.ReadLine()
			if err != nil {
				return nil, io.EOF
			}
			text += line + "\n"
			program, err := syntax.NewParser().Parse(strings.NewReader(text), "")
			if !syntax.IsIncomplete(err) {
				return program, err
			}
			terminal.SetPrompt("> ")
		}
	}
}

// idleReader is a terminal that ends when nobody types.
type idleReader struct {
	file *os.File
	idle time.Duration
}

func (r *idleReader) Read(p []byte) (int, error) {
	if r.idle > 0 {
		end := time.Now().Add(r.idle)
		for {
			left := time.Until(end)
			if left <= 0 {
				return 0, io.EOF
			}
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(r.file.Fd()), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
			if n > 0 {
				break
			}
			if err != nil && !errors.Is(err, unix.EINTR) {
				return 0, err
			}
		}
	}
	return r.file.Read(p)
}

// Main is this program under the name [Name]: a shell on its standard input. Arguments
// "-idle DURATION" bound the silence of the person at it.
func Main(args []string) int {
	s := &Shell{In: os.Stdin, Out: os.Stdout}
	if len(args) == 3 && args[1] == "-idle" {
		if d, err := time.ParseDuration(args[2]); err == nil {
			s.Idle = d
		}
	}
	return s.Run(context.Background())
}
