package hcl

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// ServerConfPath is where upstream keeps its configuration.
const ServerConfPath = "/etc/walt/server.conf"

// ParseServerConf reads upstream's server.conf (YAML, or JSON, which YAML covers;
// server-setup.md section 1) into a [Site], with upstream's defaults and its
// sanitising of the vpn section. Unlike upstream, everything is validated and every
// refusal names its line; unknown top-level keys are refused, so that nothing an
// administrator wrote is dropped silently.
func ParseServerConf(src []byte, name string) (*Site, error) {
	if len(src) > MaxFileSize {
		return nil, fmt.Errorf("cannot read %s: larger than %d bytes", name, MaxFileSize)
	}
	c := &serverConf{name: name, site: &Site{}}
	c.read(src)
	if len(c.problems) > 0 {
		return nil, errors.Join(c.problems...)
	}
	// The site goes through the same checks as one written in HCL.
	text := FormatSite(c.site)
	site, err := ParseSite(text, name+" (as HCL)")
	if err != nil {
		return nil, err
	}
	return site, nil
}

// LoadServerConf reads a server.conf file.
func LoadServerConf(path string) (*Site, error) {
	src, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return ParseServerConf(src, path)
}

type serverConf struct {
	name     string
	site     *Site
	problems []error
}

func (c *serverConf) refuse(at *yaml.Node, format string, args ...any) {
	c.problems = append(c.problems, fmt.Errorf("%s:%d: %s", c.name, at.Line, fmt.Sprintf(format, args...)))
}

func (c *serverConf) read(src []byte) {
	var doc yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(src))
	if err := decoder.Decode(&doc); err != nil {
		c.problems = append(c.problems, fmt.Errorf("%s is not valid yaml or json: %w", c.name, err))
		return
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		c.problems = append(c.problems, fmt.Errorf("%s: the file must be a mapping with at least the key network", c.name))
		return
	}
	sections := map[string]func(*yaml.Node){
		"network":    c.networks,
		"registries": c.registries,
		"services":   func(*yaml.Node) {}, // documented upstream, read by nothing
		"vpn":        c.vpn,
	}
	c.each(doc.Content[0], func(key, value *yaml.Node) {
		section := sections[key.Value]
		if section == nil {
			c.unknown(key, []string{"network", "registries", "services", "vpn"})
			return
		}
		section(value)
	})
	if c.site.Network(WaltNet) == nil {
		c.refuse(doc.Content[0], "network.walt-net is missing.")
	}
}

// each visits the entries of a mapping; anything else is refused. Aliases are not
// followed: upstream never writes them, and they can be made to explode.
func (c *serverConf) each(mapping *yaml.Node, visit func(key, value *yaml.Node)) {
	if mapping.Kind != yaml.MappingNode {
		c.refuse(mapping, "a mapping of names to values is expected here.")
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		key, value := mapping.Content[i], mapping.Content[i+1]
		if seen[key.Value] {
			c.refuse(key, "%q is given twice.", key.Value)
			continue
		}
		seen[key.Value] = true
		visit(key, value)
	}
}

