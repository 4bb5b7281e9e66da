package hcl

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	hcl2 "github.com/hashicorp/hcl/v2"
)

const goodSite = `
network "walt-net" {
  interface = "eth1"
  ip        = "192.168.152.1/24"
}
network "walt-out" {
  interface = "eth0"
  ip        = "dhcp"
}
ssh {
  authorized_keys = ["ssh-ed25519 AAAA admin@desk"]
}
`

func TestSiteDefaults(t *testing.T) {
	site, err := ParseSite([]byte(goodSite), "walt.hcl")
	if err != nil {
		t.Fatal(err)
	}
	if got := site.Server().String(); got != "192.168.152.1/24" {
		t.Errorf("server is %s", got)
	}
	if site.HostName != "walt-server" || site.Time.Zone != "UTC" || len(site.Registries) != 1 || site.Registries[0].Label != "hub" {
		t.Errorf("defaults are %+v", site)
	}
}

// Every refusal must name the file and line and say what to write instead.
func TestSiteRefusals(t *testing.T) {
	walt := func(body string) string { return "network \"walt-net\" {\n" + body + "\n}\n" }
	for name, c := range map[string]struct{ src, place, text string }{
		"typo":          {walt("interfase = \"eth1\"\nip = \"192.168.152.1/24\""), "walt.hcl line 2", `Did you mean "interface"`},
		"syntax":        {walt("ip = "), "walt.hcl line 2", "Invalid expression"},
		"type":          {walt("ip = [1]"), "walt.hcl line 2", "string required"},
		"no walt-net":   {"hostname = \"x\"\n", "walt.hcl line", "walt-net"},
		"no ip":         {walt(""), "walt.hcl line 1", "ip is missing"},
		"dhcp":          {walt("ip = \"dhcp\""), "walt.hcl line 1", "cannot be \"dhcp\""},
		"host only":     {walt("ip = \"192.168.152.1/32\""), "walt.hcl line 1", "full network"},
		"network addr":  {walt("ip = \"192.168.152.0/24\""), "walt.hcl line 1", "address of the network itself"},
		"broadcast":     {walt("ip = \"192.168.152.255/24\""), "walt.hcl line 1", "broadcast"},
		"vlan alone":    {walt("ip = \"192.168.152.1/24\"\nvlan = 3"), "walt.hcl line 1", "vlan is given without interface"},
		"twice":         {goodSite + walt("ip = \"10.0.0.1/24\""), "walt.hcl line 13", "already defined"},
		"same device":   {goodSite + "network \"walt-adm\" {\n interface = \"eth1\"\n}\n", "walt.hcl line 13", "cannot use the same interface eth1"},
		"overlap":       {goodSite + "network \"walt-adm\" {\n interface = \"eth2\"\n ip = \"192.168.0.1/16\"\n}\n", "walt.hcl line 13", "overlap"},
		"registry":      {goodSite + "registry \"Hub\" {\n api = \"docker-hub\"\n}\n", "walt.hcl line 13", "lowercase"},
		"unknown block": {goodSite + "netwrk \"x\" {}\n", "walt.hcl line 13", `Did you mean "network"`},
		"key":           {strings.Replace(goodSite, "ssh-ed25519 AAAA admin@desk", "AAAA", 1), "walt.hcl line", "authorized_keys"},
		"journal age":   {goodSite + "journal {\n max_age = \"\\n\"\n}\n", "walt.hcl line", "90d"},
		"journal size":  {goodSite + "journal {\n max_size = \"1M\"\n}\n", "walt.hcl line", "16M"},
		"log age":       {goodSite + "logs {\n max_age = \"soon\"\n}\n", "walt.hcl line", "90d"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseSite([]byte(c.src), "walt.hcl")
			if err == nil {
				t.Fatal("accepted")
			}
			for _, want := range []string{c.place, c.text} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error lacks %q:\n%v", want, err)
				}
			}
		})
	}
}

