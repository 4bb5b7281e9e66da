package hcl

import (
	"strings"
	"testing"
)

func TestSetNetwork(t *testing.T) {
	const before = `# the platform
network "walt-net" {
  interface = "eth1" # lab switch
  ip        = "192.168.152.1/24"
}

network "walt-out" {
  interface = "eth0"
  ip        = "10.0.0.9/24"
  gateway   = "10.0.0.1"
}
time { zone = "Europe/Paris" }
`
	for _, c := range []struct {
		network Network
		want    string // what has changed: a line of the result
		gone    string
	}{
		{Network{Name: "walt-net", Interface: "eth2", IP: "192.168.153.1/24"}, `interface = "eth2" # lab switch`, "eth1"},
		{Network{Name: "walt-net", IP: "192.168.152.1/24"}, `ip = "192.168.152.1/24"`, "eth1"},
		{Network{Name: "walt-out", Interface: "eth0", IP: "dhcp"}, `"dhcp"`, "gateway"},
		{Network{Name: "walt-out"}, "walt-net", "walt-out"},
		{Network{Name: "walt-adm", Interface: "eth3", IP: "10.1.0.1/24"}, `network "walt-adm" {`, "nothing"},
	} {
		got, err := SetNetwork([]byte(before), "walt.hcl", c.network)
		if err != nil || !strings.Contains(string(got), c.want) || strings.Contains(string(got), c.gone) ||
			!strings.Contains(string(got), "# the platform\n") || !strings.Contains(string(got), "Europe/Paris") {
			t.Errorf("%+v: %v\n%s", c.network, err, got)
		}
	}
	for _, n := range []Network{
		{Name: "walt-net"}, {Name: "walt-net", IP: "dhcp"}, {Name: "walt-out", Interface: "eth1", IP: "dhcp"}, {Name: "Bad name", Interface: "eth5"},
	} {
		if got, err := SetNetwork([]byte(before), "walt.hcl", n); err == nil {
			t.Errorf("%+v became\n%s", n, got)
		}
	}
	if _, err := SetNetwork([]byte("network {"), "walt.hcl", Network{Name: "walt-net", IP: "10.0.0.1/24"}); err == nil {
		t.Error("a broken file was changed")
	}
}

func TestConsolePassword(t *testing.T) {
	const hash = "$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy"
	text := "network \"walt-net\" {\n  ip = \"192.168.152.1/24\"\n}\nconsole {\n  password_hash = \"" + hash + "\"\n}\n"
	site, err := ParseSite([]byte(text), "walt.hcl")
	if err != nil || site.Console.PasswordHash != hash {
		t.Fatalf("%+v, %v", site, err)
	}
	public, _, err := WithoutSecrets([]byte(text), "/x")
	if err != nil || strings.Contains(string(public), hash[10:]) {
		t.Errorf("%v\n%s", err, public)
	}
	if _, err := ParseSite([]byte(strings.Replace(text, hash, "secret", 1)), "walt.hcl"); err == nil || !strings.Contains(err.Error(), "waltctl password") {
		t.Error(err)
	}
}

// FuzzSetNetwork: whatever the file and the answers are, what comes out is valid and says
// what was asked for.
func FuzzSetNetwork(f *testing.F) {
	f.Add("network \"walt-net\" {\n  ip = \"192.168.152.1/24\"\n}\n", "walt-out", "eth0", "10.0.0.2/24", "10.0.0.1")
	f.Add("# x\nnetwork \"walt-net\" { ip = \"192.168.152.1/24\" }", "walt-net", "eth${1}", "192.168.153.1/24", "")
	f.Fuzz(func(t *testing.T, text, name, device, ip, gateway string) {
		got, err := SetNetwork([]byte(text), "walt.hcl", Network{Name: name, Interface: device, IP: ip, Gateway: gateway})
		if err != nil {
			return
		}
		site, err := ParseSite(got, "walt.hcl")
		if err != nil {
			t.Fatalf("%v\n%s", err, got)
		}
		n := site.Network(name)
		switch {
		case device == "" && ip == "":
			if n != nil {
				t.Fatalf("%q is still there:\n%s", name, got)
			}
		case n == nil || n.Interface != device || n.IP != ip || n.Gateway != gateway:
			t.Fatalf("%+v is in\n%s", n, got)
		}
	})
}
