package boot

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/waltos/waltos/supervisor/disk"
	"golang.org/x/sys/unix"
)

// prepareData makes sure of the partition, and formats, checks or leaves it.
func (s *state) prepareData() error {
	for _, m := range kernelMounts[:3] {
		if err := unix.Mount(m.Target, Sysroot+m.Target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("cannot mount %s in the new root: %w", m.Target, err)
		}
	}
	if s.name == live {
		return nil
	}
	var err error
	if s.data, err = disk.EnsureData(s.root.Disk); err != nil {
		return err
	}
	if s.data.Done != "" {
		s.console.Say("partition data (%s, %d MiB) was %s", s.data.Device, s.data.Size>>20, s.data.Done)
	}
	decision, err := s.data.Decide()
	switch {
	case err != nil:
		return err
	case decision.Format:
		if err := s.format(); err != nil {
			return err
		}
	case decision.Check:
		if err := s.repair(); err != nil {
			return err
		}
	}
	if s.data.Fresh {
		return s.data.Formatted()
	}
	return nil
}

func (s *state) format() error {
	s.console.Say("formatting %s ...", s.data.Device)
	// The kernel zeroes the inode tables and the journal later, in the background.
	_, err := inRoot("/usr/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-L", disk.DataName, "-m", "1",
		"-E", "lazy_itable_init=1,lazy_journal_init=1", s.data.Device)
	return err
}

// repair runs e2fsck without questions. Status 1 and 2 mean repaired; 2, that the
// machine should be rebooted, is for file systems in use.
func (s *state) repair() error {
	s.console.Say("checking %s ...", s.data.Device)
	out, err := inRoot("/usr/sbin/e2fsck", "-p", s.data.Device)
	var status *exec.ExitError
	if errors.As(err, &status) && status.ExitCode() <= 2 {
		s.console.Say("e2fsck: %s", out)
		return nil
	}
	return err
}

// inRoot runs a program of the new root in the new root.
func inRoot(command ...string) (output string, err error) {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: Sysroot}
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin", "LANG=C.UTF-8"}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	output = strings.TrimSpace(out.String())
	if err != nil {
		return output, fmt.Errorf("cannot run %s: %w: %s", strings.Join(command, " "), err, output)
	}
	return output, nil
}

func (s *state) mountData() error {
	target := Sysroot + "/var"
	if s.name == live {
		s.console.Alarm("this is a live system: its data is in memory, and lost when it stops")
		return Mount{"tmpfs", target, "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"}.Do()
	}
	// Other programs may not trust an ext4 that ran into errors; neither does the kernel.
	m := Mount{s.data.Device, target, "ext4", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOATIME, "errors=remount-ro"}
	if err := m.Do(); err != nil {
		if !errors.Is(err, unix.EUCLEAN) && !errors.Is(err, unix.EINVAL) {
			return err
		}
		if err := s.repair(); err != nil {
			return err
		}
		if err := m.Do(); err != nil {
			return err
		}
	}
	began := time.Now()
	grown, err := s.data.Grow(target)
	if err != nil {
		s.console.Say("%v; the data partition is used as it is", err)
	}
	if grown {
		s.console.Say("file system of %s grown to %d MiB in %.1f s", s.data.Device, s.data.Size>>20, time.Since(began).Seconds())
	}
	return nil
}

// switchRoot makes the new root the root, frees the memory of the initramfs, and becomes
// the init of the new root.
func (s *state) switchRoot() error {
	// Below the bound folders of the new root the originals are the same file systems.
	if err := unix.Mount("/run", Sysroot+"/run", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("cannot move /run: %w", err)
	}
	if err := (Mount{"tmpfs", Sysroot + "/tmp", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"}).Do(); err != nil {
		return err
	}
	for _, m := range []string{"/dev", "/sys", "/proc"} {
		if err := unix.Unmount(m, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("cannot unmount %s: %w", m, err)
		}
	}
	if err := removeInitramfs(); err != nil {
		return err
	}
	if err := unix.Chdir(Sysroot); err != nil {
		return fmt.Errorf("cannot enter the new root: %w", err)
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("cannot move the new root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("cannot change the root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("cannot enter the new root: %w", err)
	}
	if err := s.report.Save("/run/walt/boot.json"); err != nil {
		s.console.Say("%v", err)
	}
	err := unix.Exec(Init, []string{Init}, []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"})
	return fmt.Errorf("cannot execute %s: %w", Init, err)
}

// removeInitramfs deletes what is on the file system of "/" itself.
func removeInitramfs() error {
	var root unix.Stat_t
	if err := unix.Lstat("/", &root); err != nil {
		return fmt.Errorf("cannot look at the initramfs: %w", err)
	}
	var remove func(dir string)
	remove = func(dir string) {
		entries, err := os.ReadDir(dir + "/")
		if err != nil {
			return // what stays only costs memory
		}
		for _, e := range entries {
			path := dir + "/" + e.Name()
			var st unix.Stat_t
			if unix.Lstat(path, &st) != nil || st.Dev != root.Dev {
				continue
			}
			if e.IsDir() {
				remove(path)
			}
			_ = os.Remove(path)
		}
	}
	remove("")
	return nil
}
