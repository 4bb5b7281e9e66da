// Package control is the door of the supervisor: a unix socket on which waltctl, and
// whoever else is on the machine, asks for the state of units; only root changes it.
//
// Protocol: one connection, one request. The request is a JSON object on one line; the
// answer is one JSON object on one line, or, for "follow", a line per journal record
// until one side closes. Requests over 4 KiB are refused.
package control

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/waltos/waltos/supervisor/journal"
	"github.com/waltos/waltos/supervisor/report"
	"github.com/waltos/waltos/supervisor/unit"
	"golang.org/x/sys/unix"
)

// Path is where the supervisor listens.
const Path = "/run/walt/control.sock"

const maxRequest = 4 << 10

// Request is what a client asks for.
type Request struct {
	// Do is "status", "boot", "flush", "follow", "start", "stop", "restart", "poweroff" or
	// "reboot".
	Do   string `json:"do"`
	Unit string `json:"unit,omitempty"`
}

// Answer is the answer to all but "follow".
type Answer struct {
	Error  string  `json:"error,omitempty"`
	Status *Status `json:"status,omitempty"`
	Boot   *Boot   `json:"boot,omitempty"`
	Unit   *Unit   `json:"unit,omitempty"` // after start, stop, restart: what became of it
}

// Status is the whole machine at a moment.
type Status struct {
	Name          string        `json:"name"`          // host name
	Version       string        `json:"version"`       // of the appliance
	Configuration string        `json:"configuration"` // where the effective one is from
	Refused       string        `json:"refused,omitempty"`
	State         string        `json:"state"` // "starting", "ready", "degraded"
	Uptime        time.Duration `json:"uptime"`
	Data          Space         `json:"data"`
	Units         []Unit        `json:"units"`
}

// Space is the room of the data partition, in bytes.
type Space struct {
	Size int64 `json:"size"`
	Free int64 `json:"free"`
}

// Reserve is how much must be free for services to store anything with confidence: a
// hundredth, 64 MiB at most.
func (s Space) Reserve() int64 { return min(s.Size/100, 64<<20) }

// Full tells whether the reserve is used up.
func (s Space) Full() bool { return s.Size > 0 && s.Free < s.Reserve() }

// Unit is one unit at a moment.
type Unit struct {
	Name        string     `json:"name"`
	Description string     `json:"description,omitempty"`
	Type        string     `json:"type"`
	State       unit.State `json:"state"`
	Wanted      bool       `json:"wanted"`
	Since       time.Time  `json:"since"`
	PID         int        `json:"pid,omitempty"`
	Restarts    int        `json:"restarts"`
	Memory      int64      `json:"memory,omitempty"` // bytes
	Stored      int        `json:"stored,omitempty"` // descriptors
	Reason      string     `json:"reason,omitempty"`
	Status      string     `json:"status,omitempty"` // in the unit's own words
}

// Boot is the report of the present boot; times are since the kernel started.
type Boot struct {
	Phases []report.Phase `json:"phases"`
	Units  []UnitBoot     `json:"units"`
	Ready  time.Duration  `json:"ready,omitempty"` // all units had a result
}

// UnitBoot is the first start of a unit.
type UnitBoot struct {
	Name  string        `json:"name"`
	Began time.Duration `json:"began"`
	Ready time.Duration `json:"ready"`
	After []string      `json:"after,omitempty"`
}

// Machine is what the server acts upon.
type Machine interface {
	Status() Status
	Boot() Boot
	// Change does "start", "stop" or "restart" and waits for the result.
	Change(what, unit string, gone <-chan struct{}) (Unit, error)
	// Shutdown begins "poweroff" or "reboot".
	Shutdown(what string)
}

// Server answers requests.
type Server struct {
	Machine Machine
	Journal *journal.Journal
}

// Listen makes the socket.
func Listen(path string) (*net.UnixListener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("cannot open control socket: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cannot open control socket: %w", err)
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("cannot open control socket: %w", err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		ln.Close()
		return nil, fmt.Errorf("cannot open control socket: %w", err)
	}
	return ln, nil
}

// Serve answers until the listener is closed.
func (s *Server) Serve(ln *net.UnixListener) error {
	for {
		conn, err := ln.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			// Out of descriptors or memory: the next client may be luckier.
			time.Sleep(100 * time.Millisecond)
			continue
		}
		go s.serve(conn)
	}
}

