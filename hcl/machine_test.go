package hcl

import (
	"strings"
	"testing"
	"time"
)

const siteOfMachine = `
network "walt-net" { ip = "192.168.152.1/24" }
`

func TestKernelSettings(t *testing.T) {
	site, err := ParseSite([]byte(siteOfMachine+`
kernel {
  sysctl = {
    "vm.swappiness"                        = 10
    "net/ipv4/conf/eth0.7/forwarding"      = "1"
    "net.ipv4.conf.eth0/7.proxy_arp"       = 1
  }
  module "kvm-intel" {
    options = { nested = 1, "ept" = "Y" }
  }
  module "nouveau" { blacklist = true }
  module "softdog" { load = true }
}`), "walt.hcl")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(site.Kernel.ModprobeConf()), "options kvm-intel ept=Y nested=1\nblacklist nouveau\n"; got != want {
		t.Errorf("modprobe.d:\n%s", got)
	}
	if got, want := string(site.Kernel.SysctlConf()), "net.ipv4.conf.eth0/7.proxy_arp = 1\nnet/ipv4/conf/eth0.7/forwarding = 1\nvm.swappiness = 10\n"; got != want {
		t.Errorf("sysctl.d:\n%s", got)
	}
	if got := strings.Join(site.Kernel.Loaded(), " "); got != "softdog" {
		t.Errorf("loaded: %s", got)
	}
	for name, want := range map[string]string{
		"vm.swappiness": "vm/swappiness", "net/ipv4/conf/eth0.7/forwarding": "net/ipv4/conf/eth0.7/forwarding",
		"net.ipv4.conf.eth0/7.proxy_arp": "net/ipv4/conf/eth0.7/proxy_arp",
	} {
		if got := SysctlPath(name); got != want {
			t.Errorf("%s is %s", name, got)
		}
	}
}

func TestWatchdogSettings(t *testing.T) {
	site, err := ParseSite([]byte(siteOfMachine), "walt.hcl")
	if err != nil {
		t.Fatal(err)
	}
	if timeout, grace := site.Watchdog.Times(); !*site.Watchdog.Enabled || timeout != time.Minute || grace != 10*time.Minute || len(site.Watchdog.Goal) == 0 {
		t.Errorf("the default is %+v", site.Watchdog)
	}
	site, err = ParseSite([]byte(siteOfMachine+"watchdog {\n enabled = false\n timeout = \"20s\"\n grace = \"0s\"\n goal = [\"sshd\"]\n}"), "walt.hcl")
	if err != nil {
		t.Fatal(err)
	}
	if timeout, grace := site.Watchdog.Times(); *site.Watchdog.Enabled || timeout != 20*time.Second || grace != 0 || site.Watchdog.Goal[0] != "sshd" {
		t.Errorf("it is %+v", site.Watchdog)
	}
}

func TestMachineSettingsAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		`kernel { sysctl = { "kernel" = 1 } }`:                         `"kernel" is no name of a value below /proc/sys`,
		`kernel { sysctl = { "../../etc/passwd" = 1 } }`:               "is no name of a value",
		`kernel { sysctl = { "net/../../etc/passwd" = 1 } }`:           "is no name of a value",
		`kernel { sysctl = { "vm.x" = "a\nb" } }`:                      "has several lines",
		"kernel {\n module \"a/b\" {}\n}":                              "made of letters",
		"kernel {\n module \"a-b\" {}\n module \"a_b\" {}\n}":          "already set",
		"kernel {\n module \"a\" { options = { x = \"1 2\" } }\n}":     "cannot be passed",
		"kernel {\n module \"a\" {\nload = true\nblacklist=true\n}\n}": "cannot be both",
		`watchdog { timeout = "1s" }`:                                  `timeout is "1s"`,
		`watchdog { timeout = "1h" }`:                                  `timeout is "1h"`,
		`watchdog { grace = "-1m" }`:                                   `grace is "-1m"`,
		`watchdog { grace = "soon" }`:                                  `grace is "soon"`,
	} {
		_, err := ParseSite([]byte(siteOfMachine+text), "walt.hcl")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
