package screen

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/sys/unix"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/supervisor/control"
	"github.com/waltos/waltos/supervisor/journal"
)

// running is the machine that has booted.
type running struct {
	client  control.Client
	journal string   // folder
	sites   []string // files of the configuration, the first that is valid counts
}

func format(r journal.Record) string {
	return fmt.Sprintf("%s %s: %s", r.Time().Format("01-02 15:04:05"), r.Unit, r.Text)
}

// Log implements Machine.
func (m *running) Log(ctx context.Context, lines int) ([]string, error) {
	_ = m.client.Flush(ctx) // the disk has what is older
	var list []string
	err := journal.Last(m.journal, journal.Query{Lines: lines}, func(r journal.Record) error {
		list = append(list, format(r))
		return ctx.Err()
	})
	if err != nil {
		// A disk that has failed is a reason to look at the kernel's messages.
		kernel, kernelErr := kernelLog()
		return kernel, kernelErr
	}
	return list, nil
}

// Follow implements Machine.
func (m *running) Follow(ctx context.Context, each func(string)) error {
	return m.client.Follow(ctx, func(uint64) error { return nil }, func(r journal.Record) error {
		each(format(r))
		return nil
	})
}

// Site implements Machine.
func (m *running) Site() ([]byte, error) {
	var failures []error
	for _, path := range m.sites {
		text, err := os.ReadFile(path)
		if err == nil {
			_, err = hcl.ParseSite(text, path)
		}
		if err == nil {
			return text, nil
		}
		failures = append(failures, err)
	}
	return nil, fmt.Errorf("cannot read the configuration: %w", errors.Join(failures...))
}

// Configure implements Machine.
func (m *running) Configure(ctx context.Context, text []byte) (string, error) {
	return m.client.Configure(ctx, text)
}

// End implements Machine.
func (m *running) End(ctx context.Context, what string) error { return m.client.Shutdown(ctx, what) }

// Admit implements Machine. A configuration that cannot be read locks nobody out: who is
// at the console is at the machine.
func (m *running) Admit(password string) bool {
	text, err := m.Site()
	if err != nil {
		return true
	}
	site, err := hcl.ParseSite(text, "site file")
	if err != nil || site.Console.PasswordHash == "" {
		return true
	}
	return bcrypt.CompareHashAndPassword([]byte(site.Console.PasswordHash), []byte(password)) == nil
}

// stranded is a machine whose boot has failed: there is nothing but the kernel.
type stranded struct{}

var errStranded = errors.New("the boot has failed; there is nothing to change")

// Log implements Machine.
func (stranded) Log(context.Context, int) ([]string, error) { return kernelLog() }

// Follow implements Machine.
func (stranded) Follow(context.Context, func(string)) error { return errStranded }

// Site implements Machine.
func (stranded) Site() ([]byte, error) { return nil, errStranded }

// Configure implements Machine.
func (stranded) Configure(context.Context, []byte) (string, error) { return "", errStranded }

// End implements Machine.
func (stranded) End(_ context.Context, what string) error {
	unix.Sync()
	order := unix.LINUX_REBOOT_CMD_RESTART
	if what == "poweroff" {
		order = unix.LINUX_REBOOT_CMD_POWER_OFF
	}
	if err := unix.Reboot(order); err != nil {
		return fmt.Errorf("cannot %s: %w", what, err)
	}
	return nil
}

// Admit implements Machine.
func (stranded) Admit(string) bool { return true }

func kernelLog() ([]string, error) {
	lines, err := journal.Kernel()
	list := make([]string, 0, len(lines))
	for _, l := range lines {
		list = append(list, fmt.Sprintf("[%10.4f] %s", l.Since.Seconds(), l.Text))
	}
	return list, err
}

// watchMessages tells when the kernel has printed something on its consoles.
func watchMessages(ctx context.Context, tell func()) {
	for ctx.Err() == nil {
		f, err := os.OpenFile("/dev/kmsg", os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return // not the machine's own console: a test
		}
		_, _ = f.Seek(0, 2) // what comes from now on
		stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Now()) })
		_ = journal.ReadKernel(f, func(l journal.KernelLine) {
			if l.Level < printed() {
				tell()
			}
		})
		stop()
		f.Close()
		pause(ctx, time.Second)
	}
}

// printed is below what urgency the kernel prints a message.
func printed() int {
	level := 7
	if text, err := os.ReadFile("/proc/sys/kernel/printk"); err == nil {
		_, _ = fmt.Sscan(string(text), &level) // else all of them
	}
	return level
}
