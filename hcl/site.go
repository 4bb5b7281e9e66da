package hcl

import (
	"fmt"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	hcl2 "github.com/hashicorp/hcl/v2"
)

// SitePath is where an appliance keeps its site file.
const SitePath = "/etc/walt/walt.hcl"

// Site is the configuration of one platform: the content of walt.hcl.
type Site struct {
	HostName   string      `hcl:"hostname,optional"` // default "walt-server"
	Networks   []*Network  `hcl:"network,block"`
	Access     *Access     `hcl:"access,block"`
	SSH        *SSH        `hcl:"ssh,block"`
	Database   *Database   `hcl:"database,block"`
	Registries []*Registry `hcl:"registry,block"`
	Time       *Time       `hcl:"time,block"`
	DNS        *DNS        `hcl:"dns,block"`
	Logs       *Logs       `hcl:"logs,block"`
	Journal    *Journal    `hcl:"journal,block"`
	VPN        *VPN        `hcl:"vpn,block"`
	Console    *Console    `hcl:"console,block"`

	VirtualNodes *VirtualNodes `hcl:"virtual_nodes,block"`

	Kernel   *Kernel   `hcl:"kernel,block"`
	Watchdog *Watchdog `hcl:"watchdog,block"`
}

// Network is one network of the server. The names walt-net (the platform, a bridge)
// and walt-adm (administration of switches) have a meaning; any other, as walt-out,
// is just brought up.
type Network struct {
	Name string `hcl:"name,label"`
	// Interface is the wired interface below the network, as "eth1". None for
	// walt-net means a platform of virtual nodes only.
	Interface string `hcl:"interface,optional"`
	VLAN      int    `hcl:"vlan,optional"` // 802.1Q tag 1-4094; 0: untagged
	// IP is "ADDRESS/LENGTH", host bits being the server's own address, or "dhcp"
	// (never for walt-net), or empty (no address; never for walt-net).
	IP string `hcl:"ip,optional"`
	// Gateway is the IPv4 default route through this network, if static.
	Gateway string `hcl:"gateway,optional"`

	Range hcl2.Range `hcl:",def_range"`
}

// Access says who may use the client API (TCP 12345 and 12347) besides nodes.
type Access struct {
	Clients []string `hcl:"clients,optional"` // CIDR list; default everybody
}

// SSH is the access of administrators; there is no password.
type SSH struct {
	AuthorizedKeys []string `hcl:"authorized_keys,optional"` // OpenSSH public key lines, for root
}

// Console is the access of people at the machine itself.
type Console struct {
	// PasswordHash is what `waltctl password` prints (bcrypt); empty: no password.
	PasswordHash string `hcl:"password_hash,optional"`
}

// Database points to an external PostgreSQL; empty: the appliance's own.
type Database struct {
	URL string `hcl:"url,optional"` // postgres://...
}

// Registry is a registry of container images; the order of blocks is the pull order.
type Registry struct {
	Label       string `hcl:"label,label"`
	API         string `hcl:"api"` // "docker-hub", "docker-registry-v2", "jfrog-artifactory"
	Description string `hcl:"description,optional"`
	Host        string `hcl:"host,optional"`
	Port        int    `hcl:"port,optional"`
	Protocol    string `hcl:"protocol,optional"` // "https", "http", "https-no-verify"
	Auth        string `hcl:"auth,optional"`     // "none", "basic"
	Repository  string `hcl:"repository,optional"`

	Range hcl2.Range `hcl:",def_range"`
}

// Time is the clock of the server and of its nodes.
type Time struct {
	Zone    string   `hcl:"zone,optional"`    // tz database name, default "UTC"
	Servers []string `hcl:"servers,optional"` // NTP servers
}

// DNS holds the resolvers that other names than those of walt are asked from;
// default: those obtained by DHCP.
type DNS struct {
	Forwarders []string `hcl:"forwarders,optional"`
}

// Logs bounds what the platform keeps of experiment logs.
type Logs struct {
	MaxAge  string `hcl:"max_age,optional"`  // as "90d"; empty: for ever
	MaxSize string `hcl:"max_size,optional"` // as "20G"; empty: unbounded
}

// Journal bounds what the server keeps of the lines of its own units and its kernel.
type Journal struct {
	MaxAge  string `hcl:"max_age,optional"`  // default "90d"
	MaxSize string `hcl:"max_size,optional"` // default "64M"; "16M" at least
}

// Age is MaxAge.
func (j *Journal) Age() time.Duration { return age(j.MaxAge) }

// Size is MaxSize in bytes.
func (j *Journal) Size() int64 {
	size, err := ParseSize(j.MaxSize)
	if err != nil {
		panic("internal error: a Site was not checked: " + err.Error())
	}
	return size
}

