package chrony

import (
	"strings"
	"testing"

	"github.com/waltos/waltos/hcl"
)

func TestConfiguration(t *testing.T) {
	site, err := hcl.ParseSite([]byte(`
network "walt-net" {
  ip = "192.168.152.1/24"
}
time {
  servers = ["a.example", "b.example"]
}`), "walt.hcl")
	if err != nil {
		t.Fatal(err)
	}
	conf := string(configuration(site))
	for _, line := range []string{"pool a.example iburst", "pool b.example iburst", "allow 192.168.152.0/24", "local stratum 10"} {
		if !strings.Contains(conf, line+"\n") {
			t.Errorf("the configuration lacks %q:\n%s", line, conf)
		}
	}
}
