package compose

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/waltos/waltos/image/bundle"
	"github.com/waltos/waltos/image/compare"
	"github.com/waltos/waltos/image/erofs"
	"github.com/waltos/waltos/image/fetch"
	"github.com/waltos/waltos/image/gpt"
	"github.com/waltos/waltos/image/inputs"
	"github.com/waltos/waltos/image/keys"
	"github.com/waltos/waltos/image/lock"
	"github.com/waltos/waltos/image/minisign"
	"github.com/waltos/waltos/image/toolbox"
	"github.com/waltos/waltos/image/uki"
)

// built returns the image of this source tree, which is built unless it exists.
func built(t *testing.T) (*Result, *inputs.Inputs) {
	t.Helper()
	return builtFor(t, "")
}

// builtFor returns the image for an architecture; empty: the usual one.
func builtFor(t *testing.T, architecture string) (*Result, *inputs.Inputs) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs the whole image; not with -short")
	}
	source, err := FindSource(".")
	if err != nil {
		t.Fatal(err)
	}
	in, err := inputs.Open(inputs.Options{
		Appliance: filepath.Join(source, "image", "appliance.hcl"), Architecture: architecture, Override: true, Progress: fetch.NewProgress(t.Output()),
	})
	if err != nil {
		t.Fatal(err)
	}
	result, err := Build(t.Context(), Options{Source: source, Architecture: architecture, Inputs: in, Progress: fetch.NewProgress(t.Output())})
	if err != nil {
		t.Fatal(err)
	}
	return result, in
}

// The readers of the real formats accept the outputs.
func TestOutputs(t *testing.T) {
	result, in := built(t)
	box, err := in.Toolbox(t.Context(), tools)
	if err != nil {
		t.Fatal(err)
	}
	run := func(name string, args ...string) string {
		t.Helper()
		out, err := box.Command(t.Context(), name, args...).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
		return string(out)
	}
	if out := run("sgdisk", "-v", result.Disk); !strings.Contains(out, "No problems found") {
		t.Errorf("sgdisk:\n%s", out)
	}

	disk, err := os.Open(result.Disk)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	table, err := gpt.Read(disk, result.Manifest.Outputs[DiskName].Size)
	if err != nil {
		t.Fatal(err)
	}
	_, esp := table.Find("esp")
	_, root := table.Find("root-a")
	if esp == nil || root == nil {
		t.Fatal("a partition is missing")
	}
	cut := func(from io.ReaderAt, offset, size int64) string {
		t.Helper()
		f, err := os.CreateTemp(t.TempDir(), "part")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := io.Copy(f, io.NewSectionReader(from, offset, size)); err != nil {
			t.Fatal(err)
		}
		return f.Name()
	}
	espFile := cut(disk, esp.Offset(), esp.Size())
	run("fsck.vfat", "-n", espFile)
	program := filepath.Join(t.TempDir(), "BOOTX64.EFI")
	run("mcopy", "-i", espFile, "::EFI/BOOT/BOOTX64.EFI", program)
	if got, want := hashOf(t, program), result.Manifest.Outputs[ukiName].SHA256; got != want {
		t.Errorf("the ESP holds a program of hash %s, expected %s", got, want)
	}

	var hash, salt string
	var blocks, start int64
	_, text, _ := strings.Cut(result.Command, "walt.verity=")
	if _, err := fmt.Sscanf(strings.ReplaceAll(text, ",", " "), "%s %s %d %d", &hash, &salt, &blocks, &start); err != nil {
		t.Fatalf("command line %q: %v", result.Command, err)
	}
	data := cut(disk, root.Offset(), blocks*4096)
	hashes := cut(disk, root.Offset()+start*4096, root.Size()-start*4096)
	run("veritysetup", "verify", "--no-superblock", "--salt="+salt, fmt.Sprintf("--data-blocks=%d", blocks), data, hashes, hash)
	run("fsck.erofs", data)
}

