package platform

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/waltos/waltos/image/qcow2"
	"github.com/waltos/waltos/image/sign"
	"github.com/waltos/waltos/qemu/firmware"
	"github.com/waltos/waltos/qemu/machine"
	"github.com/waltos/waltos/services/periodic"
)

const (
	applianceName = "appliance"
	outMAC        = "52:54:00:00:00:01"
	netMAC        = "52:54:00:00:00:02"
	siteName      = "opt/walt/walt.hcl" // where the supervisor looks for it in fw_cfg
)

// newAppliance makes the disks of the appliance and describes it.
func (l *Lab) newAppliance() (*Host, error) {
	o := &l.options
	forwards, err := o.forwards()
	if err != nil {
		return nil, err
	}
	key, err := ensureKey(o.Folder)
	if err != nil {
		return nil, err
	}
	site, err := o.site(key)
	if err != nil {
		return nil, err
	}
	siteFile := filepath.Join(o.Folder, "walt.hcl")
	if err := os.WriteFile(siteFile, []byte(site), 0o644); err != nil {
		return nil, err
	}
	disk := filepath.Join(o.Folder, "appliance.qcow2")
	if _, err := os.Stat(disk); err != nil || !o.KeepDisk {
		if err := overlay(disk, o.Image.Disk, o.Growth); err != nil {
			return nil, err
		}
	}
	h := &Host{Name: applianceName, MAC: netMAC, Kind: "appliance", lab: l}
	h.spec = machine.Spec{
		Name: applianceName, Memory: o.Memory, Accelerator: o.Accelerator, Serial: true,
		Clock: o.Clock, Watchdog: true, Slots: 2,
		Disks: []machine.Disk{{File: disk, Serial: "waltos"}},
		Cards: []machine.Card{
			{MAC: outMAC, Out: &machine.Out{Forwards: forwards, Isolated: o.Isolated}},
			{MAC: netMAC},
		},
		Files: []machine.GuestFile{{Name: siteName, File: siteFile}},
	}
	if o.Direct {
		h.spec.Kernel = &machine.Kernel{Image: o.Image.Kernel, Initrd: o.Image.Initrd, Command: o.Image.Command}
		return h, nil
	}
	if o.SecureBoot {
		h.spec.Firmware, err = o.Tools.SecureBoot(o.Folder, o.Image.Trust)
		return h, err
	}
	h.spec.Firmware, err = o.firmware(applianceName)
	return h, err
}

// firmware gives a machine a UEFI with variables of its own.
func (o *Options) firmware(host string) (*machine.Firmware, error) {
	variables := filepath.Join(o.Folder, host+".variables.qcow2")
	if err := overlay(variables, o.Tools.Variables, 0); err != nil {
		return nil, err
	}
	return &machine.Firmware{Code: o.Tools.Firmware, Variables: variables}, nil
}

// SecureBoot gives a machine a UEFI with Secure Boot that trusts some keys; its variables are
// kept in a folder.
func (t *Tools) SecureBoot(folder string, trust []sign.Variable) (*machine.Firmware, error) {
	store, err := os.ReadFile(t.Variables)
	if err != nil {
		return nil, fmt.Errorf("cannot prepare Secure Boot: %w", err)
	}
	if store, err = firmware.Enrol(store, trust); err != nil {
		return nil, fmt.Errorf("cannot prepare Secure Boot: %w", err)
	}
	raw := filepath.Join(folder, "secure.variables.fd")
	if err := os.WriteFile(raw, store, 0o644); err != nil {
		return nil, fmt.Errorf("cannot prepare Secure Boot: %w", err)
	}
	variables := filepath.Join(folder, "secure.variables.qcow2")
	if err := overlay(variables, raw, 0); err != nil {
		return nil, fmt.Errorf("cannot prepare Secure Boot: %w", err)
	}
	return &machine.Firmware{Code: t.Secure, Variables: variables, Secure: true}, nil
}

