package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// logsFIFO exists where an image runs walt-logs-daemon, which then owns the
// connections to the server.
const logsFIFO = "/var/lib/walt/logs.fifo"

// closeLimit bounds the wait for the server to have read everything.
const closeLimit = 10 * time.Second

// logStream is one stream of log lines to the server (node-protocols.md section 3.3).
type logStream struct{ conn net.Conn }

func openLog(ctx context.Context, server netip.Addr, stream string, timestamps bool) (*logStream, error) {
	if stream == "" || strings.ContainsAny(stream, "\n\r") {
		return nil, fmt.Errorf("cannot log: %q is not a stream name", stream)
	}
	conn, err := dial(ctx, server, streamsPort)
	if err != nil {
		return nil, err
	}
	mode := "NO_TIMESTAMPS"
	if timestamps {
		mode = "TIMESTAMPS_INSIDE"
	}
	if _, err := fmt.Fprintf(conn, "REQ_NEW_INCOMING_LOGS\n%s\n%s\n", stream, mode); err != nil {
		conn.Close()
		return nil, fmt.Errorf("cannot log: %w", err)
	}
	return &logStream{conn: conn}, nil
}

func (l *logStream) line(text string) error {
	_, err := io.WriteString(l.conn, text+"\n")
	return err
}

// close ends the stream and waits until the server has closed it too: everything
// sent has then been read.
func (l *logStream) close() error {
	defer l.conn.Close()
	if err := l.line("CLOSE"); err != nil {
		return fmt.Errorf("cannot end the log stream: %w", err)
	}
	if err := l.conn.SetReadDeadline(time.Now().Add(closeLimit)); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, l.conn); err != nil {
		return fmt.Errorf("cannot end the log stream: %w", err)
	}
	return nil
}

// logLine logs one line of the boot; a server that does not listen is no reason to
// stop a boot.
func logLine(ctx context.Context, server netip.Addr, stream, text string) {
	say("%s", text)
	l, err := openLog(ctx, server, stream, false)
	if err == nil {
		err = errors.Join(l.line(text), l.close())
	}
	if err != nil {
		say("%v", err)
	}
}

// logEcho is walt-log-echo [--timestamp TS] STREAM WORD...
func logEcho(ctx context.Context, args []string) error {
	stamp := ""
	if len(args) > 1 && (args[0] == "--timestamp" || args[0] == "--ts") {
		stamp, args = args[1], args[2:]
	}
	if len(args) < 2 {
		return errors.New("usage: walt-log-echo [--timestamp SECONDS] STREAM WORDS")
	}
	stream, text := args[0], strings.Join(args[1:], " ")
	if done, err := echoByFIFO(logsFIFO, stamp, stream, text); done {
		return err
	}
	server, err := findServer()
	if err != nil {
		return err
	}
	l, err := openLog(ctx, server, stream, stamp != "")
	if err != nil {
		return err
	}
	if stamp != "" {
		text = stamp + " " + text
	}
	return errors.Join(l.line(text), l.close())
}

// echoByFIFO hands a line to walt-logs-daemon if it runs: without a reader the FIFO
// cannot be opened in this way.
func echoByFIFO(fifo, stamp, stream, text string) (done bool, err error) {
	f, err := os.OpenFile(fifo, os.O_WRONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return false, nil
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Mode()&os.ModeNamedPipe == 0 {
		return false, nil
	}
	message := fmt.Sprintf("LOG %s %s\n", stream, text)
	if stamp != "" {
		message = fmt.Sprintf("TSLOG %s %s %s\n", stamp, stream, text)
	}
	_, err = f.WriteString(message)
	return true, err
}

// stampMode is where the time of a line comes from.
type stampMode int

const (
	stampServer stampMode = iota
	stampLocal
	stampProvided
)

var stampModes = map[string]stampMode{
	"--ts-server": stampServer, "--ts-local": stampLocal, "--ts-provided": stampProvided,
	"--ts": stampProvided, "--timestamp": stampProvided,
}

// logCat is walt-log-cat [--ts-provided|--ts-local|--ts-server] STREAM: lines of
// standard input go to the server.
func logCat(ctx context.Context, args []string) error { return copyLog(ctx, args, io.Discard) }

// logTee is walt-log-tee: as walt-log-cat, and lines go to standard output as well.
func logTee(ctx context.Context, args []string) error { return copyLog(ctx, args, os.Stdout) }

func copyLog(ctx context.Context, args []string, echo io.Writer) error {
	mode := stampServer
	if len(args) > 0 {
		if m, ok := stampModes[args[0]]; ok {
			mode, args = m, args[1:]
		}
	}
	if len(args) != 1 {
		return errors.New("usage: walt-log-cat|walt-log-tee [--ts-provided|--ts-local|--ts-server] STREAM")
	}
	server, err := findServer()
	if err != nil {
		return err
	}
	l, err := openLog(ctx, server, args[0], mode != stampServer)
	if err != nil {
		return err
	}
	return l.copy(os.Stdin, echo, mode)
}

// copy logs the lines of in, which it repeats on echo, and closes the stream.
func (l *logStream) copy(in io.Reader, echo io.Writer, mode stampMode) error {
	lines := bufio.NewReader(in)
	for {
		text, err := lines.ReadString('\n')
		if text != "" {
			line := strings.TrimSuffix(text, "\n")
			fmt.Fprintln(echo, line)
			if mode == stampLocal {
				now := time.Now()
				line = fmt.Sprintf("%d.%09d %s", now.Unix(), now.Nanosecond(), line)
			}
			if err := l.line(line); err != nil {
				return fmt.Errorf("cannot log: %w", err)
			}
		}
		if err == io.EOF {
			return l.close()
		}
		if err != nil {
			return errors.Join(fmt.Errorf("cannot read standard input: %w", err), l.close())
		}
	}
}

// deprecated warns that a command has another name now.
func deprecated(name string, run func(context.Context, []string) error) func(context.Context, []string) error {
	return func(ctx context.Context, args []string) error {
		fmt.Fprintf(os.Stderr, "WARNING: %s is deprecated. Use %s instead.\n", name, strings.Replace(name, "walt-", "walt-log-", 1))
		return run(ctx, args)
	}
}
