package native

import (
	"net"

	"golang.org/x/crypto/ssh"

	"github.com/waltos/waltos/services/daemon/core/remote/sshtest"
)

// SSH makes an address of walt-net accept ssh sessions of the server, with the host key
// that nodes share; commands run on this machine, in a home folder.
func (d *Daemon) SSH(ip, home string) {
	d.t.Helper()
	host, err := ssh.ParsePrivateKey(key(d.t, "/var/lib/walt/keys/ssh_host_ecdsa_key"))
	if err != nil {
		d.t.Fatal(err)
	}
	server, _, _, _, err := ssh.ParseAuthorizedKey(key(d.t, "/root/.ssh/id_rsa.pub"))
	if err != nil {
		d.t.Fatal(err)
	}
	config := sshtest.Config(host, server)
	listen(d.t, ip, "22", func(conn net.Conn) { sshtest.Serve(conn, config, home, func(string) {}) })
}