// minJournal is what is needed to look back at all.
const minJournal = 16 << 20

// Age is MaxAge; 0: for ever.
func (l *Logs) Age() time.Duration { return age(l.MaxAge) }

// age reads a checked age.
func age(text string) time.Duration {
	n := len(text)
	if n == 0 {
		return 0
	}
	number, err := strconv.Atoi(text[:n-1])
	if err != nil {
		panic("internal error: a Site was not checked: " + err.Error())
	}
	const day = 24 * time.Hour
	unit := map[byte]time.Duration{'h': time.Hour, 'd': day, 'w': 7 * day, 'y': 365 * day}[text[n-1]]
	if time.Duration(number) > math.MaxInt64/unit {
		return 0 // longer than anybody can count
	}
	return time.Duration(number) * unit
}

// Size is MaxSize in bytes; 0: unbounded.
func (l *Logs) Size() int64 {
	size, err := ParseSize(l.MaxSize)
	if err != nil {
		return 0 // it is empty
	}
	return size
}

// VirtualNodes is how the server runs the machines of virtual nodes.
type VirtualNodes struct {
	// Emulation runs them without the virtualization of the processor (KVM), some ten times
	// slower: for tests, and for servers that are virtual machines themselves. Default false:
	// virtual nodes need /dev/kvm.
	Emulation bool `hcl:"emulation,optional"`
}

// VPN is the section of the same name of server.conf.
type VPN struct {
	Enabled        bool   `hcl:"enabled"`
	SSHEntrypoint  string `hcl:"ssh_entrypoint,optional"`
	HTTPEntrypoint string `hcl:"http_entrypoint,optional"`
	BootMode       string `hcl:"boot_mode,optional"` // "permissive" (default), "enforced"
}

// WaltNet is the name of the platform network and of its bridge.
const WaltNet = "walt-net"

// WaltAdm is the name of the network where switches are administered.
const WaltAdm = "walt-adm"

var (
	registryAPIs      = []string{"docker-hub", "docker-registry-v2", "jfrog-artifactory"}
	registryProtocols = []string{"https", "http", "https-no-verify"}
	registryAuths     = []string{"none", "basic"}
	reservedLabels    = []string{"walt", "docker"}
	interfaceName     = regexp.MustCompile(`^[^\s/:]{1,15}$`)
	networkName       = regexp.MustCompile(`^[a-z][a-z0-9-]{0,14}$`)
	registryLabel     = regexp.MustCompile(`^[a-z0-9-]+$`)
	ageText           = regexp.MustCompile(`^[1-9][0-9]{0,5}[hdwy]$`)
)

