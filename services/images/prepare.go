package images

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/waltos/waltos/services/internal/pattern"
	"github.com/waltos/waltos/services/node/layout"
)

// Ports that nodes are told (node-protocols 2.5).
const (
	rpcPort  = "12345"
	logsPort = "12347"
	nodePort = "12346"
)

const hostsFile = `127.0.0.1	localhost
::1	localhost ip6-localhost ip6-loopback
ff02::1	ip6-allnodes
ff02::2	ip6-allrouters
`

// preparation is the work on one mounted image (server-state 3.7, node-protocols 2.2).
type preparation struct {
	*imageRoot
	m     *Manager
	image *entry
}

// prepare makes a mounted image ready for nodes. Each step stands alone: one that
// fails is reported, and the image is exported nevertheless. Each may be done again:
// what is right already is not written, because nodes may be using it.
func (m *Manager) prepare(ctx context.Context, e *entry) {
	warn := func(what string, err error) {
		if err != nil {
			m.config.Warn("image %s: cannot prepare %s: %v; nodes may have problems booting it", e.title(), what, err)
		}
	}
	root, err := openRoot(m.mountPoint(e.ID))
	if err != nil {
		warn("it", err)
		return
	}
	defer root.root.Close()
	p := &preparation{root, m, e}
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"ssh folders", p.sshFolders},
		{"ssh host keys", p.hostKeys},
		{"the server's access", p.authorizedKeys},
		{"/etc/hosts", func() error { return p.write("/etc/hosts", []byte(hostsFile), 0o644) }},
		{"/etc/resolv.conf", p.resolvConf},
		{"/etc/hostname", p.hostname},
		{"/usr/local/bin/walt-echo", func() error { return p.remove("/usr/local/bin/walt-echo") }},
		{"links of /boot", func() error { return p.relativeLinks("/boot") }},
		{"the node program", p.nodeProgram},
		{"walt-env", p.environment},
		{"/etc/ptpd.conf", p.ptpd},
		{"/etc/localtime", p.localtime},
		{"/etc/walt/image.spec", func() error { return p.spec(ctx) }},
	} {
		warn(step.what, step.do())
	}
}

// title names an image for people.
func (i *Image) title() string {
	if len(i.Names) > 0 {
		return i.Names[0]
	}
	return i.ID[:12]
}

// sshFolders replaces links: some images have them lead to volatile places.
func (p *preparation) sshFolders() error {
	for _, name := range []string{"/etc/ssh", "/etc/dropbear"} {
		info, err := p.lstat(name)
		if err == nil && info.Mode()&fs.ModeSymlink != 0 {
			if err := p.remove(name); err != nil {
				return err
			}
		}
		if _, err := p.folder(name); err != nil {
			return err
		}
	}
	return nil
}

func (p *preparation) hostKeys() error {
	return errors.Join(
		p.write("/etc/ssh/ssh_host_ecdsa_key", p.m.keys.host, 0o600),
		p.write("/etc/ssh/ssh_host_ecdsa_key.pub", p.m.keys.hostPublic, 0o644),
		p.write("/etc/dropbear/dropbear_ecdsa_host_key", p.m.keys.dropbear, 0o600),
	)
}

