// Package crash has the last words of PID 1 heard: when it dies of a defect, in whatever
// goroutine and also by a fatal error of the runtime, which nothing can recover from, its stack
// goes to all consoles and to what survives a reboot (pstore), and the machine reboots.
//
// A process beside PID 1, the reporter, holds the other end of a socket to which the Go runtime
// writes while it dies (debug.SetCrashOutput). The kernel panics as soon as PID 1 has ended,
// and then nobody reports anything; so the runtime is told to write the stacks of all
// goroutines, and the reporter stops to read after that of the one that failed: the buffer
// of the socket, the smallest there is, is full at once, and PID 1 stays in its write until
// the machine reboots. Should the reporter fail, PID 1 ends, and the kernel reboots the
// machine after the time of its parameter panic=.
//
// Of pstore: https://docs.kernel.org/admin-guide/pstore-blk.html, and
// Documentation/ABI/testing/pstore of Linux.
package crash

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/waltos/waltos/supervisor/console"
	"golang.org/x/sys/unix"
)

// Name is argument 0 of the reporter.
const Name = "walt-crash"

// Bounds of a report.
const (
	maxStack   = 32 << 10
	deathTime  = 5 * time.Second // that the runtime has to write the stack
	syncTime   = 10 * time.Second
	attention  = 60 * time.Second // at most, for people to read the consoles
	descriptor = 3                // of the reporter: crash output of PID 1; the next is its standard error
)

// Guard starts a reporter for this process, and gives it standard error too, where the runtime
// tells the cause of some deaths; start is like os.StartProcess. A second call replaces the
// first reporter, which then ends.
func Guard(start func(path string, argv []string, attr *os.ProcAttr) error) error {
	if err := guard(start); err != nil {
		return fmt.Errorf("cannot start the crash reporter: %w", err)
	}
	return nil
}

func guard(start func(path string, argv []string, attr *os.ProcAttr) error) error {
	// Without this, writing to a reporter that is gone would be the end of PID 1.
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)
	crash, farCrash, err := pair()
	if err != nil {
		return err
	}
	defer crash.Close()
	defer farCrash.Close()
	said, farSaid, err := pair()
	if err != nil {
		return err
	}
	defer said.Close()
	defer farSaid.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	if err := start("/proc/self/exe", []string{Name}, &os.ProcAttr{Files: []*os.File{null, null, null, farCrash, farSaid}}); err != nil {
		return err
	}
	if err := unix.Dup3(int(said.Fd()), unix.Stderr, 0); err != nil {
		return err
	}
	debug.SetTraceback("all")
	return debug.SetCrashOutput(crash, debug.CrashOptions{})
}

// pair makes a socket with the smallest buffer that there is.
func pair() (near, far *os.File, err error) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	near, far = os.NewFile(uintptr(ends[0]), "crash"), os.NewFile(uintptr(ends[1]), "reporter")
	if err := unix.SetsockoptInt(ends[0], unix.SOL_SOCKET, unix.SO_SNDBUF, 1); err != nil {
		near.Close()
		far.Close()
		return nil, nil, err
	}
	return near, far, nil
}

// Main is the reporter. It returns when PID 1 has become another program or has got another
// reporter, or if it cannot reboot the machine.
func Main() int {
	// What ends all processes at the end of the machine is no reason to miss a crash then.
	signal.Ignore(unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT)
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("-1000\n"), 0)
	debug.FreeOSMemory()
	stack, crashed := listen()
	if !crashed {
		return 0
	}
	report(machine{
		say: func(text string) { console.Open().Alarm("%s", text) }, proc: "/proc", sys: "/sys", dev: "/dev",
		sync: unix.Sync, wait: time.Sleep,
		reboot: func() error { return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART) },
	}, stack)
	return 1
}