func TestFormatSiteIsTheInverseOfParseSite(t *testing.T) {
	src := goodSite + `
hostname = "lab"
access {
  clients = ["10.0.0.0/8"]
}
registry "local" {
  api  = "docker-registry-v2"
  host = "registry.example"
  description = "with $${template} and \"quotes\""
}
time {
  zone = "Europe/Paris"
  servers = ["ntp.example"]
}
dns {
  forwarders = ["9.9.9.9"]
}
logs {
  max_age = "90d"
  max_size = "20G"
}
vpn {
  enabled = true
  ssh_entrypoint = "a.example"
  http_entrypoint = "b.example"
}
database {
  url = "postgres://db.example/walt"
}
`
	first, err := ParseSite([]byte(src), "a.hcl")
	if err != nil {
		t.Fatal(err)
	}
	second, err := ParseSite(FormatSite(first), "b.hcl")
	if err != nil {
		t.Fatalf("%v\n%s", err, FormatSite(first))
	}
	if diff := cmp.Diff(first, second, cmpopts.IgnoreTypes(hcl2.Range{})); diff != "" {
		t.Error(diff)
	}
}

func TestServerConf(t *testing.T) {
	yamlText := `# WalT server configuration file.
network:
    # platform network
    walt-net:
        raw-device: eth1
        vlan: 12
        ip: 192.168.12.1/24
    walt-out:
        raw-device: eth0
        ip: dhcp
registries:
    - label: hub
      api: docker-hub
      description: Public registry at hub.docker.com
    - {label: local, api: docker-registry-v2, description: Ours, host: 10.1.1.1, port: 5000, protocol: http, auth: none}
vpn:
    enabled: false
    boot-mode: enforced
`
	jsonText := `{"network": {"walt-net": {"raw-device": "eth1", "vlan": 12, "ip": "192.168.12.1/24"},
"walt-out": {"raw-device": "eth0", "ip": "dhcp"}},
"registries": [{"label": "hub", "api": "docker-hub", "description": "Public registry at hub.docker.com"},
{"label": "local", "api": "docker-registry-v2", "description": "Ours", "host": "10.1.1.1", "port": 5000, "protocol": "http", "auth": "none"}]}`
	fromYAML, err := ParseServerConf([]byte(yamlText), "server.conf")
	if err != nil {
		t.Fatal(err)
	}
	fromJSON, err := ParseServerConf([]byte(jsonText), "server.conf")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(fromYAML, fromJSON, cmpopts.IgnoreTypes(hcl2.Range{})); diff != "" {
		t.Error(diff)
	}
	if fromYAML.Network("walt-net").VLAN != 12 || len(fromYAML.Registries) != 2 || fromYAML.Registries[1].Port != 5000 || fromYAML.VPN.Enabled {
		t.Errorf("read as %s", FormatSite(fromYAML))
	}
	virtual, err := ParseServerConf([]byte("network: {walt-net: {raw-device: null, ip: 192.168.3.1/24}}"), "server.conf")
	if err != nil || virtual.Network("walt-net").Interface != "" {
		t.Errorf("virtual-only platform: %v, %v", virtual, err)
	}
}

