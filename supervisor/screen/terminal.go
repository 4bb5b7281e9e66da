package screen

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/gdamore/tcell/v2"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// Terminal is a console of the machine.
type Terminal struct {
	Path   string
	Serial bool        // a line that others may log, whose far end is unknown
	saved  *term.State // as it was before
	size   unix.Winsize

	mu   sync.Mutex // guards what follows: a hang-up replaces it
	file *os.File
	fd   int
}

// Consoles lists the terminals that the kernel prints on, as its command line has them.
func Consoles() []*Terminal {
	text, err := os.ReadFile("/sys/class/tty/console/active")
	if err != nil {
		return nil
	}
	var list []*Terminal
	for name := range strings.FieldsSeq(string(text)) {
		if name == "tty0" { // whichever is in front
			name = "tty1"
		}
		virtual, err := filepath.Match("tty[0-9]*", name)
		list = append(list, &Terminal{Path: "/dev/" + name, Serial: err != nil || !virtual})
	}
	return list
}

// Open opens the terminal, without making it the one that controls this process, and
// makes it raw.
func (t *Terminal) Open() error {
	fd, err := unix.Open(t.Path, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot open console %s: %w", t.Path, err)
	}
	file := os.NewFile(uintptr(fd), t.Path)
	state, err := term.MakeRaw(fd)
	if err != nil {
		file.Close()
		return fmt.Errorf("cannot use console %s: %w", t.Path, err)
	}
	if t.saved == nil {
		t.saved = state
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.file, t.fd = file, fd
	return nil
}

// Close gives the terminal back as it was.
func (t *Terminal) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return errors.Join(term.Restore(t.fd, t.saved), t.file.Close())
}

// wake ends a Read that waits, and every one that follows until [Terminal.Start].
func (t *Terminal) wake() {
	t.mu.Lock()
	defer t.mu.Unlock()
	_ = t.file.SetReadDeadline(time.Now()) // a closed file wakes too
}

// print writes text, each line at the left edge.
func (t *Terminal) print(format string, args ...any) {
	text := strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "\r\n")
	_ = t.file.SetWriteDeadline(time.Now().Add(writeTime))
	_, _ = t.file.WriteString(text) // the far end may be gone
}

// writeTime is how long a line with flow control may take nothing.
const writeTime = 5 * time.Second

// sizeAnswer is what a terminal says when it is asked where its cursor is (ECMA-48, CPR).
var sizeAnswer = regexp.MustCompile(`\x1b\[([0-9]{1,4});([0-9]{1,4})R`)

// probe finds out whether a terminal of ECMA-48 is at the far end, and its size: the
// cursor is sent to the farthest corner and asked where it got.
func (t *Terminal) probe(limit time.Duration) bool {
	t.print("\x1b7\x1b[999;999H\x1b[6n\x1b8")
	var got []byte
	_ = t.file.SetReadDeadline(time.Now().Add(limit))
	defer func() { _ = t.file.SetReadDeadline(time.Time{}) }()
	buffer := make([]byte, 64)
	for len(got) < 1024 {
		n, err := t.file.Read(buffer)
		got = append(got, buffer[:n]...)
		if m := sizeAnswer.FindSubmatch(got); m != nil {
			t.setSize(string(m[2]), string(m[1]))
			return true
		}
		if err != nil {
			return false
		}
	}
	return false
}

// setSize tells the kernel, and so whoever asks it.
func (t *Terminal) setSize(width, height string) {
	w, err1 := strconv.ParseUint(width, 10, 16)
	h, err2 := strconv.ParseUint(height, 10, 16)
	if err1 != nil || err2 != nil || w < 20 || h < 5 || w > 500 || h > 300 {
		w, h = 80, 24
	}
	t.size = unix.Winsize{Col: uint16(w), Row: uint16(h)}
	_ = unix.IoctlSetWinsize(t.fd, unix.TIOCSWINSZ, &t.size)
}

