package core

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/waltos/waltos/services/bootfile"
	"github.com/waltos/waltos/services/daemon/core/registry"
)

// bootFile sends a boot file to a node that emulates TFTP (node-protocols §3.5). A node
// has its own files only; the machine of the server, those of all.
func (s *stream) bootFile() error {
	p, err := s.ready()
	if err != nil {
		return err
	}
	v := s.registry.View()
	var node *registry.Device
	switch mac, ip := p.text("node_mac"), p.text("node_ip"); {
	case mac != "":
		node = v.ByMAC(lowerMAC(mac))
	case ip != "":
		node = v.ByIP(ip)
	default:
		_, err := io.WriteString(s.conn, "NO MAC OR IP SPECIFIED\n")
		return err
	}
	f, stat, err := s.openBootFile(node, p.text("path"))
	if err != nil {
		_, writeErr := io.WriteString(s.conn, "NO SUCH FILE\n")
		return errors.Join(err, writeErr)
	}
	defer f.Close()
	stop := context.AfterFunc(s, func() { s.conn.Close() })
	defer stop()
	if _, err := fmt.Fprintf(s.conn, "OK\n%d\n", stat.Size()); err != nil {
		return err
	}
	_, err = io.Copy(s.conn, io.LimitReader(f, stat.Size()))
	return err
}

// vpnNodeImage refuses the image of a VPN node's SD card, which no program of walt 10.0
// asks for any more (node-protocols §3.6).
func (s *stream) vpnNodeImage() error {
	p, err := s.ready()
	if err != nil {
		return err
	}
	answer := "ERR This server makes no images of VPN nodes.\n"
	switch {
	case p.get("model") == nil || p.get("entrypoint") == nil:
		answer = "ERR Invalid request!\n"
	case p.text("model") != "rpi-3-b-plus":
		answer = "ERR Only rpi-3-b-plus boards can be used as a WalT node.\n"
	}
	_, err = io.WriteString(s.conn, answer)
	return err
}

// openBootFile opens a file of the boot folder of a node. Links may lead elsewhere in its
// image, nowhere else.
func (s *stream) openBootFile(node *registry.Device, name string) (*os.File, fs.FileInfo, error) {
	if node == nil || node.Type != registry.Node || node.IP != s.peer.String() && !s.mayServeItself() {
		return nil, nil, errors.New("this is not the address of that node")
	}
	image, there := s.Images.ByName(node.Image)
	if !there {
		return nil, nil, fmt.Errorf("node %s has no image", node.Name)
	}
	root, dir := s.Images.Root(image.ID), s.Images.BootDir(image.ID, node.Model)
	if root == "" || dir == "" {
		return nil, nil, fmt.Errorf("the image of node %s is not mounted", node.Name)
	}
	return bootfile.Open(root, dir, name)
}

// mayServeItself tells whether the peer is the machine of the server.
func (s *stream) mayServeItself() bool {
	return s.peer.IsLoopback() || s.peer == s.registry.View().Network.Addr()
}
