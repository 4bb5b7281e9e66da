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

// RunCommand records a command, from before run starts it until run has waited for it.
func RunCommand(ctx context.Context, cmd *exec.Cmd, run func() error) error {
	return BeginCommand(ctx, cmd).EndCommand(cmd, run())
}

// BeginCommand records that a command begins. Only the name of its program is recorded: its
// arguments may hold secrets.
func BeginCommand(ctx context.Context, cmd *exec.Cmd) Span {
	_, span := Begin(ctx, Command, filepath.Base(cmd.Path))
	return span
}

// EndCommand records how a command has ended, and returns the error that waiting for it gave.
func (s Span) EndCommand(cmd *exec.Cmd, err error) error {
	if cmd.ProcessState != nil {
		s.Note("", int64(cmd.ProcessState.ExitCode()))
	}
	s.End(err)
	return err
}
