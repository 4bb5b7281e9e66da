package tests

import (
	"archive/tar"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/waltos/waltos/image/compose"
	"github.com/waltos/waltos/image/fetch"
	"github.com/waltos/waltos/image/inputs"
	"github.com/waltos/waltos/qemu/machine"
	"github.com/waltos/waltos/tests/supplies"
)

var liveSystem = regexp.MustCompile(`walt: this is a live system`)

// TestLive boots the appliance without a disk: as files of the network, and, with
// Secure Boot, as a medium.
func TestLive(t *testing.T) {
	s := &secure{t, supplies.Get(t)}
	source, err := compose.FindSource(".")
	if err != nil {
		t.Fatal(err)
	}
	in, err := inputs.Open(inputs.Options{
		Appliance: filepath.Join(source, "image", "appliance.hcl"), Override: true, Progress: fetch.NewProgress(t.Output()),
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := compose.Build(t.Context(), compose.Options{Source: source, Inputs: in, Also: []string{"iso", "pxe"}}); err != nil {
		t.Fatal(err)
	}
	t.Run("network", func(t *testing.T) { (&secure{t, s.Supplies}).liveKernel() })
	t.Run("medium with Secure Boot", func(t *testing.T) {
		s := &secure{t, s.Supplies}
		m := s.boot(2048, s.Build.Trust, nil, filepath.Join(s.Build.Dir, "walt.iso"))
		at := s.await(m, 0, secureBootIsOn)
		at = s.await(m, at, liveSystem)
		s.await(m, at, startingUnits)
	})
}

// liveKernel boots what boot.ipxe of the archive for network boot names.
func (s *secure) liveKernel() {
	dir := s.TempDir()
	s.unpack(filepath.Join(s.Build.Dir, "walt-netboot.tar"), dir)
	var kernel machine.Kernel
	for line := range strings.Lines(string(s.read(filepath.Join(dir, "boot.ipxe")))) {
		switch words := strings.Fields(line); words[0] {
		case "kernel":
			kernel.Image, kernel.Command = filepath.Join(dir, words[1]), strings.Join(words[2:], " ")
		case "initrd":
			kernel.Initrd = filepath.Join(dir, words[1])
		}
	}
	m := s.start(machine.Spec{Name: "live", Memory: 2048, Accelerator: machine.TCG, Serial: true, Kernel: &kernel})
	at := s.await(m, 0, liveSystem)
	s.await(m, at, startingUnits)
}

func (s *secure) unpack(archive, dir string) {
	s.Helper()
	f, err := os.Open(archive)
	if err != nil {
		s.Fatal(err)
	}
	defer f.Close()
	in := tar.NewReader(f)
	for {
		h, err := in.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			s.Fatal(err)
		}
		out, err := os.Create(filepath.Join(dir, filepath.Base(h.Name)))
		if err != nil {
			s.Fatal(err)
		}
		if _, err := io.Copy(out, in); err != nil {
			s.Fatal(err)
		}
		if err := out.Close(); err != nil {
			s.Fatal(err)
		}
	}
}
