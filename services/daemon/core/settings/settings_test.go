package settings

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/waltos/waltos/services/daemon/core/registry"
	"github.com/waltos/waltos/services/daemon/core/text"
	"github.com/waltos/waltos/services/daemon/db"
)

func platform() *registry.View {
	r := registry.New(netip.MustParsePrefix("192.168.152.1/24"))
	r.Put(
		db.Device{MAC: "02:00:00:00:00:01", IP: "192.168.152.1", Name: "walt-server", Type: registry.Server},
		db.Device{MAC: "52:54:00:00:00:02", IP: "192.168.152.2", Name: "vn1", Type: registry.Node, Virtual: true, Image: "a/b:latest"},
		db.Device{MAC: "02:00:00:00:00:03", IP: "192.168.152.3", Name: "rpi1", Type: registry.Node, Image: "a/b:latest"},
		db.Device{MAC: "02:00:00:00:00:04", IP: "192.168.152.4", Name: "rpi2", Type: registry.Node, Image: "a/b:latest",
			Conf: map[string]any{"expose": "80:8080"}},
		db.Device{MAC: "02:00:00:00:00:05", IP: "10.0.0.5", Name: "sw", Type: registry.Switch,
			Conf: map[string]any{"lldp.explore": true, "snmp.version": int64(2), "snmp.community": "c"}},
		db.Device{MAC: "02:00:00:00:00:06", Name: "sw2", Type: registry.Switch},
		db.Device{MAC: "02:00:00:00:00:07", Name: "unknown-000007", Type: registry.Unknown},
	)
	return r.View()
}

func nobody() (string, error) { return "nobody", nil }