func TestServerConfRefusals(t *testing.T) {
	for name, c := range map[string]struct{ src, text string }{
		"garbage":       {"\x00\x01{{{", "not valid yaml or json"},
		"empty":         {"", "not valid yaml or json"},
		"list":          {"- a", "mapping"},
		"no walt-net":   {"network: {}", "server.conf:1: network.walt-net is missing"},
		"unknown key":   {"network: {walt-net: {ip: 10.0.0.1/24}}\nregistry: []\n", `server.conf:2: "registry" is not a known key`},
		"typo":          {"network:\n  walt-net:\n    raw-devise: eth0\n    ip: 10.0.0.1/24\n", `server.conf:3: "raw-devise" is not a known key. Did you mean "raw-device"?`},
		"vlan text":     {"network:\n  walt-net:\n    vlan: a\n    ip: 10.0.0.1/24\n", "server.conf:3: an integer"},
		"bad ip":        {"network: {walt-net: {ip: 10.0.0.1}}", "ip is \"10.0.0.1\""},
		"alias":         {"network: &a {walt-net: *a}", "mapping"},
		"registry list": {"network: {walt-net: {ip: 10.0.0.1/24}}\nregistries: 3\n", "server.conf:2: registries must be a list"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseServerConf([]byte(c.src), "server.conf")
			if err == nil || !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v, want %q", err, c.text)
			}
		})
	}
}

func TestUnitDefaultsAndRefusals(t *testing.T) {
	units, err := ParseUnits([]byte(`unit "sshd" {
  exec = ["/usr/sbin/sshd", "-D"]
}`), "u.hcl")
	if err != nil {
		t.Fatal(err)
	}
	u := units[0]
	if u.Type != "service" || u.User != "root" || u.Restart.Policy != "always" || u.Limits.Files != 16384 || u.Shutdown.Signal != "TERM" {
		t.Errorf("defaults are %+v", u)
	}
	for name, c := range map[string]struct{ body, text string }{
		"no exec":   {``, "exec is missing"},
		"relative":  {`exec = ["sshd"]`, "absolute path"},
		"type":      {"exec = [\"/a\"]\ntype = \"daemon\"", "must be one of service"},
		"two kinds": {"exec = [\"/a\"]\nready {\n notify = true\n tcp = \"a:1\"\n}", "2 kinds"},
		"duration":  {"exec = [\"/a\"]\nrestart {\n delay = \"1\"\n}", "duration"},
		"give up":   {"exec = [\"/a\"]\nrestart {\n give_up = \"often\"\n}", "N in DURATION"},
		"memory":    {"exec = [\"/a\"]\nlimits {\n memory = \"much\"\n}", "not a size"},
		"socket":    {"exec = [\"/a\"]\nsocket \"s\" {\n listen = \"12345\"\n}", "tcp:ADDR:PORT"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseUnits([]byte("unit \"a\" {\n"+c.body+"\n}"), "u.hcl")
			if err == nil || !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), "u.hcl") {
				t.Errorf("got %v, want %q", err, c.text)
			}
		})
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "12": 12, "4K": 4096, "512M": 512 << 20, "2G": 2 << 30} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "M", "-1", "1.5G", "12 M", "9999999999T", "1MM"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("ParseSize(%q) = %d", text, got)
		}
	}
}

func FuzzParseSite(f *testing.F) {
	f.Add([]byte(goodSite))
	f.Fuzz(func(t *testing.T, src []byte) {
		site, err := ParseSite(src, "walt.hcl")
		if err != nil {
			return
		}
		if _, err := ParseSite(FormatSite(site), "again.hcl"); err != nil {
			t.Errorf("an accepted site is refused once formatted: %v\n%s", err, FormatSite(site))
		}
	})
}

func FuzzParseServerConf(f *testing.F) {
	f.Add([]byte("network: {walt-net: {raw-device: null, ip: 192.168.3.1/24}}"))
	f.Fuzz(func(t *testing.T, src []byte) { ParseServerConf(src, "server.conf") })
}

func FuzzParseUnits(f *testing.F) {
	f.Add([]byte(`unit "sshd" { exec = ["/usr/sbin/sshd"] }`))
	f.Add([]byte(exampleUnit))
	f.Fuzz(func(t *testing.T, src []byte) {
		units, err := ParseUnits(src, "u.hcl")
		if err != nil || CheckGraph(units) != nil {
			return
		}
		for _, u := range units {
			if d := Differences(u, u); len(d) != 0 {
				t.Errorf("a unit differs from itself: %v", d)
			}
		}
	})
}
