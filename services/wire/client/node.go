package client

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/waltos/waltos/services/wire/rpc"
)

// Boot is the connection by which a node says that it is booted (node-protocols 3.4): the
// server takes it for down when the connection ends.
type Boot struct{ stream *Stream }

// bootPeriod is between two signs of life.
const bootPeriod = 20 * time.Second

// NotifyBoot tells the server that this node has booted. ctx bounds the opening only.
func NotifyBoot(ctx context.Context, address string) (*Boot, error) {
	s, err := DialStream(ctx, address, rpc.NotifyBootupStatus)
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { s.Close() })()
	line, err := s.Line()
	if err == nil && line != "OK" {
		err = fmt.Errorf("the server says %.100q", line)
	}
	if err == nil {
		_, err = io.WriteString(s, "\n")
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("cannot notify the boot: %w", err)
	}
	return &Boot{s}, nil
}

// Keep gives signs of life until ctx or the connection ends; a node reboots in the
// second case, of which the error tells.
func (b *Boot) Keep(ctx context.Context) error {
	ended := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, b.stream.R)
		if err == nil {
			err = io.EOF
		}
		ended <- err
	}()
	ticker := time.NewTicker(bootPeriod)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			b.stream.SetReadDeadline(time.Unix(1, 0))
			<-ended
			return nil
		case err := <-ended:
			return fmt.Errorf("the server has ended the connection: %w", err)
		case <-ticker.C:
			if _, err := io.WriteString(b.stream, "\n"); err != nil {
				return fmt.Errorf("the server has ended the connection: %w", err)
			}
		}
	}
}

// Close ends the connection: the node is down.
func (b *Boot) Close() error { return b.stream.Close() }

// LogStream is a stream of log lines from a node (node-protocols 3.3). Lines are buffered:
// Flush sends them.
type LogStream struct {
	stream  *Stream
	w       *bufio.Writer
	stamped bool
}

// OpenLogs opens the log stream of a name. If it is stamped each line has a time, else
// the server gives it that of its reception. ctx bounds the opening only.
func OpenLogs(ctx context.Context, address, name string, stamped bool) (*LogStream, error) {
	s, err := DialStream(ctx, address, rpc.NewIncomingLogs)
	if err != nil {
		return nil, err
	}
	l := &LogStream{s, bufio.NewWriterSize(s, 64<<10), stamped}
	mode := "NO_TIMESTAMPS"
	if stamped {
		mode = "TIMESTAMPS_INSIDE"
	}
	if _, err := fmt.Fprintf(l.w, "%s\n%s\n", name, mode); err != nil {
		s.Close()
		return nil, fmt.Errorf("cannot open log stream: %w", err)
	}
	return l, nil
}

// Line adds a line, which must hold no line feed. at is used if the stream is stamped.
func (l *LogStream) Line(at time.Time, text string) error {
	if l.stamped {
		if _, err := fmt.Fprintf(l.w, "%.6f ", float64(at.UnixMicro())/1e6); err != nil {
			return err
		}
	}
	l.w.WriteString(text) // an error stays for the next write
	return l.w.WriteByte('\n')
}

// Flush sends the lines added.
func (l *LogStream) Flush() error { return l.w.Flush() }

// Close ends the stream, and returns once the server has received all.
func (l *LogStream) Close() error {
	defer l.stream.Close()
	if err := l.w.Flush(); err != nil {
		return err
	}
	// The end is told from a line by coming last: on its own, after all lines.
	if _, err := io.WriteString(l.stream, "CLOSE\n"); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, l.stream.R)
	return err
}
