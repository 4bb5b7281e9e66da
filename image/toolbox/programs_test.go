package toolbox_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waltos/waltos/image/fetch"
	"github.com/waltos/waltos/image/inputs"
	"github.com/waltos/waltos/image/lock"
)

// open brings sets of the real lock into the cache.
func open(t *testing.T, sets ...string) *inputs.Inputs {
	t.Helper()
	if testing.Short() {
		t.Skip("downloads packages")
	}
	in, err := inputs.Open(inputs.Options{Appliance: "../appliance.hcl", Override: true, Progress: fetch.NewProgress(os.Stderr)})
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Ensure(t.Context(), sets...); err != nil {
		t.Fatal(err)
	}
	return in
}

// The programs of the real lock run, with nothing in the environment that helps them.
// This downloads 40 MB when the cache has them not.
func TestPrograms(t *testing.T) {
	build, lab, python := lock.ToolSet("build"), lock.ToolSet("lab"), inputs.Python
	in, ctx := open(t, build, lab, python), context.Background()
	t.Setenv("LD_LIBRARY_PATH", "/nonexistent")
	t.Setenv("PYTHONHOME", "/nonexistent")
	disk := filepath.Join(t.TempDir(), "disk")
	for _, c := range []struct {
		set  string
		args []string
		want string
	}{
		{build, []string{"mkfs.erofs", "--version"}, "mkfs.erofs (erofs-utils)"},
		{build, []string{"depmod", "--version"}, "kmod version"},
		{build, []string{"mke2fs", "-q", "-F", "-t", "ext4", disk, "8M"}, ""},
		{build, []string{"e2fsck", "-f", "-n", disk}, "Pass 5"},
		{build, []string{"mformat", "-i", disk, "::"}, ""},
		{build, []string{"mdir", "-i", disk, "::"}, "bytes free"},
		{build, []string{"mkfs.vfat", "--help"}, "Usage"},
		{build, []string{"sgdisk", "--version"}, "GPT fdisk"},
		{build, []string{"veritysetup", "--version"}, "veritysetup"},
		{build, []string{"sbverify", "--version"}, "sbverify"},
		{build, []string{"sign-efi-sig-list", "--help"}, "Usage"},
		{build, []string{"openssl", "version"}, "OpenSSL 3"},
		{build, []string{"minisign", "-v"}, "minisign"},
		{lab, []string{"qemu-system-x86_64", "-version"}, "QEMU emulator"},
		{lab, []string{"qemu-system-x86_64", "-device", "help"}, "virtio-net-pci"},
		{lab, []string{"qemu-system-x86_64", "-L", "help"}, "/toolbox/"},
		{lab, []string{"qemu-img", "create", "-f", "qcow2", disk + ".qcow2", "1M"}, "Formatting"},
		{lab, []string{"qemu-img", "check", disk + ".qcow2"}, "No errors"},
		{python, []string{"python3", "-c", "import ssl, sqlite3, lzma, sys; print(sys.prefix)"}, "/toolbox/"},
		{python, []string{"python3", "-m", "pip", "--version"}, "(python 3.13)"},
		// Nothing of the host is mapped.
		{python, []string{"python3", "-c", "import ssl; print({l.split()[5].split('/')[1] + ' ' + str('/toolbox/' in l) for l in open('/proc/self/maps') if '.so' in l})"}, "True"},
	} {
		t.Run(strings.Join(c.args[:min(2, len(c.args))], " "), func(t *testing.T) {
			box, err := in.Toolbox(ctx, c.set)
			if err != nil {
				t.Fatal(err)
			}
			out, err := box.Command(ctx, c.args[0], c.args[1:]...).CombinedOutput()
			if err != nil || !strings.Contains(string(out), c.want) || strings.Contains(string(out), "False") {
				t.Errorf("%v\n%s\nwant %q in it", err, out, c.want)
			}
		})
	}
	box, err := in.Toolbox(ctx, lab)
	if err != nil {
		t.Fatal(err)
	}
	for _, data := range []string{"usr/share/OVMF/OVMF_CODE_4M.fd", "usr/share/OVMF/OVMF_VARS_4M.fd", "usr/share/seabios/bios-256k.bin", "usr/share/qemu/pxe-virtio.rom"} {
		if _, err := os.Stat(box.Path(data)); err != nil {
			t.Error(err)
		}
	}
}