// The programs of others accept the signatures, and package bundle the upgrade bundle.
func TestSignatures(t *testing.T) {
	result, in := built(t)
	box, err := in.Toolbox(t.Context(), tools)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := keys.DefaultFolder()
	if err != nil {
		t.Fatal(err)
	}
	command := box.Command(t.Context(), "sbverify", "--cert", filepath.Join(dir, "db.crt"), result.UKI)
	if out, err := command.CombinedOutput(); err != nil {
		t.Errorf("sbverify: %v\n%s", err, out)
	}
	released := result.Manifest.Signing.Releases[0]
	manifest := filepath.Join(result.Dir, manifestName)
	if out, err := box.Command(t.Context(), "minisign", "-V", "-m", manifest, "-P", released).CombinedOutput(); err != nil {
		t.Errorf("minisign: %v\n%s", err, out)
	}
	if !strings.Contains(result.Command, "walt.release="+released) {
		t.Errorf("the command line does not say who may sign upgrades: %s", result.Command)
	}
	key, err := minisign.ParsePublicKey(released)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(result.Bundle)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	running := bundle.Release{Name: "walt", Version: "1", Architecture: in.Appliance.Debian.Architecture}
	b, err := bundle.Open(f, bundle.Trust{Keys: []minisign.PublicKey{key}, Running: &running})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if b.Build != result.Manifest.Build || b.Signer.Key != key {
		t.Errorf("the bundle is of build %s, signed by %s", b.Build, b.Signer.Key)
	}
	if b.UKI.SHA256 != result.Manifest.Outputs[ukiName].SHA256 {
		t.Error("the bundle holds another UKI")
	}
	description := filepath.Join(extract(t, result.Bundle, "bundle.json", "bundle.json.minisig"), "bundle.json")
	if out, err := box.Command(t.Context(), "minisign", "-V", "-m", description, "-P", released).CombinedOutput(); err != nil {
		t.Errorf("minisign: %v\n%s", err, out)
	}
	second, err := b.SlotUKI("b")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "b.efi")
	if err := os.WriteFile(file, second, 0o600); err != nil {
		t.Fatal(err)
	}
	command = box.Command(t.Context(), "sbverify", "--cert", filepath.Join(dir, "db.crt"), file)
	if out, err := command.CombinedOutput(); err != nil || !bytes.Contains(second, []byte("walt.slot=b walt.root=root-b ")) {
		t.Errorf("the UKI of slot b: %v\n%s", err, out)
	}
	if err := b.CopyRoot(io.Discard); err != nil {
		t.Error(err)
	}
}

// Further outputs hold the same disk, and stay until the next build.
func TestExtras(t *testing.T) {
	result, in := built(t)
	judgeExtras(t, result, in, Options{Inputs: in})
	if _, err := Build(t.Context(), Options{Inputs: in, Also: []string{"floppy"}}); err == nil || !strings.Contains(err.Error(), `no output "floppy"; there are [`) {
		t.Errorf("%v", err)
	}
}

// The same for a processor that is not this machine's kind.
func TestExtrasOfARM64(t *testing.T) {
	if os.Getenv("WALT_TEST_ARM64") == "" {
		t.Skip("it fetches 200 MB and builds a second appliance; set WALT_TEST_ARM64=1 to run it")
	}
	result, in := builtFor(t, "arm64")
	judgeExtras(t, result, in, Options{Inputs: in, Architecture: "arm64"})
	var report bytes.Buffer
	if err := result.Report(&report); err != nil || !strings.Contains(report.String(), "for amd64; none is for arm64: ") {
		t.Errorf("the report does not say which nodes have an image: %v\n%s", err, report.String())
	}
}

// kernelMarks are what kernels have in their headers, and where (Documentation/arch/x86/boot.rst
// and Documentation/arch/arm64/booting.rst of Linux).
var kernelMarks = map[string]struct {
	at   int
	mark string
}{"amd64": {0x202, "HdrS"}, "arm64": {56, "ARM\x64"}}

