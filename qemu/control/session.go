package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/waltos/waltos/qemu/platform"
)

// session is one connection to the lab's process.
type session struct {
	lab  *platform.Lab
	conn net.Conn
}

// serve tells whether the lab was stopped.
func (s session) serve(ctx context.Context) (stopped bool) {
	var request Request
	reader := bufio.NewReaderSize(s.conn, maxLine)
	if err := readLine(reader, &request); err != nil {
		s.answer(Answer{}, err)
		return false
	}
	switch request.Command {
	case Status:
		s.answer(Answer{Summary: s.lab.Summary(), Ports: s.lab.Switch.Ports()}, nil)
	case Stop:
		s.lab.Stop()
		s.answer(Answer{}, nil)
		return true
	case Add:
		_, err := s.lab.AddNode(ctx, request.Name == "uefi")
		s.answer(Answer{Summary: s.lab.Summary()}, err)
	default:
		s.host(ctx, request, reader)
	}
	return false
}

// host serves the requests about one machine.
func (s session) host(ctx context.Context, request Request, keys io.Reader) {
	h := s.lab.Host(request.Name)
	if h == nil {
		s.answer(Answer{}, fmt.Errorf("no machine is named %q", request.Name))
		return
	}
	switch request.Command {
	case Console:
		s.console(h, keys)
	case Reset:
		s.answer(Answer{}, h.Machine().Reset(ctx))
	case Cut:
		h.PowerCut()
		s.answer(Answer{}, nil)
	case On:
		s.answer(Answer{}, h.PowerOn(ctx))
	case Plug, Unplug:
		port := h.Port()
		if port == nil {
			s.answer(Answer{}, fmt.Errorf("machine %s is off", h.Name))
			return
		}
		port.Plug(request.Command == Plug)
		s.answer(Answer{}, nil)
	default:
		s.answer(Answer{}, fmt.Errorf("no command is named %q", request.Command))
	}
}

// console passes on what the machine writes, and what is typed, until one side ends.
func (s session) console(h *platform.Host, keys io.Reader) {
	console := h.Console()
	output, detach := console.Attach()
	defer detach()
	s.answer(Answer{}, nil)
	go func() {
		io.Copy(console, keys) // ends with the connection
		detach()
	}()
	for data := range output {
		if _, err := s.conn.Write(data); err != nil {
			return
		}
	}
}

// answer may fail only because nobody waits for it any more.
func (s session) answer(a Answer, err error) {
	if err != nil {
		a.Error = err.Error()
	}
	data, err := json.Marshal(a)
	if err == nil {
		s.conn.Write(append(data, '\n'))
	}
}

func readLine(r *bufio.Reader, into any) error {
	line, err := r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return fmt.Errorf("a line is longer than %d bytes", maxLine)
	case err != nil:
		return err
	}
	return json.Unmarshal(line, into)
}
