package tftp

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/waltos/waltos/services/bootfile"
	"github.com/waltos/waltos/services/internal/pattern"
	"github.com/waltos/waltos/services/internal/quota"
)

// Bounds of one server.
const (
	maxTransfers = 1024
	// maxPerClient allows for transfers that firmware abandoned without a word.
	maxPerClient = 16
)

// Config describes a server.
type Config struct {
	Network netip.Prefix // clients outside are not answered
	PXE     string       // directory of the names below pxe/, for everybody
	Tree    interface {  // the files of each client; *bootfile.Tree
		Open(client netip.Addr, name string) (*os.File, fs.FileInfo, error)
	}
}

// Server answers read requests on one socket.
type Server struct {
	cfg   Config
	conn  *net.UDPConn
	quota *quota.Quota // of transfers
	count counts
	tasks sync.WaitGroup

	mu     sync.Mutex
	active map[netip.AddrPort]string // requests whose first answer is not acknowledged
}

// New returns a server on a socket bound to the server's address.
func New(cfg Config, conn *net.UDPConn) *Server {
	s := &Server{cfg: cfg, conn: conn, quota: quota.New(maxTransfers, maxPerClient), active: map[netip.AddrPort]string{}}
	s.count = newCounts(s.transfers)
	return s
}

// Serve answers until ctx ends; it closes the socket.
func (s *Server) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer s.tasks.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { s.conn.Close() })
	defer stop()
	buffer := make([]byte, maxRequest+1)
	for {
		n, client, err := s.conn.ReadFromUDPAddrPort(buffer)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("cannot receive requests: %w", err)
		}
		if err != nil { // as an ICMP error for an earlier answer
			continue
		}
		client = netip.AddrPortFrom(client.Addr().Unmap(), client.Port())
		if !s.cfg.Network.Contains(client.Addr()) || client.Port() == 0 {
			continue
		}
		s.accept(ctx, client, string(buffer[:n]))
	}
}

// accept starts the answer to one request, unless it is under way already: firmware
// repeats its request after a quarter of a second.
func (s *Server) accept(ctx context.Context, client netip.AddrPort, packet string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active[client] == packet {
		return
	}
	s.count.requests.Add(1)
	holder := client.Addr()
	if holder == s.cfg.Network.Addr() {
		holder = netip.Addr{} // the server itself, which is never refused
	}
	if !s.quota.Take(holder) {
		s.count.answers.With("busy").Add(1)
		return // it asks again
	}
	s.active[client] = packet
	s.tasks.Go(func() {
		defer s.quota.Give(holder)
		s.answer(ctx, client, packet)
		s.started(client, packet)
	})
}

// started tells that the client has seen the first answer: the same request from the
// same port is a new one from now on (of a machine that was reset).
func (s *Server) started(client netip.AddrPort, packet string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active[client] == packet {
		delete(s.active, client)
	}
}

// answer handles one request from a port of its own.
func (s *Server) answer(ctx context.Context, client netip.AddrPort, packet string) {
	local := s.conn.LocalAddr().(*net.UDPAddr)
	conn, err := net.DialUDP("udp4", &net.UDPAddr{IP: local.IP}, net.UDPAddrFromAddrPort(client))
	if err != nil {
		log.Printf("cannot answer %s: %v", client, err)
		s.count.answers.With("failed").Add(1)
		return
	}
	defer conn.Close()
	refuse := func(code uint16, text string) {
		s.count.answers.With(refusals[code]).Add(1)
		// If it is lost the client asks again.
		_, _ = conn.Write(errorPacket(code, text))
	}
	r, err := parseRequest([]byte(packet))
	switch {
	case err != nil:
		refuse(codeIllegal, "Illegal TFTP operation")
		return
	case r.write:
		log.Printf("%s wants to write %.100q: refused", client.Addr(), r.name)
		refuse(codeAccess, "Access violation")
		return
	}
	file, info, err := s.open(client.Addr(), r.name)
	if err != nil {
		code, text := describe(err)
		if code != codeNotFound { // boot loaders probe many names
			log.Printf("%s wants %.100q: %v", client.Addr(), r.name, err)
		}
		refuse(code, text)
		return
	}
	defer file.Close()
	var content io.Reader = bufio.NewReaderSize(file, 256<<10)
	if r.netascii {
		content = &netascii{r: content.(io.ByteReader), next: -1}
	}
	begin := time.Now()
	t := newTransfer(conn, r.negotiate(info.Size()), content, func() { s.started(client, packet) })
	err = t.run(ctx)
	s.count.bytes.Add(uint64(t.bytes))
	switch {
	case err == nil:
		s.count.answers.With("sent").Add(1)
		log.Printf("%s has read %s, %d bytes in %s", client.Addr(), r.name, t.bytes, time.Since(begin).Round(time.Millisecond))
	case errors.Is(err, errClient):
		s.count.answers.With("ended_by_client").Add(1)
	case ctx.Err() == nil:
		s.count.answers.With("failed").Add(1)
		log.Printf("%s reads %s: stopped at byte %d: %v", client.Addr(), r.name, t.bytes, err)
	}
}

// describe turns an error into what the client is told.
func describe(err error) (code uint16, text string) {
	switch {
	case errors.Is(err, bootfile.ErrEscape):
		return codeAccess, "Access violation"
	case errors.Is(err, fs.ErrPermission):
		return codeOther, "Permission denied" // the code that in.tftpd uses
	default:
		return codeNotFound, "File not found"
	}
}

// Names of old boot media (node-protocols 1.3).
var (
	oldUboot = pattern.Lazy(`boot/rpi-.*\.uboot`)
	oldIPXE  = pattern.Lazy(`boot/pc-x86-64.ipxe`)
)

// replaceFirst replaces the first match only.
func replaceFirst(re *regexp.Regexp, name, by string) string {
	if at := re.FindStringIndex(name); at != nil {
		return name[:at[0]] + by + name[at[1]:]
	}
	return name
}

// open maps a requested name to a file, and refuses one that is not for everybody.
func (s *Server) open(client netip.Addr, name string) (*os.File, fs.FileInfo, error) {
	file, info, err := s.find(client, name)
	if err == nil && info.Mode().Perm()&0o004 == 0 {
		file.Close()
		return nil, nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}
	return file, info, err
}

func (s *Server) find(client netip.Addr, name string) (*os.File, fs.FileInfo, error) {
	below, pxe := strings.CutPrefix(strings.TrimLeft(name, "/"), "pxe/")
	if pxe {
		return bootfile.Open(s.cfg.PXE, s.cfg.PXE, below)
	}
	if strings.Contains(name, "undionly") { // never one of an image
		return nil, nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	name = replaceFirst(oldUboot(), name, "start.uboot")
	name = replaceFirst(oldIPXE(), name, "start.ipxe")
	return s.cfg.Tree.Open(client, name)
}
