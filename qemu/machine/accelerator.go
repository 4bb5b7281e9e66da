package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Accelerator is how QEMU executes the guest's instructions.
type Accelerator string

// The accelerators.
const (
	KVM Accelerator = "kvm" // by the processor
	TCG Accelerator = "tcg" // by translation: works everywhere, some ten times slower
)

// Option returns what QEMU calls it, after -accel.
func (a Accelerator) Option() string {
	if a == TCG {
		return "tcg,tb-size=256" // MiB of translated code
	}
	return string(a)
}

// Processor returns the model of the guest's processor. What Intel calls fast is the
// opposite when it is translated: string instructions that move byte after byte. Without
// these features a kernel clears pages by eight bytes, and boots in two thirds of the time.
func (a Accelerator) Processor() string {
	if a == TCG {
		return "max,erms=off,fsrm=off"
	}
	return "max"
}

// kvmLimit is how long the kernel of the probe, which takes about a second, may take;
// a broken KVM may also just hang.
const kvmLimit = 30 * time.Second

// Choose returns KVM if a Linux kernel really runs with it until it looks for its
// root, else TCG and the reason. That /dev/kvm exists proves nothing, nor does a boot
// sector: there are hosts where the first vector instruction ends a guest. The result
// is kept in a file until the host boots again or QEMU changes.
func Choose(ctx context.Context, p Program, kernel, cache string) (Accelerator, string) {
	key := probeKey(p)
	var known probeResult
	if data, err := os.ReadFile(cache); err == nil && json.Unmarshal(data, &known) == nil && known.Key == key {
		return known.Accelerator, known.Reason
	}
	result := probeResult{Key: key, Accelerator: KVM}
	if err := tryKVM(ctx, p, kernel); err != nil {
		result.Accelerator, result.Reason = TCG, err.Error()
	}
	if ctx.Err() == nil {
		saveProbe(cache, result)
	}
	return result.Accelerator, result.Reason
}

type probeResult struct {
	Key         string
	Accelerator Accelerator
	Reason      string
}

// saveProbe is allowed to fail: the next run then probes again.
func saveProbe(cache string, result probeResult) {
	data, err := json.Marshal(result)
	if err != nil || os.MkdirAll(filepath.Dir(cache), 0o755) != nil {
		return
	}
	if os.WriteFile(cache+".new", data, 0o644) == nil {
		os.Rename(cache+".new", cache)
	}
}

func probeKey(p Program) string {
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // absent: the key is only less precise
	_, err := os.Stat("/dev/kvm")
	return fmt.Sprintf("%s %s uid=%d kvm=%v", strings.TrimSpace(string(boot)), strings.Join(p.Argv, " "), os.Getuid(), err == nil)
}

func tryKVM(ctx context.Context, p Program, kernel string) error {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	f.Close()
	ctx, cancel := context.WithTimeout(ctx, kvmLimit)
	defer cancel()
	return runProbe(ctx, p, KVM, kernel)
}

// A kernel without a root panics with the first words, then resets the machine, which
// ends this QEMU. The second are QEMU's own: it then holds the guest for ever.
const (
	probeReached = "Unable to mount root fs"
	probeBroken  = "KVM internal error"
)

func runProbe(ctx context.Context, p Program, a Accelerator, kernel string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := p.Command(ctx, "-no-user-config", "-nodefaults", "-display", "none", "-machine", "q35", "-cpu", "max", "-m", "256",
		"-accel", a.Option(), "-serial", "stdio", "-no-reboot", "-kernel", kernel, "-append", "console=ttyS0 panic=-1")
	words := &probeOutput{cancel: cancel}
	cmd.Stdout, cmd.Stderr = words, words
	err := cmd.Run()
	switch {
	case words.reached:
		return nil
	case words.broken:
		return errors.New("a kernel with KVM ended in a " + probeBroken)
	case ctx.Err() != nil:
		return fmt.Errorf("a kernel did not look for its root: %w", context.Cause(ctx))
	}
	return fmt.Errorf("QEMU ended (%v) before the kernel looked for its root: %s", err, words.lastLine())
}

// probeOutput looks for the words that decide, and ends the probe at the bad ones.
type probeOutput struct {
	tail
	cancel          context.CancelFunc
	reached, broken bool
}

func (o *probeOutput) Write(data []byte) (int, error) {
	o.tail.Write(data)
	text := o.String()
	o.reached = o.reached || strings.Contains(text, probeReached)
	if strings.Contains(text, probeBroken) {
		o.broken = true
		o.cancel()
	}
	return len(data), nil
}

func (o *probeOutput) lastLine() string {
	text := o.String()
	return text[strings.LastIndexByte(text, '\n')+1:]
}
