package tests

import (
	"bytes"
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/waltos/waltos/image/compose"
	"github.com/waltos/waltos/image/fetch"
	"github.com/waltos/waltos/image/inputs"
	"github.com/waltos/waltos/image/keys"
	"github.com/waltos/waltos/image/lock"
	"github.com/waltos/waltos/image/qcow2"
	"github.com/waltos/waltos/qemu/machine"
	"github.com/waltos/waltos/qemu/provision"
	"github.com/waltos/waltos/services/wire/client"
)

// arm64Variable asks for the test of the arm64 appliance.
const arm64Variable = "WALT_TEST_ARM64"

// arm64Patience is for an emulated processor that is not this one's kind.
const arm64Patience = 20 * time.Minute

// arm64Site has the platform's network for virtual nodes only, as there is no switch.
const arm64Site = `
network "walt-net" { ip = "192.168.152.1/24" }
network "walt-out" {
  interface = "eth0"
  ip        = "dhcp"
}
`

// TestARM64 builds the arm64 appliance and boots its disk by UEFI on an emulated machine,
// until its API answers.
func TestARM64(t *testing.T) {
	if os.Getenv(arm64Variable) == "" {
		t.Skipf("it fetches 200 MB and emulates a foreign processor for minutes; set %s=1 to run it", arm64Variable)
	}
	in, err := inputs.Open(inputs.Options{
		Appliance: "../image/appliance.hcl", Architecture: "arm64", Override: true, Progress: fetch.NewProgress(os.Stderr),
	})
	if err != nil {
		t.Fatal(err)
	}
	lab, build := lock.ToolSet("lab-arm64"), lock.ToolSet("build")
	if err := in.Native.Ensure(t.Context(), lab, build); err != nil {
		t.Fatal(err)
	}
	built, err := compose.Build(t.Context(), compose.Options{Architecture: "arm64", Inputs: in, Progress: fetch.NewProgress(os.Stderr)})
	if err != nil {
		t.Fatal(err)
	}
	tools, err := in.Toolbox(t.Context(), build)
	if err != nil {
		t.Fatal(err)
	}
	trusted, err := keys.DefaultFolder()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := tools.Command(t.Context(), "sbverify", "--cert", filepath.Join(trusted, "db.crt"), built.UKI).CombinedOutput(); err != nil {
		t.Errorf("sbverify: %v\n%s", err, out)
	}

	box, err := in.Toolbox(t.Context(), lab)
	if err != nil {
		t.Fatal(err)
	}
	argv, env := provision.Split(box.Command(t.Context(), "qemu-system-aarch64"))
	dir := t.TempDir()
	overlay := func(name, raw string, growth int64) string {
		t.Helper()
		info, err := os.Stat(raw)
		if err != nil {
			t.Fatal(err)
		}
		var content bytes.Buffer
		if err := qcow2.Write(&content, qcow2.Image{Size: info.Size() + growth, Backing: raw}); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, content.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	site := filepath.Join(dir, "walt.hcl")
	if err := os.WriteFile(site, []byte(arm64Site), 0o600); err != nil {
		t.Fatal(err)
	}
	api := netip.MustParseAddrPort("127.0.0.31:12345")
	began := time.Now()
	m, err := machine.Start(t.Context(), machine.Program{Argv: argv, Env: env}, machine.Spec{
		Name: "arm64", Board: machine.ARM64, Memory: 1024, Accelerator: machine.TCG,
		Firmware: &machine.Firmware{
			Code: box.Path("usr/share/AAVMF/AAVMF_CODE.no-secboot.fd"), Variables: overlay("variables.qcow2", box.Path("usr/share/AAVMF/AAVMF_VARS.fd"), 0),
		},
		Disks: []machine.Disk{{File: overlay("disk.qcow2", built.Disk, 4<<30), Serial: "waltos"}},
		Cards: []machine.Card{{MAC: "52:54:00:00:00:31", Out: &machine.Out{Isolated: true, Forwards: []machine.Forward{{Host: api, Guest: 12345}}}}},
		Files: []machine.GuestFile{{Name: "opt/walt/walt.hcl", File: site}},
	}, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	defer m.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), arm64Patience)
	defer cancel()
	if _, _, err := m.Console.Wait(ctx, 0, regexp.MustCompile(`walt: ready`)); err != nil {
		t.Fatal(err)
	}
	t.Logf("ready after %.0f s", time.Since(began).Seconds())
	session, err := client.Dial(ctx, api.String(), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	if at, err := session.Call(ctx, "get_time"); err != nil || at == nil {
		t.Errorf("get_time: %v, %v", at, err)
	}
	t.Logf("12345 answers after %.0f s", time.Since(began).Seconds())
}
