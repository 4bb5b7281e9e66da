// Package tftp is the TFTP server that firmware and boot loaders fetch their files
// from: RFC 1350 with options (2347), blksize (2348), tsize and timeout (2349) and
// windowsize (7440). A client sees the boot directory of its own image, and below
// pxe/ the boot loaders of the appliance (node-protocols 1.3).
//
// It refuses writes, names that leave the directory, files that not everybody may
// read, and does not answer clients outside the platform network.
package tftp

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/netip"
	"time"

	"github.com/waltos/waltos/services/bootfile"
	"github.com/waltos/waltos/services/internal/setup"
	"github.com/waltos/waltos/services/notify"
)

// Main runs the service until ctx ends.
func Main(ctx context.Context, args []string) error {
	flags := setup.New("tftpd")
	pxe := flags.String("pxe", "/usr/lib/walt/pxe", "`directory` of boot loaders")
	static := flags.String("static", "/var/lib/walt/tftp-static", "`directory` of files for clients without image")
	conf, err := flags.Load(args)
	if err != nil {
		return err
	}
	server := conf.Server()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: server.Addr().AsSlice(), Port: 69})
	if err != nil {
		return fmt.Errorf("cannot serve TFTP: %w", err)
	}
	watcher := flags.Watch(ctx)
	log.Printf("serving TFTP on %s", conn.LocalAddr())
	if err := notify.Ready(); err != nil {
		return fmt.Errorf("cannot say that TFTP is ready: %w", err)
	}
	s := New(Config{
		Network: server,
		PXE:     *pxe,
		Tree:    &bootfile.Tree{Network: server, Static: *static, State: watcher},
	}, conn)
	watcher.Measure(s.Measures())
	go notify.KeepAlive(ctx, func(ctx context.Context) error { return answers(ctx, server.Addr(), conn.LocalAddr()) })
	err = s.Serve(ctx)
	<-watcher.Done()
	return err
}

// patience is how long an answer may take; requests of UDP may be lost.
const patience = 2 * time.Second

// answers asks a server for a file, as a client of its own address. There is none, and any
// answer will do.
func answers(ctx context.Context, from netip.Addr, server net.Addr) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: from.AsSlice()})
	if err != nil {
		return fmt.Errorf("cannot ask this TFTP server: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	request := []byte("\x00\x01self-check\x00octet\x00")
	if _, err := conn.WriteTo(request, server); err != nil {
		return fmt.Errorf("cannot ask this TFTP server: %w", err)
	}
	// From another port: each transfer has its own.
	if _, _, err := conn.ReadFrom(make([]byte, maxRequest)); err != nil {
		return fmt.Errorf("cannot get an answer from this TFTP server: %w", err)
	}
	return nil
}
