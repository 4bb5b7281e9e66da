package core

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

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
	f, err := s.openBootFile(node, p.text("path"))
	if err != nil {
		_, writeErr := io.WriteString(s.conn, "NO SUCH FILE\n")
		return errors.Join(err, writeErr)
	}
	defer f.Close()
	stat, err := f.Stat()
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(s.conn, "OK\n%d\n", stat.Size()); err != nil {
		return err
	}
	_, err = io.Copy(s.conn, io.LimitReader(f, stat.Size()))
	return err
}

// openBootFile opens a file of the boot folder of a node. Links may lead elsewhere in its
// image, nowhere else.
func (s *stream) openBootFile(node *registry.Device, name string) (*os.File, error) {
	if node == nil || node.Type != registry.Node || node.IP != s.peer.String() && !s.mayServeItself() {
		return nil, errors.New("this is not the address of that node")
	}
	image, there := s.Images.ByName(node.Image)
	if !there {
		return nil, fmt.Errorf("node %s has no image", node.Name)
	}
	top, folder := s.Images.Root(image.ID), s.Images.BootDir(image.ID, node.Model)
	below, err := filepath.Rel(top, folder)
	if top == "" || folder == "" || err != nil {
		return nil, fmt.Errorf("the image of node %s is not mounted", node.Name)
	}
	root, err := os.OpenRoot(top)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.Open(path.Join(filepath.ToSlash(below), path.Clean("/"+strings.TrimLeft(name, "/"))))
	if err != nil {
		return nil, err
	}
	if stat, err := f.Stat(); err != nil || !stat.Mode().IsRegular() {
		f.Close()
		return nil, fmt.Errorf("cannot send %s: %w", name, fs.ErrInvalid)
	}
	return f, nil
}

// mayServeItself tells whether the peer is the machine of the server.
func (s *stream) mayServeItself() bool {
	return s.peer.IsLoopback() || s.peer == s.registry.View().Network.Addr()
}
