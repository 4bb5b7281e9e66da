package ipxe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// files is a Source: contents by location, as Location.String has it.
type files map[string]string

func (f files) Fetch(_ context.Context, file Location, w io.Writer) error {
	text, found := f[file.String()]
	if !found {
		return ErrNoFile
	}
	_, err := io.WriteString(w, text)
	return err
}

// interpret runs scripts with the variables of a node, and returns what was said, and
// the boot as text, or why there was none.
func interpret(t testing.TB, source files) (said, booted string) {
	t.Helper()
	var out bytes.Buffer
	folder := t.TempDir()
	i := &Interpreter{Source: source, Out: &out, Folder: folder, Variables: map[string]string{
		"ip": "10.0.0.2", "mac": "52:54:00:aa:bb:cc", "hostname": "vn", "next-server": "10.0.0.1",
		"product": "Standard PC (i440FX + PIIX, 1996)", "manufacturer": "QEMU", "gateway": "",
	}}
	boot, err := i.Run(t.Context(), "/start.ipxe")
	if left, _ := os.ReadDir(folder); len(left) > 0 {
		t.Errorf("files are left: %v", left)
	}
	if err != nil {
		return out.String(), err.Error()
	}
	defer boot.Close()
	text := func(f *os.File) string {
		if f == nil {
			return "-"
		}
		content, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		return string(content)
	}
	return out.String(), fmt.Sprintf("%s %s [%s]", text(boot.Kernel), text(boot.Initrd), boot.Arguments)
}

