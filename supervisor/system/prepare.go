package system

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/services/periodic"
	"github.com/waltos/waltos/supervisor/boot"
	"github.com/waltos/waltos/supervisor/cgroup"
	"github.com/waltos/waltos/supervisor/clock"
	"github.com/waltos/waltos/supervisor/crash"
	"github.com/waltos/waltos/supervisor/journal"
	"github.com/waltos/waltos/supervisor/site"
	"golang.org/x/sys/unix"
)

const safe = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// mounts of the running system, besides those that the initramfs made.
var mounts = []boot.Mount{
	{Source: "cgroup2", Target: cgroup.Mount, Type: "cgroup2", Flags: safe, Options: "nsdelegate,memory_recursiveprot"},
	{Source: "devpts", Target: "/dev/pts", Type: "devpts", Flags: unix.MS_NOSUID | unix.MS_NOEXEC, Options: "gid=5,mode=0620,ptmxmode=0666"},
	{Source: "shm", Target: "/dev/shm", Type: "tmpfs", Flags: unix.MS_NOSUID | unix.MS_NODEV, Options: "mode=1777"},
	{Source: "pstore", Target: crash.Folder, Type: "pstore", Flags: safe},
	{Source: "mqueue", Target: "/dev/mqueue", Type: "mqueue", Flags: safe},
}

func mountAll() error {
	var failures []error
	for _, m := range mounts {
		failures = append(failures, m.Do())
	}
	// Units with a view of their own see what is mounted later, and some mount for all.
	if err := unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, ""); err != nil {
		failures = append(failures, fmt.Errorf("cannot share mounts with units: %w", err))
	}
	return errors.Join(failures...)
}

// links of /dev that the kernel does not make.
var links = map[string]string{
	"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0", "/dev/stdout": "/proc/self/fd/1",
	"/dev/stderr": "/proc/self/fd/2", "/dev/ptmx": "pts/ptmx",
}

// options below /proc/sys.
var options = map[string]string{
	"kernel/panic_on_oops":             "1", // a server that limps is worse than one that reboots
	"fs/protected_hardlinks":           "1",
	"fs/protected_symlinks":            "1",
	"kernel/dmesg_restrict":            "1",
	"net/core/somaxconn":               "4096",
	"kernel/unprivileged_bpf_disabled": "1",
}

// openFiles is the limit of PID 1 itself, which holds the descriptors of all units.
const openFiles = 1 << 20

func setOptions() error {
	var failures []error
	for path, value := range options {
		if err := os.WriteFile(filepath.Join("/proc/sys", path), []byte(value+"\n"), 0); err != nil {
			failures = append(failures, fmt.Errorf("cannot set kernel option: %w", err))
		}
	}
	// A panic of PID 1 or of the kernel must end in a reboot, also without panic=.
	if text, err := os.ReadFile("/proc/sys/kernel/panic"); err == nil && strings.TrimSpace(string(text)) == "0" {
		failures = append(failures, os.WriteFile("/proc/sys/kernel/panic", []byte("10\n"), 0))
	}
	for path, target := range links {
		if _, err := os.Lstat(path); err != nil {
			failures = append(failures, os.Symlink(target, path))
		}
	}
	limit := unix.Rlimit{Cur: openFiles, Max: openFiles}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		failures = append(failures, fmt.Errorf("cannot raise the limit of open files: %w", err))
	}
	return errors.Join(failures...)
}

// folder is an element of folders.json, which the builder writes from appliance.hcl.
type folder struct {
	Path string `json:"path"`
	User string `json:"user"`
	Mode string `json:"mode"`
}

const foldersFile = "/usr/lib/walt/folders.json"

// makeFolders makes what the read-only root only points to. Owner and mode are set at
// each boot: the image is what says them.
func makeFolders() error {
	text, err := os.ReadFile(foldersFile)
	if err != nil {
		return fmt.Errorf("cannot make folders: %w", err)
	}
	var folders []folder
	if err := json.Unmarshal(text, &folders); err != nil {
		return fmt.Errorf("cannot read %s: %w", foldersFile, err)
	}
	var failures []error
	for _, f := range folders {
		failures = append(failures, f.make())
	}
	return errors.Join(failures...)
}

