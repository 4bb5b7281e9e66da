package trackexec

import (
	"context"
	"os/exec"
	"path/filepath"

	"github.com/waltos/waltos/services/daemon/connector"
	"github.com/waltos/waltos/services/daemon/trackexec/format"
)

// Handler records each call that h serves, by its method.
func (r *Recorder) Handler(kind format.Kind, h connector.Handler) connector.Handler {
	if r == nil {
		return h
	}
	return func(ctx context.Context, p *connector.Peer, method string, body []byte) (any, error) {
		ctx, span := r.Begin(ctx, kind, method)
		reply, err := h(ctx, p, method, body)
		span.End(err)
		return reply, err
	}
}

// Caller calls methods of another process: *connector.Client.
type Caller interface {
	Call(ctx context.Context, method string, arg, reply any) error
}

// Call calls a method of another process, within the operation that ctx is of.
func Call(ctx context.Context, c Caller, process, method string, arg, reply any) error {
	ctx, span := Begin(ctx, Task, method)
	span.Note(process, -1)
	err := c.Call(ctx, method, arg, reply)
	span.End(err)
	return err
}

// RunCommand records a command, from before run starts it until run has waited for it. Only
// the name of its program is recorded: its arguments may hold secrets.
func RunCommand(ctx context.Context, cmd *exec.Cmd, run func() error) error {
	_, span := Begin(ctx, Command, filepath.Base(cmd.Path))
	err := run()
	if cmd.ProcessState != nil {
		span.Note("", int64(cmd.ProcessState.ExitCode()))
	}
	span.End(err)
	return err
}
