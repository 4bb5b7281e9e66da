package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/waltos/waltos/services/wire/pickle"
	"github.com/waltos/waltos/services/wire/rpc"
)

// Window is the size of a terminal.
type Window struct{ Rows, Columns int }

// Prompt is a command that the server runs for a user (client-api 3.4). Its constructors
// are SQL, NodeCommand, Ping and DeviceShell; request and parameters of others can be
// given as well.
type Prompt struct {
	Request    rpc.Request
	Parameters *pickle.Dict

	// Window, if not nil, has the command run on a terminal of that size and of that
	// Type, by default "xterm"; else its input and output are the stream.
	Window *Window
	Type   string
}

// SQL is the prompt of the database.
func SQL() Prompt { return Prompt{Request: rpc.SQLPrompt, Parameters: pickle.NewDict()} }

// NodeCommand is a command on the node at an address, for the shell of the node; without
// any it is a shell. terminal gives it a terminal on the node.
func NodeCommand(ip string, terminal bool, command ...string) Prompt {
	words := pickle.Tuple{}
	for _, word := range command {
		words = append(words, word)
	}
	return Prompt{Request: rpc.NodeCmd, Parameters: pickle.NewDict("node_ip", ip, "cmdargs", words, "ssh_tty", terminal)}
}

// Ping is ten times the question whether a device answers.
func Ping(ip string) Prompt {
	return Prompt{Request: rpc.DevicePing, Parameters: pickle.NewDict("device_ip", ip)}
}

// DeviceShell is a shell on a device, as a user of it; "" is the one that ssh chooses.
func DeviceShell(ip, user string) Prompt {
	var name any
	if user != "" {
		name = user
	}
	return Prompt{Request: rpc.DeviceShell, Parameters: pickle.NewDict("device_ip", ip, "user", name)}
}

// Terminal is a prompt that runs. Read returns its output, io.EOF at its end; Write is its
// input.
type Terminal struct {
	stream   *Stream
	onWindow bool
	unbind   func() bool
}

// Open starts a prompt at the streams of a server, "host:port". It ends with ctx.
func (p Prompt) Open(ctx context.Context, address string) (*Terminal, error) {
	parameters := pickle.NewDict("tty_mode", p.Window != nil)
	for _, e := range p.Parameters.Entries() {
		parameters.Set(e.Key, e.Value)
	}
	if w := p.Window; w != nil {
		kind := p.Type
		if kind == "" {
			kind = "xterm"
		}
		parameters.Set("win_size", pickle.Int16s{int16(w.Rows), int16(w.Columns), 0, 0})
		parameters.Set("env", pickle.NewDict("TERM", kind))
	}
	s, unbind, err := openReady(ctx, address, p.Request, parameters)
	if err != nil {
		return nil, err
	}
	return &Terminal{s, p.Window != nil, unbind}, nil
}

// openReady opens a stream that the server answers with a line before the parameters. It
// ends with ctx, until the function is called.
func openReady(ctx context.Context, address string, request rpc.Request, parameters *pickle.Dict) (*Stream, func() bool, error) {
	s, err := DialStream(ctx, address, request)
	if err != nil {
		return nil, nil, err
	}
	unbind := context.AfterFunc(ctx, func() { s.Close() })
	if _, err = s.Line(); err == nil {
		err = s.Send(parameters)
	}
	if err != nil {
		unbind()
		s.Close()
		return nil, nil, fmt.Errorf("cannot open %v: %w", request, err)
	}
	return s, unbind, nil
}

// Read reads output.
func (t *Terminal) Read(p []byte) (int, error) { return t.stream.R.Read(p) }

// Write sends input.
func (t *Terminal) Write(p []byte) (int, error) {
	if !t.onWindow {
		return t.stream.Write(p)
	}
	if err := t.stream.Send(pickle.NewDict("evt", "input_data", "data", p)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Resize tells the size of the window.
func (t *Terminal) Resize(w Window) error {
	if !t.onWindow {
		return errors.New("cannot resize: the prompt has no terminal")
	}
	return t.stream.Send(pickle.NewDict("evt", "window_resize", "lines", w.Rows, "columns", w.Columns))
}

// CloseWrite ends the input; what the command still prints can be read. A command on a
// terminal is killed by it.
func (t *Terminal) CloseWrite() error { return closeWrite(t.stream.Conn) }

// Close ends the prompt.
func (t *Terminal) Close() error {
	t.unbind()
	return t.stream.Close()
}

func closeWrite(conn net.Conn) error {
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok {
		return errors.New("cannot end the input: the connection has no halves")
	}
	return half.CloseWrite()
}

// Run runs a prompt to its end and returns its output.
func (p Prompt) Run(ctx context.Context, address string, input io.Reader) ([]byte, error) {
	t, err := p.Open(ctx, address)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	sent := make(chan error, 1)
	go func() {
		var err error
		if input != nil {
			_, err = io.Copy(t, input)
		}
		if err == nil && !t.onWindow {
			err = t.CloseWrite()
		}
		sent <- err
	}()
	out, err := io.ReadAll(t)
	t.Close() // a command that ends before its input
	<-sent
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return out, err
}