// listen waits for the end of the process that has started the reporter, and returns what it
// died of, if it did.
func listen() (stack string, crashed bool) {
	for _, fd := range []int{descriptor, descriptor + 1} {
		if err := unix.SetNonblock(fd, true); err != nil {
			return "", false
		}
	}
	said := &lastWords{}
	go func() { _, _ = io.Copy(said, os.NewFile(descriptor+1, "stderr")) }()
	stack, crashed = hear(os.NewFile(descriptor, "crash"))
	return strings.TrimSpace(said.cause() + stack), crashed
}

// hear reads the stack of the goroutine that failed, and no byte more. It tells whether there
// was any.
func hear(c *os.File) (stack string, crashed bool) {
	header := []byte("\n\ngoroutine ")
	text := []byte{'\n'} // the runtime begins with another, or with a cause
	var one [1]byte
	for len(text) < maxStack {
		n, err := c.Read(one[:])
		if n == 0 || err != nil {
			break
		}
		if len(text) == 1 {
			_ = c.SetReadDeadline(time.Now().Add(deathTime))
		}
		text = append(text, one[0])
		if bytes.HasSuffix(text, header) && bytes.Count(text, header) == 2 {
			text = bytes.TrimSuffix(text, header)
			break
		}
	}
	return string(text), len(text) > 1
}

// lastWords is the beginning of what was last written to standard error without a pause. Its
// buffer is as small as that of the stack, which is longer than both: once the stack is
// heard, so is what the runtime has said before.
type lastWords struct {
	mu   sync.Mutex
	text []byte
	at   time.Time
}

const (
	maxWords  = 2 << 10
	wordsTime = time.Second
)

func (l *lastWords) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if now.Sub(l.at) > wordsTime {
		l.text = l.text[:0]
	}
	l.at = now
	l.text = append(l.text, p[:min(len(p), maxWords-len(l.text))]...)
	return len(p), nil
}

// cause is what the runtime says before it begins with that which comes by the other socket.
func (l *lastWords) cause() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := string(l.text)
	for _, begin := range []string{"panic: ", "runtime stack:", "goroutine ", "SIGQUIT: ", "PC="} {
		text, _, _ = strings.Cut(text, "\n"+begin)
		if strings.HasPrefix(text, begin) {
			return ""
		}
	}
	if text == "" {
		return ""
	}
	return text + "\n"
}

// machine is what a report is given to.
type machine struct {
	say            func(text string) // on all consoles
	proc, sys, dev string            // folders
	sync           func()
	wait           func(time.Duration)
	reboot         func() error
}

// report does all that it can; a part that fails is no reason to leave out another.
func report(m machine, stack string) {
	m.say("FAILED: PID 1 has crashed; report this defect\n" + stack + "\n")
	// Two ways to survive: what a RAM or a firmware keeps of the messages of users, and of
	// those of the kernel, among which ours are, if it writes them also at a reboot.
	if pmsg, err := os.OpenFile(m.dev+"/pmsg0", os.O_WRONLY, 0); err == nil {
		_, _ = io.WriteString(pmsg, stack+"\n")
		pmsg.Close()
	}
	_ = os.WriteFile(m.sys+"/module/printk/parameters/always_kmsg_dump", []byte("Y\n"), 0)
	synced := make(chan struct{})
	go func() {
		defer close(synced)
		m.sync()
	}()
	select {
	case <-synced:
	case <-time.After(syncTime):
		m.say("a disk does not take what is to be written; going on")
	}
	if pause := patience(m.proc); pause > 0 {
		m.say(fmt.Sprintf("the machine reboots in %v", pause))
		m.wait(pause)
	}
	if err := m.reboot(); err != nil {
		m.say(fmt.Sprintf("cannot reboot: %v; the kernel panics instead", err))
	}
}

// patience is how long the kernel would wait with its own reboot.
func patience(proc string) time.Duration {
	text, err := os.ReadFile(proc + "/sys/kernel/panic")
	if err != nil {
		return 0
	}
	seconds, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || seconds < 0 {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, attention)
}