// awaitEnter reads until somebody presses Enter; anything else is noise. What comes after
// it is left to whoever reads next.
func (t *Terminal) awaitEnter() error {
	buffer := make([]byte, 1)
	for {
		n, err := t.file.Read(buffer)
		if bytes.ContainsAny(buffer[:n], "\r\n") {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// name is the kind of the terminal, for other programs.
func (t *Terminal) name() string {
	if t.Serial {
		return "vt220"
	}
	return "linux"
}

// run gives the terminal to a program until it ends. The end of a session hangs its
// terminal up, so it is opened anew.
func (t *Terminal) run(path string, args ...string) error {
	file, err := os.OpenFile(t.Path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return fmt.Errorf("cannot open console %s: %w", t.Path, err)
	}
	if err := t.Close(); err != nil {
		file.Close()
		return fmt.Errorf("cannot give console %s away: %w", t.Path, err)
	}
	cmd := &exec.Cmd{
		Path: path, Args: args, Dir: "/", Stdin: file, Stdout: file, Stderr: file,
		Env:         []string{"TERM=" + t.name(), "HOME=/root", "USER=root", "LANG=C.UTF-8", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0},
	}
	err = cmd.Run()
	file.Close()
	if openErr := t.Open(); openErr != nil {
		return openErr
	}
	if t.size.Col > 0 {
		_ = unix.IoctlSetWinsize(t.fd, unix.TIOCSWINSZ, &t.size)
	}
	return err
}

// tioclinux is TIOCLINUX of <asm-generic/ioctls.h>.
const tioclinux = 0x541c

// kernelTo sends the messages of the kernel to another virtual console, so that they do
// not run over the screen (TIOCLINUX of ioctl_console(2), subcode 11). The function that it
// returns brings them back.
func (t *Terminal) kernelTo(console byte) (back func()) {
	if t.Serial {
		return func() {}
	}
	redirect := func(console byte) {
		arg := []byte{11, console}
		_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(t.fd), tioclinux, uintptr(unsafe.Pointer(&arg[0]))) // else they are drawn over
	}
	// A virtual console exists while it is open.
	other, err := os.OpenFile(fmt.Sprintf("/dev/tty%d", console), os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return func() {}
	}
	redirect(console)
	return func() {
		redirect(0)
		other.Close()
	}
}

// The methods below are those of tcell.Tty.

var _ tcell.Tty = (*Terminal)(nil)

// Start implements tcell.Tty; the terminal is raw already.
func (t *Terminal) Start() error { return t.file.SetReadDeadline(time.Time{}) }

// Stop implements tcell.Tty.
func (t *Terminal) Stop() error { return nil }

// Drain implements tcell.Tty.
func (t *Terminal) Drain() error {
	t.wake()
	return nil
}

// NotifyResize implements tcell.Tty: nothing tells of another size.
func (t *Terminal) NotifyResize(func()) {}

// WindowSize implements tcell.Tty.
func (t *Terminal) WindowSize() (tcell.WindowSize, error) {
	size, err := unix.IoctlGetWinsize(t.fd, unix.TIOCGWINSZ)
	if err != nil || size.Col == 0 || size.Row == 0 {
		return tcell.WindowSize{Width: 80, Height: 24}, nil
	}
	return tcell.WindowSize{Width: int(size.Col), Height: int(size.Row)}, nil
}

// Read implements tcell.Tty. Only ASCII comes through: noise on a line is more often not,
// and tcell 2.13 never returns from bytes that are no UTF-8.
func (t *Terminal) Read(p []byte) (int, error) {
	n, err := t.file.Read(p)
	kept := 0
	for _, b := range p[:n] {
		if b < 0x80 {
			p[kept] = b
			kept++
		}
	}
	return kept, err
}

// Write implements tcell.Tty. What a dead line does not take is lost.
func (t *Terminal) Write(p []byte) (int, error) {
	_ = t.file.SetWriteDeadline(time.Now().Add(writeTime))
	n, err := t.file.Write(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return len(p), nil
	}
	return n, err
}