// bcryptHash is compiled when it is needed: it is large, and most programs read no site file.
var bcryptHash = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^\$2[aby]\$(0[4-9]|1[0-9])\$[./A-Za-z0-9]{53}$`)
})

// ParseSite decodes and checks a site file.
func ParseSite(src []byte, name string) (*Site, error) {
	d, err := parse(src, name)
	if err != nil {
		return nil, err
	}
	site := &Site{}
	if err := d.decode(site, nil); err != nil {
		return nil, err
	}
	site.complete()
	site.check(d)
	if err := d.err(); err != nil {
		return nil, err
	}
	return site, nil
}

// LoadSite reads a site file.
func LoadSite(path string) (*Site, error) {
	src, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return ParseSite(src, path)
}

// complete fills in the defaults, so that users of a Site never test for absence.
func (s *Site) complete() {
	setDefault(&s.HostName, "walt-server")
	for _, section := range []func(){
		func() { s.Access = orNew(s.Access) },
		func() { s.SSH = orNew(s.SSH) },
		func() { s.Console = orNew(s.Console) },
		func() { s.Database = orNew(s.Database) },
		func() { s.Time = orNew(s.Time) },
		func() { s.DNS = orNew(s.DNS) },
		func() { s.Logs = orNew(s.Logs) },
		func() { s.Journal = orNew(s.Journal) },
		func() { s.VPN = orNew(s.VPN) },
		func() { s.VirtualNodes = orNew(s.VirtualNodes) },
		func() { s.Kernel = orNew(s.Kernel) },
		func() { s.Watchdog = orNew(s.Watchdog) },
	} {
		section()
	}
	setDefault(&s.Time.Zone, "UTC")
	s.Watchdog.complete()
	setDefault(&s.VPN.BootMode, "permissive")
	setDefault(&s.Journal.MaxAge, "90d")
	setDefault(&s.Journal.MaxSize, "64M")
	if s.Access.Clients == nil {
		s.Access.Clients = []string{"0.0.0.0/0", "::/0"}
	}
	if s.Registries == nil {
		s.Registries = []*Registry{hub()}
	}
	for _, r := range s.Registries {
		if r.API != "docker-hub" {
			if r.Port == 0 {
				r.Port = 443
			}
			setDefault(&r.Protocol, "https")
			setDefault(&r.Auth, "basic")
		}
	}
}

func orNew[T any](p *T) *T {
	if p == nil {
		p = new(T)
	}
	return p
}

func hub() *Registry {
	return &Registry{Label: "hub", API: "docker-hub", Description: "Public registry at hub.docker.com"}
}

// Network returns the network of that name, or nil.
func (s *Site) Network(name string) *Network {
	for _, n := range s.Networks {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// Server returns the address of the server on walt-net, with the length of its subnet.
func (s *Site) Server() netip.Prefix {
	prefix, err := netip.ParsePrefix(s.Network(WaltNet).IP)
	if err != nil {
		panic("internal error: a Site was not checked: " + err.Error())
	}
	return prefix
}

// Subnets returns those of the networks where devices of the platform are: walt-net, and
// walt-adm if its address is written here.
func (s *Site) Subnets() []netip.Prefix {
	subnets := []netip.Prefix{s.Server().Masked()}
	if adm := s.Network(WaltAdm); adm != nil {
		if prefix, err := netip.ParsePrefix(adm.IP); err == nil {
			subnets = append(subnets, prefix.Masked())
		}
	}
	return subnets
}

func (s *Site) check(d *document) {
	s.checkNetworks(d)
	s.checkRegistries(d)
	file := d.body.MissingItemRange()
	checkKernel(d, s.Kernel, file)
	s.Watchdog.check(d, file)
	for _, text := range s.Access.Clients {
		if _, err := netip.ParsePrefix(text); err != nil {
			d.refuse(&file, "Invalid access", "clients holds %q; write networks such as \"192.168.0.0/16\".", text)
		}
	}
	for _, text := range s.DNS.Forwarders {
		if _, err := netip.ParseAddr(text); err != nil {
			d.refuse(&file, "Invalid dns", "forwarders holds %q; write IP addresses.", text)
		}
	}
	for _, key := range s.SSH.AuthorizedKeys {
		if len(strings.Fields(key)) < 2 || strings.ContainsAny(key, "\n\r") {
			d.refuse(&file, "Invalid ssh", "authorized_keys holds %q; write one public key line each, as \"ssh-ed25519 AAAA... comment\".", key)
		}
	}
	if hash := s.Console.PasswordHash; hash != "" && !bcryptHash().MatchString(hash) {
		d.refuse(&file, "Invalid console", "password_hash is no hash of bcrypt; write what `waltctl password` prints.")
	}
	if s.Logs.MaxAge != "" && !ageText.MatchString(s.Logs.MaxAge) {
		d.refuse(&file, "Invalid logs", "max_age is %q; write a number of hours, days, weeks or years such as \"90d\".", s.Logs.MaxAge)
	}
	if !ageText.MatchString(s.Journal.MaxAge) {
		d.refuse(&file, "Invalid journal", "max_age is %q; write a number of hours, days, weeks or years such as \"90d\".", s.Journal.MaxAge)
	}
	if size, err := ParseSize(s.Journal.MaxSize); err != nil {
		d.refuse(&file, "Invalid journal", "max_size: %v.", err)
	} else if size < minJournal {
		d.refuse(&file, "Invalid journal", "max_size is %q; write \"16M\" or more.", s.Journal.MaxSize)
	}
	if _, err := ParseSize(s.Logs.MaxSize); s.Logs.MaxSize != "" && err != nil {
		d.refuse(&file, "Invalid logs", "max_size: %v.", err)
	}
	if !slices.Contains([]string{"permissive", "enforced"}, s.VPN.BootMode) {
		d.refuse(&file, "Invalid vpn", "boot_mode is %q; write \"permissive\" or \"enforced\".", s.VPN.BootMode)
	}
}

func (s *Site) checkNetworks(d *document) {
	seen := map[string]bool{}
	below := map[string]*Network{} // interface, or interface.vlan
	subnets := map[*Network]netip.Prefix{}
	for _, n := range s.Networks {
		refuse := func(format string, args ...any) {
			d.refuse(&n.Range, fmt.Sprintf("Invalid network %q", n.Name), format, args...)
		}
		if !networkName.MatchString(n.Name) {
			refuse("A network name is a lower-case letter followed by at most 14 letters, digits or dashes.")
		}
		if seen[n.Name] {
			refuse("This network is already defined.")
		}
		seen[n.Name] = true
		if n.Interface == "" && n.Name != WaltNet {
			refuse("interface is missing: only walt-net may have none.")
		}
		if n.Interface != "" && !interfaceName.MatchString(n.Interface) {
			refuse("interface is %q, which is not a name of a network interface.", n.Interface)
		}
		if n.VLAN < 0 || n.VLAN > 4094 {
			refuse("vlan is %d; a tag is 1 to 4094.", n.VLAN)
		}
		if n.VLAN != 0 && n.Interface == "" {
			refuse("vlan is given without interface.")
		}
		if n.Interface != "" {
			device := n.Interface
			if n.VLAN != 0 {
				device = fmt.Sprintf("%s.%d", n.Interface, n.VLAN)
			}
			if other := below[device]; other != nil {
				refuse("Networks %q and %q cannot use the same interface %s unless they use different VLANs.", other.Name, n.Name, n.Interface)
			}
			below[device] = n
		}
		s.checkAddress(n, refuse, subnets)
	}
	if s.Network(WaltNet) == nil {
		file := d.body.MissingItemRange()
		d.refuse(&file, "Missing network", "A block network \"walt-net\" with an ip is required.")
	}
}

func (s *Site) checkAddress(n *Network, refuse func(string, ...any), subnets map[*Network]netip.Prefix) {
	if n.Gateway != "" {
		if gw, err := netip.ParseAddr(n.Gateway); err != nil || !gw.Is4() {
			refuse("gateway is %q; write an IPv4 address.", n.Gateway)
		}
		if n.IP == "dhcp" {
			refuse("gateway is given although ip is \"dhcp\".")
		}
	}
	switch {
	case n.IP == "" && n.Name == WaltNet:
		refuse("ip is missing.")
	case n.IP == "dhcp" && n.Name == WaltNet:
		refuse("ip cannot be \"dhcp\": the server gives out the addresses of walt-net.")
	}
	if n.IP == "" || n.IP == "dhcp" {
		return
	}
	prefix, err := netip.ParsePrefix(n.IP)
	switch {
	case err != nil || !prefix.Addr().Is4():
		refuse("ip is %q; write an IPv4 address and a length such as \"192.168.152.1/24\".", n.IP)
		return
	case prefix.Bits() > 30:
		refuse("ip is %q; the full network must be given, with a length of at most 30.", n.IP)
		return
	case prefix.Bits() < 8:
		refuse("ip is %q; a length below 8 is not supported.", n.IP)
		return
	case prefix.Masked().Addr() == prefix.Addr():
		refuse("ip is %q, which is the address of the network itself; give the address of the server.", n.IP)
		return
	case lastAddr(prefix) == prefix.Addr():
		refuse("ip is %q, which is the broadcast address; give the address of the server.", n.IP)
		return
	}
	for other, subnet := range subnets {
		if subnet.Overlaps(prefix) {
			refuse("Its addresses overlap those of network %q (%s).", other.Name, subnet.Masked())
		}
	}
	subnets[n] = prefix
}

// lastAddr returns the broadcast address of an IPv4 prefix.
func lastAddr(p netip.Prefix) netip.Addr {
	a := p.Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		a[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(a)
}

func (s *Site) checkRegistries(d *document) {
	labels := map[string]bool{}
	for _, r := range s.Registries {
		refuse := func(format string, args ...any) {
			d.refuse(&r.Range, fmt.Sprintf("Invalid registry %q", r.Label), format, args...)
		}
		oneOf := func(field, value string, allowed []string) {
			if !slices.Contains(allowed, value) {
				refuse("%s is %q; it must be one of %s.", field, value, strings.Join(allowed, ", "))
			}
		}
		if !registryLabel.MatchString(r.Label) {
			refuse("Only lowercase chars, digits, and dash (\"-\") are allowed.")
		}
		if slices.Contains(reservedLabels, r.Label) {
			refuse("Value %q is reserved.", r.Label)
		}
		if labels[r.Label] {
			refuse("%q cannot be used several times as a registry label.", r.Label)
		}
		labels[r.Label] = true
		oneOf("api", r.API, registryAPIs)
		if (r.Label == "hub") != (r.API == "docker-hub") {
			refuse("Label \"hub\" and api \"docker-hub\" go together.")
		}
		if len(r.Description) > 35 {
			refuse("The description should not exceed 35 chars.")
		}
		if r.API == "docker-hub" {
			continue
		}
		oneOf("protocol", r.Protocol, registryProtocols)
		oneOf("auth", r.Auth, registryAuths)
		if r.Host == "" {
			refuse("host is missing.")
		}
		if r.Port < 1 || r.Port > 65535 {
			refuse("port is %d; a TCP port is 1 to 65535.", r.Port)
		}
		if (r.API == "jfrog-artifactory") != (r.Repository != "") {
			refuse("repository is given for, and only for, api \"jfrog-artifactory\".")
		}
	}
}