func (p *preparation) authorizedKeys() error {
	const name = "/root/.ssh/authorized_keys"
	key, err := p.m.keys.server()
	if err != nil {
		return err
	}
	old, err := p.read(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for line := range strings.Lines(string(old)) {
		if strings.TrimSpace(line) == key {
			return nil
		}
	}
	text := string(old)
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	if !p.exists("/root/.ssh") {
		dir, err := p.folder("/root/.ssh")
		if err == nil {
			err = p.root.Chmod(dir, 0o700) // sshd refuses more
		}
		if err != nil {
			return err
		}
	}
	return p.write(name, []byte(text+key+"\n"), 0o600)
}

func (p *preparation) resolvConf() error {
	const name, saved = "/etc/resolv.conf", "/etc/resolv.conf.saved"
	text := fmt.Sprintf("\ndomain walt\nsearch walt.\nnameserver %s\n", p.m.config.Network.Addr())
	// Saved once: at the next time it would be our own.
	if _, err := p.lstat(saved); errors.Is(err, fs.ErrNotExist) {
		if _, err := p.lstat(name); err == nil {
			from, err1 := p.resolve(name, false)
			to, err2 := p.place(saved)
			if err := errors.Join(err1, err2); err != nil {
				return err
			}
			if err := p.root.Rename(from, to); err != nil {
				return err
			}
		}
	}
	return p.write(name, []byte(text), 0o644)
}

// hostname removes the name of the image: nodes have theirs from DHCP.
func (p *preparation) hostname() error {
	info, err := p.lstat("/etc/hostname")
	if err != nil || !info.Mode().IsRegular() {
		return nil
	}
	return p.remove("/etc/hostname")
}

func (p *preparation) nodeProgram() error {
	if p.m.config.NodeTool == "" {
		return nil
	}
	program, err := os.ReadFile(p.m.config.NodeTool)
	if err != nil {
		return err
	}
	if err := p.write(layout.Program, program, 0o755); err != nil {
		return err
	}
	for _, name := range layout.Links {
		target := relative(path.Dir(name)[1:], layout.Program[1:])
		if err := p.link(name, target); err != nil {
			return err
		}
	}
	return nil
}

// variables are what templates and the environment of nodes are made of.
func (p *preparation) variables() map[string]string {
	return map[string]string{
		"server_mac":                     p.m.config.ServerMAC,
		"server_ip":                      p.m.config.Network.Addr().String(),
		"walt_server_ip":                 p.m.config.Network.Addr().String(),
		"walt_server_rpc_port":           rpcPort,
		"walt_server_logs_port":          logsPort,
		"walt_server_notify_bootup_port": logsPort,
		"walt_node_net_service_port":     nodePort,
		"walt_image_id":                  p.image.ID,
		"walt_image_size_kib":            strconv.FormatInt((p.image.Size+1023)/1024, 10),
	}
}

func (p *preparation) environment() error {
	values := p.variables()
	var text strings.Builder
	for _, name := range layout.Variables {
		fmt.Fprintf(&text, "export %s='%s'\n", name, values[name])
	}
	return p.write(layout.Environment, []byte(text.String()), 0o755)
}

var (
	ptpMode     = pattern.Lazy(`(?m)^\s*ptpengine:ip_mode\s*=.*$`)
	ptpInterval = pattern.Lazy(`(?m)^\s*ptpengine:log_delayreq_interval\s*=\s*(-?\d*).*$`)
)

// ptpd limits the traffic of the PTP daemon.
func (p *preparation) ptpd() error {
	const name = "/etc/ptpd.conf"
	old, err := p.read(name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !strings.Contains(string(old), "ptpengine:") {
		return nil
	}
	if err != nil {
		return err
	}
	text := setLine(string(old), ptpMode(), "ptpengine:ip_mode=hybrid")
	found := ptpInterval().FindStringSubmatch(text)
	if n, err := strconv.Atoi(strings.Join(found[min(1, len(found)):], "")); err != nil || n < 3 {
		text = setLine(text, ptpInterval(), "ptpengine:log_delayreq_interval=3")
	}
	return p.write(name, []byte(text), 0o644)
}

// setLine replaces the lines that match, or appends one.
func setLine(text string, pattern *regexp.Regexp, line string) string {
	if pattern.MatchString(text) {
		return pattern.ReplaceAllLiteralString(text, line)
	}
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	return text + line + "\n"
}

// localtime gives the image the time zone of the platform, if it knows it and does not
// keep a file of its own.
func (p *preparation) localtime() error {
	zone := filepath.Join("/usr/share/zoneinfo", p.m.config.Zone)
	if p.m.config.Zone == "" || !strings.HasPrefix(zone, "/usr/share/zoneinfo/") || !p.exists(zone) {
		return nil
	}
	info, err := p.lstat("/etc/localtime")
	if err == nil && info.Mode()&fs.ModeSymlink == 0 {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return p.link("/etc/localtime", zone)
}