func (s *Server) serve(conn *net.UnixConn) {
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	line, err := bufio.NewReaderSize(conn, maxRequest).ReadSlice('\n')
	if err != nil {
		return
	}
	_ = conn.SetReadDeadline(time.Time{})
	var request Request
	if err := json.Unmarshal(line, &request); err != nil {
		reply(conn, Answer{Error: "cannot understand the request: " + err.Error()})
		return
	}
	// A client that goes away ends what is done for it.
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, _ = io.Copy(io.Discard, conn)
	}()
	switch request.Do {
	case "status":
		status := s.Machine.Status()
		reply(conn, Answer{Status: &status})
	case "boot":
		boot := s.Machine.Boot()
		reply(conn, Answer{Boot: &boot})
	case "flush":
		if err := s.Journal.Flush(); err != nil {
			reply(conn, Answer{Error: err.Error()})
			return
		}
		reply(conn, Answer{})
	case "follow":
		s.follow(conn, gone)
	case "start", "stop", "restart", "poweroff", "reboot":
		s.change(conn, request, gone)
	default:
		reply(conn, Answer{Error: fmt.Sprintf("no request is named %q", request.Do)})
	}
}

func (s *Server) change(conn *net.UnixConn, request Request, gone <-chan struct{}) {
	if err := mayChange(conn); err != nil {
		reply(conn, Answer{Error: err.Error()})
		return
	}
	if request.Do == "poweroff" || request.Do == "reboot" {
		reply(conn, Answer{})
		s.Machine.Shutdown(request.Do)
		return
	}
	u, err := s.Machine.Change(request.Do, request.Unit, gone)
	if err != nil {
		reply(conn, Answer{Error: err.Error()})
		return
	}
	reply(conn, Answer{Unit: &u})
}

// mayChange asks the kernel who is at the other end.
func mayChange(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("cannot identify the client: %w", err)
	}
	var peer *unix.Ucred
	var peerErr error
	if err := raw.Control(func(fd uintptr) {
		peer, peerErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return fmt.Errorf("cannot identify the client: %w", err)
	}
	if peerErr != nil {
		return fmt.Errorf("cannot identify the client: %w", peerErr)
	}
	if peer.Uid != 0 && int(peer.Uid) != os.Getuid() {
		return fmt.Errorf("user number %d may look but not change; ask root", peer.Uid)
	}
	return nil
}

func (s *Server) follow(conn *net.UnixConn, gone <-chan struct{}) {
	records, first, end := s.Journal.Follow()
	defer end()
	// What is older than the first of these is in the segments once they are flushed; if
	// they cannot be, the client sees at least what is new.
	_ = s.Journal.Flush()
	if json.NewEncoder(conn).Encode(struct {
		First uint64 `json:"first"`
	}{first}) != nil {
		return
	}
	encoder := json.NewEncoder(conn)
	for {
		select {
		case <-gone:
			return
		case r, ok := <-records:
			if !ok || encoder.Encode(r) != nil {
				return
			}
		}
	}
}

func reply(conn net.Conn, a Answer) {
	_ = conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
	_ = json.NewEncoder(conn).Encode(a) // the client is gone
}

// Ask sends a request to the supervisor at that path and returns its answer.
func Ask(path string, request Request) (Answer, error) {
	var a Answer
	conn, err := net.Dial("unix", path)
	if err != nil {
		return a, fmt.Errorf("cannot reach the supervisor: %w", err)
	}
	defer conn.Close()
	if err := json.NewEncoder(conn).Encode(request); err != nil {
		return a, fmt.Errorf("cannot ask the supervisor: %w", err)
	}
	if err := json.NewDecoder(conn).Decode(&a); err != nil {
		return a, fmt.Errorf("cannot read the supervisor's answer: %w", err)
	}
	if a.Error != "" {
		return a, errors.New(a.Error)
	}
	return a, nil
}

// Follow calls begin with the number of the first record that will come, then each for
// every record, until each returns an error or the supervisor ends.
func Follow(path string, begin func(first uint64) error, each func(journal.Record) error) error {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return fmt.Errorf("cannot reach the supervisor: %w", err)
	}
	defer conn.Close()
	if err := json.NewEncoder(conn).Encode(Request{Do: "follow"}); err != nil {
		return fmt.Errorf("cannot ask the supervisor: %w", err)
	}
	decoder := json.NewDecoder(conn)
	var head struct {
		First uint64 `json:"first"`
	}
	if err := decoder.Decode(&head); err != nil {
		return fmt.Errorf("cannot read the supervisor's answer: %w", err)
	}
	if err := begin(head.First); err != nil {
		return err
	}
	for {
		var r journal.Record
		if err := decoder.Decode(&r); err != nil {
			return fmt.Errorf("the supervisor ended the log: %w", err)
		}
		if err := each(r); err != nil {
			return err
		}
	}
}