func judgeExtras(t *testing.T, result *Result, in *inputs.Inputs, o Options) {
	t.Helper()
	o.Also = []string{"zst", "qcow2", "iso", "pxe", "nodes"}
	all, err := Build(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	want := all.Manifest.Outputs[DiskName]
	if want != result.Manifest.Outputs[DiskName] {
		t.Error("the disk is another one")
	}
	again, err := Build(t.Context(), o)
	if err != nil || !again.Reused {
		t.Errorf("made again: %v", err)
	}
	h := sha256.New()
	if n, err := io.Copy(h, decompress(t, filepath.Join(all.Dir, DiskName+".zst"))); err != nil || n != want.Size || hex.EncodeToString(h.Sum(nil)) != want.SHA256 {
		t.Errorf("%d bytes decompressed, not those of the disk: %v", n, err)
	}
	build, err := in.Toolbox(t.Context(), tools)
	if err != nil {
		t.Fatal(err)
	}
	report, err := build.Command(t.Context(), "xorriso", "-no_rc", "-indev", filepath.Join(all.Dir, "walt.iso"), "-report_el_torito", "plain", "-report_system_area", "plain").CombinedOutput()
	if err != nil || !bytes.Contains(report, []byte("El Torito boot img :   1  UEFI  y")) || !bytes.Contains(report, []byte("GPT partition name")) {
		t.Errorf("xorriso: %v\n%s", err, report)
	}
	lab := lock.ToolSet("lab")
	if err := in.Native.Ensure(t.Context(), lab); err != nil {
		t.Fatal(err)
	}
	box, err := in.Toolbox(t.Context(), lab)
	if err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(all.Dir, "walt.qcow2")
	if out, err := box.Command(t.Context(), "qemu-img", "compare", "-f", "raw", "-F", "qcow2", all.Disk, disk).CombinedOutput(); err != nil {
		t.Errorf("qemu-img compare: %v\n%s", err, out)
	}
	judgeLive(t, build, all, in.Appliance.Debian.Architecture)
}

// judgeLive looks into the forms of the live system.
func judgeLive(t *testing.T, tools *toolbox.Toolbox, all *Result, architecture string) {
	t.Helper()
	dir, err := keys.DefaultFolder()
	if err != nil {
		t.Fatal(err)
	}
	live := filepath.Join(all.Dir, liveName)
	if out, err := tools.Command(t.Context(), "sbverify", "--cert", filepath.Join(dir, "db.crt"), live).CombinedOutput(); err != nil {
		t.Errorf("sbverify: %v\n%s", err, out)
	}
	iso, err := os.Open(filepath.Join(all.Dir, "walt.iso"))
	if err != nil {
		t.Fatal(err)
	}
	defer iso.Close()
	table, err := gpt.Read(iso, all.Manifest.Outputs["walt.iso"].Size)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(table.Partitions, func(p *gpt.Partition) bool { return p != nil && p.Type == gpt.EFISystem })
	if i < 0 {
		t.Fatal("the medium has no ESP")
	}
	program := filepath.Join(t.TempDir(), "program.efi")
	from := fmt.Sprintf("%s@@%d", iso.Name(), table.Partitions[i].Offset())
	if out, err := tools.Command(t.Context(), "mcopy", "-i", from, "::"+strings.TrimPrefix(uki.BootName(architecture), "/"), program).CombinedOutput(); err != nil {
		t.Fatalf("mcopy: %v\n%s", err, out)
	}
	if hashOf(t, program) != all.Manifest.Outputs[liveName].SHA256 {
		t.Error("the medium holds another program")
	}

	netboot, err := os.Open(filepath.Join(all.Dir, "walt-netboot.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer netboot.Close()
	var names []string
	for archive := tar.NewReader(netboot); ; {
		header, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, header.Name)
		if header.Name != "vmlinuz" {
			continue
		}
		kernel, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		m := kernelMarks[architecture]
		if got := string(kernel[m.at : m.at+len(m.mark)]); got != m.mark {
			t.Errorf("the kernel for network boot has %q where one for %s has %q", got, architecture, m.mark)
		}
	}
	if !slices.Equal(names, []string{"boot.ipxe", "cmdline", "initrd.img", "vmlinuz"}) {
		t.Errorf("for network boot there are %v", names)
	}
}

func TestSizes(t *testing.T) {
	result, _ := built(t)
	for name, limit := range map[string]int64{"root": 400e6, "uki": 40e6} {
		if size := result.Manifest.Sizes[name]; size == 0 || size > limit {
			t.Errorf("%s has %d bytes, more than %d or nothing", name, size, limit)
		}
	}
}

func TestNothingToDo(t *testing.T) {
	first, in := built(t)
	second, err := Build(t.Context(), Options{Source: filepath.Join("..", ".."), Inputs: in})
	if err != nil {
		t.Fatal(err)
	}
	if !second.Reused {
		t.Error("the outputs were made again")
	}
	if first.Manifest.Outputs[DiskName] != second.Manifest.Outputs[DiskName] {
		t.Error("the second manifest is another one")
	}
}

// The outputs depend neither on the folder nor on time zone, locale, umask,
// processors, and modes, times and order of the checkout; see Verify.
func TestReproducible(t *testing.T) {
	_, in := built(t)
	if !in.Lock.Released() {
		t.Skip("the lock has been overridden; verify refuses that")
	}
	v, err := Verify(t.Context(), Options{Inputs: in, Progress: fetch.NewProgress(t.Output())})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range v.Differences {
		t.Error(d)
	}
	var out bytes.Buffer
	if err := v.Report(&out); err != nil || strings.Count(out.String(), "identical") != len(v.First.Manifest.Outputs) {
		t.Errorf("report: %v\n%s", err, out.String())
	}
}

// A changed byte is named by output, partition, file and byte.
func TestChangedByteIsNamed(t *testing.T) {
	first, in := built(t)
	disk, err := os.Open(first.Disk)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	table, err := gpt.Read(disk, first.Manifest.Outputs[DiskName].Size)
	if err != nil {
		t.Fatal(err)
	}
	_, esp := table.Find("esp")
	_, root := table.Find("root-a")
	_, spare := table.Find("root-b")
	system := first.Manifest.Sizes["root"]
	var inode int64
	err = erofs.List(io.NewSectionReader(disk, root.Offset(), system), func(e erofs.Entry) error {
		if e.Path == "/usr/bin/bash" {
			inode = e.Offset
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	box, err := in.Toolbox(t.Context(), tools)
	if err != nil {
		t.Fatal(err)
	}
	c := &compare.Comparer{Command: box.Command, Scratch: t.TempDir()}
	changed := filepath.Join(t.TempDir(), DiskName)
	if out, err := exec.Command("cp", "--sparse=always", first.Disk, changed).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v\n%s", err, out)
	}
	for _, test := range []struct {
		name string
		at   int64
		want string // in one of the differences
	}{
		{"partition table", 40, "walt.img: outside of partitions: byte 40 (0x28) is"},
		{"ESP", esp.Offset() + 100<<20, "walt.img: partition esp: byte 104857600"},
		{"UKI", esp.Offset() + find(t, disk, esp, []byte("walt.slot=a")), "walt.img: partition esp: /EFI/BOOT/BOOTX64.EFI: section .cmdline"},
		{"file", root.Offset() + system/2, "walt.img: partition root-a: /usr/"},
		{"another file", root.Offset() + system/3, "walt.img: partition root-a: /usr/"},
		{"mode of a file", root.Offset() + inode + 4, "walt.img: partition root-a: /usr/bin/bash: -rwxr-xr-x 0:0, in the second -rwxrwxr-x 0:0"},
		{"behind the superblock", root.Offset() + 1157, "walt.img: partition root-a: byte 1157 (0x485) is"},
		{"hash tree", root.Offset() + system + 5000, "walt.img: partition root-a: hash tree: byte 5000 (0x1388) is"},
		{"spare slot", spare.Offset() + 3, "walt.img: partition root-b: byte 3 (0x3) is"},
	} {
		t.Run(test.name, func(t *testing.T) {
			flip(t, changed, test.at)
			defer flip(t, changed, test.at)
			found, err := c.Files(t.Context(), DiskName, first.Disk, changed)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range found {
				t.Log(d)
			}
			if !slices.ContainsFunc(found, func(d compare.Difference) bool { return strings.HasPrefix(d.String(), test.want) }) {
				t.Errorf("nothing begins with %q", test.want)
			}
		})
	}
}

// decompress reads what zstd has compressed into a file.
func decompress(t *testing.T, file string) io.Reader {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	z, err := zstd.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(z.Close)
	return z
}

// extract unpacks the first members of a bundle, which have these names, as `tar -xf` does.
func extract(t *testing.T, file string, names ...string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	archive := tar.NewReader(decompress(t, file))
	for _, name := range names {
		header, err := archive.Next()
		if err != nil || header.Name != name {
			t.Fatalf("%v where %s is expected, %v", header, name, err)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// flip changes one bit of a file.
func flip(t *testing.T, name string, at int64) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

// find returns where bytes are in a partition.
func find(t *testing.T, disk *os.File, p *gpt.Partition, want []byte) int64 {
	t.Helper()
	content := make([]byte, p.Size())
	if _, err := disk.ReadAt(content, p.Offset()); err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(content, want)
	if at < 0 {
		t.Fatalf("%q is not there", want)
	}
	return int64(at)
}

func hashOf(t *testing.T, name string) string {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func TestReport(t *testing.T) {
	r := &Result{Dir: "/out", Manifest: &Manifest{
		Name: "walt", Version: "10.0", Go: "go1", Lock: strings.Repeat("a", 64),
		Outputs: map[string]Output{"walt.img": {1e6, "abc"}}, Sizes: map[string]int64{"root": 2e6}, Content: map[string]int64{"postgresql-17": 3e6, "bash": 1e6},
	}}
	var out bytes.Buffer
	if err := r.Report(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"NOT THE RELEASED IMAGE", "walt.img  1.0 MB  abc", "root", "largest of 2 origins", "postgresql-17  3.0 MB\n  bash "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, out.String())
		}
	}
}