func TestCheck(t *testing.T) {
	const reboot = "Done. Reboot node(s) to see new settings in effect.\n"
	tests := []struct {
		set, args string // arguments separated by blanks
		want      string // answer or refusal
	}{
		{"rpi1", "x", text.NeedSettings},
		{"rpi1", "x=1", "Unknown setting 'x'. See: 'walt help show device-config'\n"},
		{"rpi1", "netsetup=nat", reboot},
		{"rpi1,sw", "netsetup=nat", "Failed: Device sw is not a device managed inside walt-net.\n"},
		{"sw,server", "netsetup=nat", "Failed: Device sw is not a device managed inside walt-net, and walt-server is the WALT server.\n"},
		{"rpi1", "netsetup=x", "Failed: netsetup value should be 'NAT' or 'LAN'.\n"},
		{"rpi1", "boot.retries=3", text.Done},
		{"rpi1", "boot.retries=-3", "Failed: '-3' is not a valid value for option 'boot.retries'.\n        Use for example '2' for retrying twice after a failed boot, '0' to disable.\n"},
		{"rpi1", "boot.timeout=none", text.Done},
		{"rpi1", "boot.timeout=60", text.Done},
		{"rpi1", "boot.timeout=59", "Failed: A boot timeout of 59s is probably too small for some OS images.\n        Only \"none\" and values higher than 60 are allowed for this setting.\n"},
		{"sw,server", "boot.timeout=60", "Failed: devices sw and walt-server are not  nodes, so they do not support the 'boot.timeout' setting.\n"},
		{"rpi1", "ram=1G", "Failed: Node rpi1 is not virtual, so 'ram' setting is not supported.\n"},
		{"rpi1,sw", "ram=1G", "Failed: Device sw is not a node, and node rpi1 is not virtual, so 'ram' setting is not supported.\n"},
		{"vn1", "ram=1G cpu.cores=2 boot.delay=random", reboot},
		{"vn1", "ram=1T", "Failed: '1T' is not a valid value for ram (expecting for instance 512M or 1G).\n"},
		{"vn1", "disks=8G,1T[template=ext4]", reboot},
		{"vn1", "disks=8", "Failed: Could not parse disks value '8'.\n        Check 'walt help show device-config' for more info.\n"},
		{"vn1", "disks=8G[x=y]", "Failed: 'x=y' is not a valid disk option.\n        Check 'walt help show device-config' for more info.\n"},
		{"vn1", "disks=8G[]", "Failed: '' is not a valid disk option.\n        Check 'walt help show device-config' for more info.\n"},
		{"vn1", "disks=8G[template=]", "Failed: 'template=' is not a valid disk option.\n        Check 'walt help show device-config' for more info.\n"},
		{"vn1", "disks=8G[template=y]", "Failed: Disk template must be one of: none ext4 fat32 hybrid-boot-v hybrid-boot-p\n        Check 'walt help show device-config' for more info.\n"},
		{"vn1", "networks=walt-net,home[lat=8ms,bw=100Mbps]", reboot},
		{"vn1", "networks=home", "Failed: Mandatory network 'walt-net' is missing from specified networks.\n        Check 'walt help show device-config' for more info.\n"},
		{"vn1", "networks=walt-net,walt-net", "Failed: Specifying twice the same network name is not allowed.\n        Check 'walt help show device-config' for more info.\n"},
		{"vn1", "networks=walt-net[]", "Failed: '' is not a valid network resource restriction.\n        Check 'walt help show device-config' for more info.\n"},
		{"vn1", "networks=walt-net[x]", "Failed: 'x' is not a valid network resource restriction.\n        Check 'walt help show device-config' for more info.\n"},
		{"vn1", "disks=0G", "Failed: cannot use \"0G\" as disks: disk \"0G\" has no size.\n        Check 'walt help show device-config' for more info.\n"},
		{"vn1", "networks=walt-net,longer-than-names", "Failed: cannot use \"walt-net,longer-than-names\" as networks: the name of network longer-than-names has more than 15 letters.\n        Check 'walt help show device-config' for more info.\n"},
		{"vn1", "ram=9999999G", "Failed: cannot use \"9999999G\" as ram: it is no size such as 512M or 1G.\n        Check 'walt help show device-config' for more info.\n"},
		{"vn1", "cpu.cores=1000", "Failed: cannot use \"1000\" as cpu_cores: it is no number up to 255.\n        Check 'walt help show device-config' for more info.\n"},
		{"rpi1", "expose=80:8081,443:8443", text.Done},
		{"rpi1", "expose=80:8080", "Failed: server port '8080' is already used for another redirect.\n"},
		{"rpi1", "expose=80:1,80:2", "Failed: cannot use several times the same device port number.\n"},
		{"rpi1", "expose=80:1,81:1", "Failed: cannot use several times the same server port number.\n"},
		{"rpi1,rpi2", "expose=80:1", "Failed: cannot expose the same server port for several devices.\n"},
		{"rpi1", "mount.persist=maybe", "Failed: setting 'mount.persist' only allows values 'true' or 'false'.\n"},
		{"rpi1", "lldp.explore=true", "Failed: device rpi1 is not a switch, so 'lldp.explore' setting cannot be applied.\n"},
		{"sw2", "lldp.explore=true", "Failed: cannot set 'lldp.explore' to true unless 'snmp.version' and 'snmp.community' are defined too.\n"},
		{"sw2", "lldp.explore=true snmp.version=2", "Failed: cannot set 'lldp.explore' to true unless 'snmp.version' and 'snmp.community' are defined too.\n"},
		{"sw2", "lldp.explore=true snmp.version=2 snmp.community=p", text.Done},
		{"sw", "poe.reboots=true", text.Done},
		{"sw2", "poe.reboots=true", "Failed: cannot set 'poe.reboots' to true unless 'lldp.explore' is set to true too.\n"},
		{"sw2", "snmp.version=3", "Failed: value of setting 'snmp.version' should be '1' or '2'.\n"},
		{"unknown-000007", "type=switch snmp.version=2", text.Done},
		{"unknown-000007", "type=node", "Failed: setting 'type' only allows value 'switch'.\n"},
		{"sw,unknown-000007", "snmp.version=2 type=switch", "Failed: setting 'type' can only be applied to unknown devices.\n"},
		{"rpi1", "snmp.version=2 type=switch", "Failed: setting 'type' can only be applied to unknown devices.\n"},
		{"rpi1,rpi2", "snmp.version=2", "Failed: devices rpi1 and rpi2 are not  switches, so 'snmp.version' setting cannot be applied.\n"},
		{"sw", "lldp.explore=yes", "Failed: setting 'lldp.explore' only allows values 'true' or 'false'.\n"},
		{"sw", "poe.reboots=", "Failed: setting 'poe.reboots' only allows values 'true' or 'false'.\n"},
		{"sw", "lldp.explore=false poe.reboots=true", "Failed: cannot set 'poe.reboots' to true unless 'lldp.explore' is set to true too.\n"},
		{"sw,sw2", "poe.reboots=true", "Failed: cannot set 'poe.reboots' to true unless 'lldp.explore' is set to true too.\n"},
		{"rpi1", "kexec.allow=1", "Failed: setting 'kexec.allow' only allows values 'true' or 'false'.\n"},
		{"rpi1", "boot.timeout=x", "Failed: 'x' is not a valid value for option 'boot.timeout'.\n        Use for example '180' for waiting 3 minutes before considering the node is stuck and force-rebooting it, or 'none' to disable.\n"},
		{"vn1", "boot.delay=-1", "Failed: '-1' is not a valid value for option 'boot.delay'.\n        Use for example '2' for 2s, '0' to disable, 'random' for a random delay between 1 and 10s.\n"},
		{"vn1", "boot.delay=0 boot.retries=0", reboot},
		{"vn1", "cpu.cores=-1", "Failed: '-1' is not a valid value for cpu.cores (expecting for instance 1 or 4).\n"},
		{"vn1", "disks=none", reboot},
		{"vn1", "networks=Walt-net", "Failed: Could not parse networks value 'Walt-net'.\n        Check 'walt help show device-config' for more info.\n"},
		{"vn1", "networks=walt-net,home[LAT=8MS,bw=1gbps]", reboot},
		{"sw,server,rpi1", "ram=1G", "Failed: Devices sw and walt-server are not  nodes, and node rpi1 is not virtual, so 'ram' setting is not supported.\n"},
		{"sw,sw2,server", "netsetup=LAN", "Failed: Devices sw and sw2 are not  devices managed inside walt-net, and walt-server is the WALT server.\n"},
		{"server", "netsetup=LAN", "Failed: walt-server is the WALT server.\n"},
		{"rpi1", "expose=80", badExpose("80")},
		{"rpi1", "expose=0:80", badExpose("0:80")},
		{"rpi1", "expose=80:65536", badExpose("80:65536")},
		{"rpi1", "expose=80:81,", badExpose("80:81,")},
		{"rpi1,rpi2", "expose=none", text.Done},
		{"rpi2", "expose=443:8080", text.Done},
		{"rpi1", "netsetup=LAN netsetup=x netsetup=NAT", reboot},
		{"sw", "type=switch", "Failed: setting 'type' can only be applied to unknown devices.\n"},
	}
	v := platform()
	for _, test := range tests {
		devices, err := v.Resolve(test.set, nobody)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		names, values, err := Parse(strings.Fields(test.args))
		if err == nil {
			var plan *Plan
			if plan, err = Check(v, devices, names, values); err == nil {
				got = plan.Answer
			}
		}
		if err != nil {
			got = err.(*text.Refusal).Text
		}
		if got != test.want {
			t.Errorf("%s %s:\n%q, want\n%q", test.set, test.args, got, test.want)
		}
	}
}