func (c *serverConf) unknown(key *yaml.Node, known []string) {
	hint := ""
	if near := nearest(key.Value, known); near != "" {
		hint = fmt.Sprintf(" Did you mean %q?", near)
	}
	c.refuse(key, "%q is not a known key.%s", key.Value, hint)
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

func (c *serverConf) text(n *yaml.Node, into *string) {
	if isNull(n) {
		return
	}
	if n.Kind != yaml.ScalarNode {
		c.refuse(n, "a text is expected here.")
		return
	}
	*into = n.Value
}

func (c *serverConf) number(n *yaml.Node, into *int) {
	if isNull(n) {
		return
	}
	if n.Kind != yaml.ScalarNode || n.Tag != "!!int" || n.Decode(into) != nil {
		c.refuse(n, "an integer is expected here, not %q.", n.Value)
	}
}

func (c *serverConf) networks(section *yaml.Node) {
	c.each(section, func(name, entries *yaml.Node) {
		network := &Network{Name: name.Value}
		c.fields(entries, map[string]*string{"raw-device": &network.Interface, "ip": &network.IP}, map[string]*int{"vlan": &network.VLAN})
		c.site.Networks = append(c.site.Networks, network)
	})
}

// fields reads a mapping whose keys are known, by the type of their values.
func (c *serverConf) fields(mapping *yaml.Node, texts map[string]*string, numbers map[string]*int) {
	c.each(mapping, func(key, value *yaml.Node) {
		if into := texts[key.Value]; into != nil {
			c.text(value, into)
		} else if into := numbers[key.Value]; into != nil {
			c.number(value, into)
		} else {
			c.unknown(key, append(slices.Sorted(maps.Keys(texts)), slices.Sorted(maps.Keys(numbers))...))
		}
	})
}

func (c *serverConf) registries(section *yaml.Node) {
	if section.Kind != yaml.SequenceNode {
		c.refuse(section, "registries must be a list.")
		return
	}
	for _, item := range section.Content {
		r := &Registry{}
		c.fields(item, map[string]*string{
			"label": &r.Label, "api": &r.API, "description": &r.Description, "host": &r.Host,
			"protocol": &r.Protocol, "auth": &r.Auth, "repository": &r.Repository,
		}, map[string]*int{"port": &r.Port})
		c.site.Registries = append(c.site.Registries, r)
	}
}

// vpn applies upstream's sanitising: only the exact sets of keys it writes enable
// the VPN, anything else disables it.
func (c *serverConf) vpn(section *yaml.Node) {
	vpn := &VPN{}
	c.site.VPN = vpn
	var keys []string
	enabled := false
	c.each(section, func(key, value *yaml.Node) {
		keys = append(keys, key.Value)
		switch key.Value {
		case "enabled":
			if value.Decode(&enabled) != nil {
				c.refuse(value, "enabled must be true or false.")
			}
		case "ssh-entrypoint":
			c.text(value, &vpn.SSHEntrypoint)
		case "http-entrypoint":
			c.text(value, &vpn.HTTPEntrypoint)
		case "boot-mode":
			c.text(value, &vpn.BootMode)
		}
	})
	slices.Sort(keys)
	settings := []string{"boot-mode", "http-entrypoint", "ssh-entrypoint"}
	vpn.Enabled = slices.Equal(keys, settings) ||
		enabled && slices.Equal(keys, []string{"boot-mode", "enabled", "http-entrypoint", "ssh-entrypoint"})
	if !vpn.Enabled {
		*vpn = VPN{}
	}
}

// FormatSite writes a site file: the inverse of [ParseSite]. Settings that have
// their default value are left out.
func FormatSite(s *Site) []byte {
	var w siteWriter
	w.line("# WalT server configuration: see README.md for every block and attribute.")
	w.line("")
	if s.HostName != "" && s.HostName != "walt-server" {
		w.text("hostname", s.HostName)
		w.line("")
	}
	for _, n := range s.Networks {
		w.line("# %s", networkPurpose(n.Name))
		w.block("network", n.Name, func() {
			w.text("interface", n.Interface)
			w.number("vlan", n.VLAN)
			w.text("ip", n.IP)
			w.text("gateway", n.Gateway)
		})
	}
	if a := s.Access; a != nil && !slices.Equal(a.Clients, []string{"0.0.0.0/0", "::/0"}) {
		w.block("access", "", func() { w.list("clients", a.Clients) })
	}
	if k := s.SSH; k != nil && len(k.AuthorizedKeys) > 0 {
		w.block("ssh", "", func() { w.list("authorized_keys", k.AuthorizedKeys) })
	}
	if db := s.Database; db != nil && db.URL != "" {
		w.block("database", "", func() { w.text("url", db.URL) })
	}
	for _, r := range s.Registries {
		w.block("registry", r.Label, func() {
			w.text("api", r.API)
			w.text("description", r.Description)
			w.text("host", r.Host)
			w.number("port", r.Port)
			w.text("protocol", r.Protocol)
			w.text("auth", r.Auth)
			w.text("repository", r.Repository)
		})
	}
	if t := s.Time; t != nil && (t.Zone != "UTC" || len(t.Servers) > 0) {
		w.block("time", "", func() {
			w.text("zone", t.Zone)
			w.list("servers", t.Servers)
		})
	}
	if d := s.DNS; d != nil && len(d.Forwarders) > 0 {
		w.block("dns", "", func() { w.list("forwarders", d.Forwarders) })
	}
	if l := s.Logs; l != nil && (l.MaxAge != "" || l.MaxSize != "") {
		w.block("logs", "", func() {
			w.text("max_age", l.MaxAge)
			w.text("max_size", l.MaxSize)
		})
	}
	if v := s.VPN; v != nil && v.Enabled {
		w.block("vpn", "", func() {
			w.line("  enabled = true")
			w.text("ssh_entrypoint", v.SSHEntrypoint)
			w.text("http_entrypoint", v.HTTPEntrypoint)
			w.text("boot_mode", v.BootMode)
		})
	}
	return append(bytes.TrimRight(w.Bytes(), "\n"), '\n')
}

// networkPurpose is what upstream's setup tool writes above each network.
func networkPurpose(name string) string {
	switch name {
	case WaltNet:
		return "platform network"
	case WaltAdm:
		return "switches admin network"
	default:
		return "unmanaged network"
	}
}

type siteWriter struct {
	bytes.Buffer
	depth int
}

func (w *siteWriter) line(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }

func (w *siteWriter) block(kind, label string, body func()) {
	if label != "" {
		kind += " " + quote(label)
	}
	w.line("%s {", kind)
	w.depth++
	body()
	w.depth--
	w.line("}\n")
}

func (w *siteWriter) indent() string { return strings.Repeat("  ", w.depth) }

func (w *siteWriter) text(name, value string) {
	if value != "" {
		w.line("%s%s = %s", w.indent(), name, quote(value))
	}
}

func (w *siteWriter) number(name string, value int) {
	if value != 0 {
		w.line("%s%s = %d", w.indent(), name, value)
	}
}

func (w *siteWriter) list(name string, values []string) {
	if len(values) == 0 {
		return
	}
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = quote(v)
	}
	w.line("%s%s = [%s]", w.indent(), name, strings.Join(quoted, ", "))
}