// TestConformanceV3 is row V3 of node-protocols 8: the subset of iPXE, incl. spaces in
// variables, "||" with an empty side, relative chains.
func TestConformanceV3(t *testing.T) {
	boot := files{"tftp:/k": "KERNEL", "tftp:/i": "INITRD", "http:/boot/k": "HK", "http:/boot/i": "HI"}
	for _, test := range []struct {
		name, script string
		more         files
		said, booted string
	}{
		{name: "kernel and initrd", script: "#!ipxe\nkernel k a=1 b\ninitrd i\nboot\n", booted: "KERNEL INITRD [a=1 b]"},
		{name: "boot with arguments", script: "boot k x y", booted: "KERNEL - [x y]"},
		{name: "boot alone", script: "boot", said: "there is no kernel to boot", booted: "there is no kernel"},
		{name: "nothing", script: "", booted: "the script ended without booting"},
		{name: "a comment", script: "# boot k\necho a # b\n", said: "a\n", booted: "ended without"},
		{name: "no such file", script: "kernel none\necho never", booted: "no such file"},
		{name: "or", script: "kernel none || kernel k\nboot", booted: "KERNEL"},
		{name: "or with an empty side", script: "kernel none ||\necho on\nboot k", said: "on\n", booted: "KERNEL"},
		{name: "and with an empty side", script: "echo a &&\necho b", said: "a\nb\n", booted: "ended without"},
		{name: "an empty left side", script: "|| echo never\n && echo yes", said: "yes\n", booted: "ended without"},
		{name: "the right-most operator", script: "kernel none && echo never || echo yes", said: "none... no such file\nyes\n", booted: "ended without"},
		{name: "and after or", script: "echo a || echo b && echo c", said: "a\nc\n", booted: "ended without"},
		{name: "spaces in a variable", script: "chain ${manufacturer}/${product}/p.ipxe",
			more:   files{"tftp:/QEMU/Standard PC (i440FX + PIIX, 1996)/p.ipxe": "boot /k ${params}"},
			booted: "KERNEL - []"},
		{name: "a value stays one word", script: "set a b  c\nkernel k ${a}\nboot", booted: "KERNEL - [b c]"},
		{name: "quotes", script: `set a "b  c" 'd\e' f\ g "h\"i"` + "\necho ${a}", said: "b  c d\\e f g h\"i\n", booted: "ended"},
		{name: "a quote that is open", script: `echo "a`, said: "a quote is not closed", booted: "a quote is not closed"},
		{name: "a backslash at the end", script: `echo a\`, said: "nothing follows", booted: "nothing follows"},
		{name: "unknown variables", script: "echo a${b}c${", said: "ac${\n", booted: "ended"},
		{name: "no value", script: "set ip\necho a${ip}b", said: "ab\n", booted: "ended"},
		{name: "types and cards", script: "echo ${mac:hexhyp} ${netX/mac} ${net0/mac:hexhyp} ${ip:ipv4}",
			said: "52-54-00-aa-bb-cc 52:54:00:aa:bb:cc 52-54-00-aa-bb-cc 10.0.0.2\n", booted: "ended"},
		{name: "not expanded twice", script: "set a '${b}'\nset b c\necho ${a}${mac}", said: "52:54", booted: "ended"},
		{name: "a relative chain", script: "chain sub/a.ipxe",
			more:   files{"tftp:/sub/a.ipxe": "chain b.ipxe", "tftp:/sub/b.ipxe": "chain ../c.ipxe", "tftp:/c.ipxe": "boot k"},
			booted: "KERNEL"},
		{name: "a relative chain by HTTP", script: "set p http://${next-server}/boot\nchain ${p}/a.ipxe",
			more:   files{"http:/boot/a.ipxe": "chain sub/b.ipxe || chain sub/c.ipxe", "http:/boot/sub/c.ipxe": "boot ../k"},
			booted: "HK"},
		{name: "from HTTP to the root of TFTP", script: "chain http://s/boot/a.ipxe", more: files{"http:/boot/a.ipxe": "boot /k"}, booted: "KERNEL"},
		{name: "from HTTP to a URL of TFTP", script: "chain http://s/boot/a.ipxe", more: files{"http:/boot/a.ipxe": "boot tftp://s/k"}, booted: "KERNEL"},
		{name: "no way out of the root", script: "chain ../../etc/passwd || boot ../k", booted: "KERNEL"},
		{name: "another protocol", script: "kernel https://s/k", said: "only tftp:// and http://", booted: "only tftp:// and http://"},
		{name: "failure of a chained script", script: "chain a.ipxe || boot k", more: files{"tftp:/a.ipxe": "reboot\necho never"}, booted: "KERNEL"},
		{name: "end of a chained script", script: "chain a.ipxe && boot k", more: files{"tftp:/a.ipxe": "set a b"}, booted: "KERNEL"},
		{name: "reboot", script: "reboot\nboot k", booted: "asks for a reboot"},
		{name: "imgfree", script: "kernel k\nimgfree\nboot", booted: "KERNEL"},
		{name: "the last one counts", script: "kernel http://s/boot/k one\ninitrd http://s/boot/i\nkernel k two\ninitrd i\nboot", booted: "KERNEL INITRD [two]"},
		{name: "options", script: "kernel --name kernel --timeout 5 k a\ninitrd -n initrd i\nchain --autofree none ||\nboot", booted: "KERNEL INITRD [a]"},
		{name: "no file", script: "kernel --name", said: "kernel needs the name of a file", booted: "needs the name"},
		{name: "no seconds", script: "sleep a", said: "sleep needs a number", booted: "sleep needs"},
		{name: "sleep", script: "sleep 0\nboot k", booted: "KERNEL"},
		{name: "no terminal", script: "shell || boot k", said: "no terminal", booted: "KERNEL"},
		{name: "an unknown directive", script: "dhcp || boot k", said: "[fake-ipxe] Unknown directive \"dhcp\". Aborted.\n", booted: "aborted"},
		{name: "an unknown directive in a chained script", script: "chain a.ipxe || boot k", more: files{"tftp:/a.ipxe": "\x00\xff"},
			said: "Unknown directive", booted: "aborted"},
		{name: "an endless chain", script: "chain start.ipxe", said: "more than 32 deep", booted: "aborted"},
		{name: "an endless loop", script: "chain start.ipxe || chain start.ipxe", said: "Aborted", booted: "aborted"},
		{name: "growth", script: "set a 0123456789\n" + strings.Repeat("set a ${a}${a}\n", 40), said: "Aborted", booted: "aborted"},
		{name: "a long line", script: "echo " + strings.Repeat("a", maxLine), said: "A line has more", booted: "aborted"},
		{name: "a large script", script: strings.Repeat("#\n", maxScript), said: "too large", booted: "too large"},
		{name: "many lines", script: strings.Repeat("set a b\n", maxDirectives+1), said: "directives were run", booted: "aborted"},
	} {
		t.Run(test.name, func(t *testing.T) {
			source := files{"tftp:/start.ipxe": test.script}
			for _, more := range []files{boot, test.more} {
				for name, text := range more {
					source[name] = text
				}
			}
			said, booted := interpret(t, source)
			if !strings.Contains(said, test.said) {
				t.Errorf("it said %q, not %q", said, test.said)
			}
			if !strings.Contains(booted, test.booted) {
				t.Errorf("it ended with %q, not %q", booted, test.booted)
			}
			if strings.Contains(said, "never") {
				t.Errorf("it said %q", said)
			}
		})
	}
}

// TestShippedScript boots by the script of the image that the appliance ships, with and
// without HTTP.
func TestShippedScript(t *testing.T) {
	script, err := os.ReadFile("../../../image/node/boot/pc-x86-64/start.ipxe")
	if err != nil {
		t.Fatal(err)
	}
	for scheme, prefix := range map[string]string{"http": "/boot", "tftp": ""} {
		source := files{"tftp:/start.ipxe": string(script), scheme + ":" + prefix + "/kernel": "KERNEL", scheme + ":" + prefix + "/initrd": "INITRD"}
		said, booted := interpret(t, source)
		for _, want := range []string{"KERNEL INITRD [initrd=initrd ", " root=/dev/nfs ", " ip=10.0.0.2:10.0.0.1:::vn::off ",
			" BOOTIF=01-52-54-00-aa-bb-cc ", "/nodes/52:54:00:aa:bb:cc/fs,ro,"} {
			if !strings.Contains(booted, want) {
				t.Errorf("by %s %q is missing: %s\n%s", scheme, want, booted, said)
			}
		}
	}
}

func TestShell(t *testing.T) {
	r, w := io.Pipe()
	go io.WriteString(w, "set a b\rnonsense\recho <${a}>\rexit\r")
	var out bytes.Buffer
	i := &Interpreter{Source: files{"tftp:/start.ipxe": "shell\nboot k ${a}", "tftp:/k": "K"}, Out: &out, Terminal: r}
	boot, err := i.Run(t.Context(), "/start.ipxe")
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	defer boot.Close()
	if boot.Arguments != "b" || !strings.Contains(out.String(), "<b>\n") || !strings.Contains(out.String(), "iPXE> ") ||
		!strings.Contains(out.String(), `Unknown directive "nonsense"`) {
		t.Errorf("arguments %q\n%s", boot.Arguments, out.String())
	}
}

// TestCancel ends a boot that sleeps.
func TestCancel(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	i := &Interpreter{Source: files{"tftp:/start.ipxe": "sleep 3600 || boot k"}, Out: io.Discard}
	if _, err := i.Run(ctx, "/start.ipxe"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the boot ended with %v", err)
	}
}

// TestNoRoom has no room for a kernel: the script goes on.
func TestNoRoom(t *testing.T) {
	var out bytes.Buffer
	i := &Interpreter{Source: files{"tftp:/start.ipxe": "kernel k || echo sad", "tftp:/k": "K"}, Out: &out,
		Folder: filepath.Join(t.TempDir(), "none")}
	if _, err := i.Run(t.Context(), "/start.ipxe"); err == nil || !strings.Contains(out.String(), "cannot keep tftp:/k") ||
		!strings.Contains(out.String(), "sad\n") {
		t.Errorf("%v\n%s", err, out.String())
	}
}

func TestSplit(t *testing.T) {
	for text, want := range map[string][]string{
		"":              nil,
		" \t a  b\r\n":  {"a", "b"},
		`''`:            {""},
		`a''b "c d"'e'`: {"ab", "c de"},
		`\a "\a\\\""`:   {"a", `\a\"`},
	} {
		if got, err := split(text); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q has the words %q, %v; want %q", text, got, err, want)
		}
	}
}

// FuzzScript runs any script: it ends, within the limits, and leaves nothing.
func FuzzScript(f *testing.F) {
	for _, script := range []string{
		"#!ipxe\nset a ${ip}\nkernel k ${a} && initrd i && boot ||\nreboot", "chain start.ipxe || shell", "set a ${a}${b}\nchain a b",
		"boot 'k' \"${mac:hexhyp}\" # x", "echo ${netX/ip\\}", "kernel --name x http://s/boot/k",
	} {
		f.Add(script)
	}
	f.Fuzz(func(t *testing.T, script string) {
		if strings.Contains(script, "sleep") {
			return
		}
		interpret(t, files{"tftp:/start.ipxe": script, "tftp:/k": "K", "tftp:/i": "I", "http:/boot/k": "H"})
	})
}