func (f folder) make() error {
	mode, uid, gid := uint64(0o755), 0, 0
	if f.Mode != "" {
		var err error
		if mode, err = strconv.ParseUint(f.Mode, 8, 12); err != nil {
			return fmt.Errorf("cannot make folder %s: mode %q is not octal", f.Path, f.Mode)
		}
	}
	if f.User != "" && f.User != "root" {
		account, err := user.Lookup(f.User)
		if err != nil {
			return fmt.Errorf("cannot make folder %s: %w", f.Path, err)
		}
		if uid, err = strconv.Atoi(account.Uid); err != nil {
			return fmt.Errorf("cannot make folder %s: %w", f.Path, err)
		}
		if gid, err = strconv.Atoi(account.Gid); err != nil {
			return fmt.Errorf("cannot make folder %s: %w", f.Path, err)
		}
	}
	if err := os.MkdirAll(f.Path, 0o755); err != nil {
		return fmt.Errorf("cannot make folder: %w", err)
	}
	if err := unix.Lchown(f.Path, uid, gid); err != nil {
		return fmt.Errorf("cannot give folder %s away: %w", f.Path, err)
	}
	if err := unix.Chmod(f.Path, uint32(mode)); err != nil {
		return fmt.Errorf("cannot protect folder %s: %w", f.Path, err)
	}
	return nil
}

const (
	clockFile   = "/var/lib/walt/clock"
	clockDevice = "/dev/rtc0"
	clockTime   = 10 * time.Minute
)

// setClock: the time of the last run, or of the build, is nearer than what a machine without
// battery begins with; the time service does the rest.
func (s *system) setClock() error {
	built, _ := time.Parse(time.RFC3339, identity().Time)
	s.clock = &clock.Keeper{Machine: clock.System{RTC: clockDevice}, File: clockFile, Built: built}
	restored, err := s.clock.Restore()
	if restored != nil {
		s.console.Say("%v", restored)
	}
	// Without it the next boot only knows less.
	save := func() { _ = s.clock.Save() }
	save()
	go periodic.Every(context.Background(), clockTime, save)
	return err
}

// Paths of what the site configuration becomes; the read-only root links to them.
const (
	runFolder     = "/run/walt"
	effectiveSite = runFolder + "/site.hcl"
	firmwareSite  = "/sys/firmware/qemu_fw_cfg/by_name/opt/walt/walt.hcl/raw"
)

// configure finds the site configuration and applies what is the supervisor's.
func (s *system) configure() error {
	var failures []error
	result, err := site.Config{
		File: hcl.SitePath, ServerConf: "/etc/walt/server.conf", LastGood: "/var/lib/walt/config/last-good.hcl",
		Effective: effectiveSite, Secret: runFolder + "/database-url", Owner: "walt-db",
		First: []site.Source{
			{Name: "walt.hcl of the boot partition", Read: s.readESP},
			{Name: "QEMU fw_cfg opt/walt/walt.hcl", Read: s.readFirmware},
		},
	}.Load()
	failures = append(failures, err)
	s.mu.Lock()
	s.site = result
	s.mu.Unlock()
	bounds := journal.Standard
	bounds.Size, bounds.Age = result.Site.Journal.Size(), result.Site.Journal.Age()
	s.journal.Bound(bounds)
	if s.site.Refused != "" {
		s.console.Alarm("the configuration is refused:\n%s", s.site.Refused)
		s.console.Alarm("%s is used instead", s.site.Source)
	} else {
		s.console.Say("configuration: %s", s.site.Source)
	}
	failures = append(failures, s.setHostname(), s.setKeys(), s.setZone())
	s.setWatchdog()
	failures = append(failures, s.setKernel())
	// A resolver file without servers is better than none; netconfig fills it.
	if f, err := os.OpenFile(runFolder+"/resolv.conf", os.O_CREATE|os.O_WRONLY, 0o644); err == nil {
		f.Close()
	}
	return errors.Join(failures...)
}

func (s *system) setHostname() error {
	name := s.site.Site.HostName
	if err := unix.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("cannot set the host name to %q: %w", name, err)
	}
	if err := os.WriteFile(runFolder+"/hostname", []byte(name+"\n"), 0o644); err != nil {
		return fmt.Errorf("cannot write host name: %w", err)
	}
	return nil
}

// setKeys writes the keys of administrators: those of the site file, no others.
func (s *system) setKeys() error {
	const dir = "/root/.ssh"
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("cannot write ssh keys: %w", err)
	}
	text := "# From walt.hcl, block ssh; written at each boot.\n"
	for _, key := range s.site.Site.SSH.AuthorizedKeys {
		text += key + "\n"
	}
	if err := os.WriteFile(dir+"/authorized_keys", []byte(text), 0o600); err != nil {
		return fmt.Errorf("cannot write ssh keys: %w", err)
	}
	return nil
}

func (s *system) setZone() error {
	const zones = "/usr/share/zoneinfo"
	zone := s.site.Site.Time.Zone
	target := filepath.Join(zones, filepath.Clean("/"+zone))
	if info, err := os.Stat(target); err != nil || !info.Mode().IsRegular() {
		s.console.Say("no time zone is named %q; UTC is used", zone)
		target = zones + "/UTC"
	}
	link := runFolder + "/localtime"
	if err := os.Remove(link); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cannot set the time zone: %w", err)
	}
	if err := os.Symlink(target, link); err != nil {
		return fmt.Errorf("cannot set the time zone: %w", err)
	}
	return nil
}
