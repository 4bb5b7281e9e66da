package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"

	"github.com/waltos/waltos/services/wire/pickle"
	"github.com/waltos/waltos/services/wire/rpc"
)

// Transfer is a copy of files as a tar archive (client-api 3.8). Its request is one of
// TarFromNode, TarToNode, TarFromImage and TarToImage; its parameters are what the call
// validate_node_cp or validate_image_cp returned.
type Transfer struct {
	Request    rpc.Request
	Parameters *pickle.Dict
}

// Fetch writes the archive that the server sends. That the server failed shows only by
// an archive without end.
func (t Transfer) Fetch(ctx context.Context, address string, archive io.Writer) error {
	s, unbind, err := openReady(ctx, address, t.Request, t.Parameters)
	if err != nil {
		return err
	}
	defer s.Close()
	defer unbind()
	if _, err := io.Copy(archive, s.R); err != nil {
		return fmt.Errorf("cannot fetch files: %w", err)
	}
	return nil
}

// maxComplaint bounds what a server says about an archive.
const maxComplaint = 64 << 10

// Send sends an archive and waits until the server has unpacked it. The error holds
// what the server says against it.
func (t Transfer) Send(ctx context.Context, address string, archive io.Reader) error {
	s, unbind, err := openReady(ctx, address, t.Request, t.Parameters)
	if err != nil {
		return err
	}
	defer s.Close()
	defer unbind()
	_, err = io.Copy(s, archive)
	if err == nil {
		err = closeWrite(s.Conn)
	}
	said, readErr := io.ReadAll(io.LimitReader(s.R, maxComplaint))
	if text := strings.TrimSpace(string(said)); text != "" {
		return fmt.Errorf("cannot send files: %s", text)
	}
	if err = errors.Join(err, readErr); err != nil {
		return fmt.Errorf("cannot send files: %w", err)
	}
	return nil
}

// relayed is a connection whose first bytes have been read.
type relayed struct {
	net.Conn
	r *bufio.Reader
}

// Read is that of net.Conn.
func (c relayed) Read(p []byte) (int, error) { return c.r.Read(p) }

// DialNode connects to a port of a node or device through the server (client-api 3.7).
func DialNode(ctx context.Context, address, ip string, port int) (net.Conn, error) {
	s, err := DialStream(ctx, address, rpc.TCPToNode)
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { s.Close() })()
	line := ""
	if err = s.Send(pickle.NewDict("node_ip", ip, "node_port", port)); err == nil {
		line, err = s.Line()
	}
	if err == nil && line != "OK" {
		err = errors.New(line)
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("cannot connect to %s by the server: %w", ip, err)
	}
	return relayed{s.Conn, s.R}, nil
}

// maxBootFile bounds a boot file: kernels and initial file systems are the largest.
const maxBootFile = 1 << 30

// ErrNoBootFile is the error of a boot file that the server does not have.
var ErrNoBootFile = errors.New("no such boot file")

// BootFile writes a boot file of the node of that MAC, as one that emulates TFTP gets it
// (node-protocols 3.5).
func BootFile(ctx context.Context, address, mac, path string, w io.Writer) error {
	s, unbind, err := openReady(ctx, address, rpc.FakeTFTPGet, pickle.NewDict("node_mac", mac, "path", path))
	if err != nil {
		return err
	}
	defer s.Close()
	defer unbind()
	status, err := s.Line()
	switch {
	case err != nil:
		return fmt.Errorf("cannot get boot file %s: %w", path, err)
	case status == "NO SUCH FILE":
		return fmt.Errorf("cannot get %s: %w", path, ErrNoBootFile)
	case status != "OK":
		return fmt.Errorf("cannot get boot file %s: the server says %.100q", path, status)
	}
	line, err := s.Line()
	if err != nil {
		return fmt.Errorf("cannot get boot file %s: %w", path, err)
	}
	size, err := strconv.ParseInt(line, 10, 64)
	if err != nil || size < 0 || size > maxBootFile {
		return fmt.Errorf("cannot get boot file %s: its length is %.40q", path, line)
	}
	if _, err := io.CopyN(w, s.R, size); err != nil {
		return fmt.Errorf("cannot get boot file %s: %w", path, err)
	}
	return nil
}