func badExpose(value string) string {
	return "Failed: '" + value + "' is not a valid value for option 'expose'.\n" +
		"        Use for example '80:8088' (device port 80 <-> server port 8088), or 'none'.\n" +
		"        Several redirects are possible, e.g., '80:8088,443:8443'.\n"
}

// TestDefectS9TextsAndChecks: 10.0 prints the text about redirects without its values, and
// accepts lldp.explore without snmp.version.
func TestDefectS9TextsAndChecks(t *testing.T) {
	r := registry.New(netip.MustParsePrefix("192.168.152.1/24"))
	r.Put(db.Device{MAC: "02:00:00:00:00:05", Name: "sw", Type: registry.Switch, Conf: map[string]any{"snmp.community": "c"}})
	v := r.View()
	_, err := Check(v, v.Devices(), []string{"lldp.explore"}, map[string]string{"lldp.explore": "true"})
	if err == nil || !strings.Contains(err.Error(), "unless 'snmp.version' and 'snmp.community' are defined too") {
		t.Errorf("lldp.explore with a community only: %v", err)
	}
	v = platform()
	_, err = Check(v, []*registry.Device{v.ByName("rpi1")}, []string{"expose"}, map[string]string{"expose": "1:8080"})
	if err == nil || err.Error() != "Failed: server port '8080' is already used for another redirect." {
		t.Errorf("expose: %v", err)
	}
}

// TestCN37UnorderedTexts: names come in one order, always the same.
func TestCN37UnorderedTexts(t *testing.T) {
	v := platform()
	for range 20 {
		_, err := Check(v, []*registry.Device{v.ByName("vn1")}, []string{"disks"}, map[string]string{"disks": "1G[template=x]"})
		want := "Failed: Disk template must be one of: none ext4 fat32 hybrid-boot-v hybrid-boot-p\n        Check 'walt help show device-config' for more info."
		if err == nil || err.Error() != want {
			t.Fatalf("disks: %v", err)
		}
	}
}