// overlay makes a qcow2 file whose content is that of a raw file, with room to grow.
func overlay(file, raw string, growth int64) error {
	raw, err := filepath.Abs(raw)
	if err != nil {
		return err
	}
	info, err := os.Stat(raw)
	if err != nil {
		return fmt.Errorf("cannot use disk image: %w", err)
	}
	return writeDisk(file, qcow2.Image{Size: info.Size() + growth, Backing: raw})
}

func writeDisk(file string, image qcow2.Image) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := qcow2.Write(f, image); err != nil {
		return err
	}
	return f.Close()
}

// readyWords are the supervisor's when all its units are.
var readyWords = regexp.MustCompile(`walt: ready`)

// awaitAppliance does what makes the appliance boot, then waits until it says that it
// is ready and its API answers.
func (l *Lab) awaitAppliance(ctx context.Context, boot func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, l.options.Patience, fmt.Errorf("the appliance was not ready after %v", l.options.Patience))
	defer cancel()
	began := time.Now()
	l.say("appliance: power on (%s, %s, %d MiB)", l.options.Accelerator, l.bootWay(), l.options.Memory)
	if err := boot(ctx); err != nil {
		return err
	}
	defer l.heartbeat(l.Appliance, "to be ready")()
	if _, _, err := l.Appliance.Console().Wait(ctx, 0, readyWords); err != nil {
		return err
	}
	l.say("appliance: it says that it is ready; asking its API")
	if err := l.poll(ctx, l.Appliance, func() error { return answers(ctx, l.options.endpoint(apiPort)) }); err != nil {
		return err
	}
	l.mu.Lock()
	l.ready = time.Since(began)
	l.mu.Unlock()
	l.say("appliance: ready after %.1f s", time.Since(began).Seconds())
	return nil
}

func (l *Lab) bootWay() string {
	if l.options.Direct {
		return "direct kernel"
	}
	if l.options.SecureBoot {
		return "UEFI disk, Secure Boot"
	}
	return "UEFI disk"
}

// answers opens a session of the client API, as far as the version of the server.
// That a connection is accepted says nothing: QEMU accepts it.
func answers(ctx context.Context, endpoint string) error {
	dialer := net.Dialer{Timeout: pollPeriod * 10}
	conn, err := dialer.DialContext(ctx, "tcp", endpoint)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(pollPeriod * 10)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("10\nCSAPI\n")); err != nil {
		return err
	}
	line := make([]byte, 64)
	n, err := conn.Read(line)
	if err != nil {
		return err
	}
	if text := string(line[:n]); !strings.HasSuffix(text, "\n") {
		return fmt.Errorf("the API said %q instead of its version", text)
	}
	return nil
}

// pollPeriod is between two looks at what cannot be waited for otherwise.
const pollPeriod = time.Second / 2

// poll tries until it succeeds, the machine fails or the context ends.
func (l *Lab) poll(ctx context.Context, h *Host, try func() error) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var last error
	for {
		select {
		case <-timer.C:
		case <-h.Machine().Done():
			return fmt.Errorf("machine %s has ended", h.Name)
		case <-ctx.Done():
			return fmt.Errorf("%w; the last answer was: %v", context.Cause(ctx), last)
		}
		if last = try(); last == nil {
			return nil
		}
		if f := h.Console().Failure(); f != nil {
			return f
		}
		timer.Reset(pollPeriod)
	}
}

const heartbeatPeriod = 10 * time.Second

// heartbeat tells now and then that a machine is still waited for, until it is stopped.
func (l *Lab) heartbeat(h *Host, what string) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	go periodic.Every(ctx, heartbeatPeriod, func() {
		last := ""
		if lines := h.Console().Lines(1); len(lines) > 0 {
			last = strings.TrimSpace(lines[0])
		}
		l.say("%s: waiting for it %s; its console: %s", h.Name, what, shorten(last))
	})
	return cancel
}

func shorten(text string) string {
	const width = 90
	if len(text) > width {
		return text[:width] + "…"
	}
	return text
}
