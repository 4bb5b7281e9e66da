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
	"flag"
	"fmt"
	"log"
	"net"
	"path/filepath"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/services/bootfile"
	"github.com/waltos/waltos/services/notify"
	"github.com/waltos/waltos/services/state"
)

// Main runs the service until ctx ends.
func Main(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("tftpd", flag.ContinueOnError)
	site := flags.String("site", "/run/walt/site.hcl", "site configuration `file`")
	dir := flags.String("dir", "/var/lib/walt/services/tftpd", "`directory` of the last known state")
	pxe := flags.String("pxe", "/usr/lib/walt/pxe", "`directory` of boot loaders")
	static := flags.String("static", "/var/lib/walt/tftp-static", "`directory` of files for clients without image")
	socket := flags.String("state", state.Socket, "`socket` of server-main")
	if err := flags.Parse(args); err != nil {
		return err
	}
	conf, err := hcl.LoadSite(*site)
	if err != nil {
		return err
	}
	server := conf.Server()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: server.Addr().AsSlice(), Port: 69})
	if err != nil {
		return fmt.Errorf("cannot serve TFTP: %w", err)
	}
	watcher := state.Watch(ctx, *socket, filepath.Join(*dir, "state.json"))
	log.Printf("serving TFTP on %s", conn.LocalAddr())
	if err := notify.Ready(); err != nil {
		return fmt.Errorf("cannot say that TFTP is ready: %w", err)
	}
	err = New(Config{
		Network: server,
		PXE:     *pxe,
		Tree:    &bootfile.Tree{Network: server, Static: *static, State: watcher},
	}, conn).Serve(ctx)
	<-watcher.Done()
	return err
}