func TestPlanKeepsOtherSettings(t *testing.T) {
	v := platform()
	plan, err := Check(v, []*registry.Device{v.ByName("rpi2")}, []string{"boot.timeout", "netsetup"},
		map[string]string{"boot.timeout": "none", "netsetup": "NAT"})
	if err != nil {
		t.Fatal(err)
	}
	got := plan.Apply(v.ByName("rpi2").Conf)
	want := map[string]any{"expose": "80:8080", "boot.timeout": nil, "netsetup": int64(1)}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("conf %v, want %v", got, want)
	}
	if len(v.ByName("rpi2").Conf) != 1 {
		t.Error("the device itself was changed")
	}
}

func TestDescribe(t *testing.T) {
	v := platform()
	rpi := "boot.retries=9\nboot.timeout=180\nexpose=none\nkexec.allow=true\nmount.persist=true\nnetsetup=LAN\n"
	if got, want := Describe(v, []*registry.Device{v.ByName("rpi1")}), "Node rpi1 has the following config applied:\n"+rpi+"\n"; got != want {
		t.Errorf("Describe =\n%q, want\n%q", got, want)
	}
	got := Describe(v, v.Devices())
	want := "Node rpi1 has the following config applied:\n" + rpi +
		"\n\nNode rpi2 has the following config applied:\n" + strings.Replace(rpi, "expose=none", "expose=80:8080", 1) +
		"\n\nSwitch sw has the following config applied:\nlldp.explore=true\npoe.reboots=false\nsnmp.community=c\nsnmp.version=2\n" +
		"\n\nSwitch sw2 has the following config applied:\nlldp.explore=false\npoe.reboots=false\nsnmp.community=<unspecified>\nsnmp.version=<unspecified>\n" +
		"\n\nUnknown device unknown-000007 has the following config applied:\ntype=unknown\n" +
		"\n\nVirtual node vn1 has the following config applied:\nboot.delay=random\nboot.retries=9\nboot.timeout=180\ncpu.cores=4\ndisks=none\nexpose=none\nkexec.allow=true\nmount.persist=true\nnetsetup=LAN\nnetworks=walt-net\nram=512M\n" +
		"\n\nServer has no config option available.\n" +
		"\n"
	if got != want {
		t.Errorf("Describe =\n%s\nwant\n%s", got, want)
	}
}

func TestCommon(t *testing.T) {
	v := platform()
	want := "boot.delay boot.retries boot.timeout cpu.cores disks expose kexec.allow mount.persist netsetup networks ram"
	if got := strings.Join(Common(v, []*registry.Device{v.ByName("vn1")}), " "); got != want {
		t.Errorf("Common = %q, want %q", got, want)
	}
	if got := strings.Join(Common(v, []*registry.Device{v.ByName("vn1"), v.ByName("sw")}), " "); got != "" {
		t.Errorf("Common = %q", got)
	}
}

func FuzzSettings(f *testing.F) {
	for _, s := range table {
		f.Add(s.name, "true")
		f.Add(s.name, "8G[template=ext4],1T")
		f.Add(s.name, "walt-net,home[lat=8ms,bw=1Gbps]")
		f.Add(s.name, "80:8081")
		f.Add(s.name, "60")
	}
	v := platform()
	f.Fuzz(func(t *testing.T, name, value string) {
		for _, device := range v.Devices() {
			plan, err := Check(v, []*registry.Device{device}, []string{name}, map[string]string{name: value})
			if err != nil {
				if refusal, ok := err.(*text.Refusal); !ok || !strings.HasSuffix(refusal.Text, "\n") {
					t.Fatalf("%s=%q for %s: %v", name, value, device.Name, err)
				}
				continue
			}
			stored, given := plan.Conf[name]
			if !given && name != "type" {
				t.Fatalf("%s=%q for %s is lost", name, value, device.Name)
			}
			// What is shown can be set again.
			if shown := valueText(name, stored); given && shown != "<unspecified>" {
				if _, err := Check(v, []*registry.Device{device}, []string{name}, map[string]string{name: shown}); err != nil {
					t.Fatalf("%s=%q is shown as %q, which is refused: %v", name, value, shown, err)
				}
			}
		}
	})
}
