package images

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Each mounted image has a folder of its own below State/images: fs is where it is
// mounted, upper and work hold what was changed in it. They stay as long as the image
// is mounted, over restarts and reboots of the server, so that the file handles that
// nodes hold stay valid; they hold nothing that could not be made again.

func (m *Manager) folder(id string) string { return filepath.Join(m.config.State, "images", id) }

func (m *Manager) mountPoint(id string) string { return filepath.Join(m.folder(id), "fs") }

// mountImage mounts an image that is not mounted.
func (m *Manager) mountImage(e *entry) error {
	dir := m.folder(e.ID)
	if err := os.MkdirAll(m.mountPoint(e.ID), 0o755); err != nil {
		return fmt.Errorf("cannot mount image %.12s: %w", e.ID, err)
	}
	err := m.tryMount(e)
	if err != nil {
		// The upper folder may belong to other layers (the appliance was upgraded), or
		// have been damaged by a power cut. It can be made again.
		m.config.Warn("image %.12s: %v; trying again without what was changed in it", e.ID, err)
		for _, name := range []string{"upper", "work", featuresDone} {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				return fmt.Errorf("cannot mount image %.12s: %w", e.ID, err)
			}
		}
		err = m.tryMount(e)
	}
	if err != nil {
		return fmt.Errorf("cannot mount image %.12s: %w", e.ID, err)
	}
	return nil
}

func (m *Manager) tryMount(e *entry) error {
	dir := m.folder(e.ID)
	upper, work := filepath.Join(dir, "upper"), filepath.Join(dir, "work")
	for _, d := range []string{upper, work} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	return mountOverlay("walt-"+e.ID[:12], e.lower, upper, work, m.mountPoint(e.ID))
}

// mountOverlay mounts an overlay that NFS can export: its file handles must survive a
// restart of the server (index), and be found again from their number (nfs_export).
// Neither set-id bits nor devices work on the server; nodes see them all the same.
func mountOverlay(source string, lower []string, upper, work, target string) error {
	fsfd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("cannot open file system overlay: %w", err)
	}
	defer unix.Close(fsfd)
	options := [][2]string{{"source", source}}
	for _, l := range lower {
		options = append(options, [2]string{"lowerdir+", l})
	}
	options = append(options, [2]string{"upperdir", upper}, [2]string{"workdir", work}, [2]string{"index", "on"}, [2]string{"nfs_export", "on"})
	for _, o := range options {
		if err := unix.FsconfigSetString(fsfd, o[0], o[1]); err != nil {
			return fmt.Errorf("option %s=%s: %w%s", o[0], o[1], err, kernelMessages(fsfd))
		}
	}
	if err := unix.FsconfigCreate(fsfd); err != nil {
		return fmt.Errorf("overlay refused: %w%s", err, kernelMessages(fsfd))
	}
	mfd, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOATIME)
	if err != nil {
		return fmt.Errorf("overlay refused: %w%s", err, kernelMessages(fsfd))
	}
	defer unix.Close(mfd)
	if err := unix.MoveMount(mfd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("cannot attach at %s: %w", target, err)
	}
	return nil
}

// kernelMessages returns what the kernel says of a file system being configured.
func kernelMessages(fd int) string {
	var all strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := unix.Read(fd, buf)
		if err != nil || n <= 0 {
			return all.String()
		}
		all.WriteString("; " + strings.TrimSpace(string(buf[:n])))
	}
}

// mounted is a mount of this process's view.
type mounted struct {
	point   string
	options string // of the file system
}

// overlays returns the overlays mounted below a folder, from /proc/self/mountinfo
// (proc_pid_mountinfo(5)).
func overlays(folder string) ([]mounted, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("cannot see what is mounted: %w", err)
	}
	defer f.Close()
	var found []mounted
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20) // overlays of many layers have long lines
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 6 || len(kind) < 3 || kind[0] != "overlay" {
			continue
		}
		if point := unescape(fields[4]); strings.HasPrefix(point, folder+"/") {
			found = append(found, mounted{point, kind[2]})
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("cannot see what is mounted: %w", err)
	}
	return found, nil
}

// unescape decodes the octal escapes of mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// findMounts returns the images that are mounted.
func (m *Manager) findMounts() (map[string]bool, error) {
	folder, err := filepath.EvalSymlinks(filepath.Join(m.config.State, "images"))
	if err != nil {
		return nil, fmt.Errorf("cannot see what is mounted: %w", err)
	}
	all, err := overlays(folder)
	if err != nil {
		return nil, err
	}
	found := map[string]bool{}
	for _, o := range all {
		rest, _ := strings.CutPrefix(o.point, folder+"/")
		id, name, _ := strings.Cut(rest, "/")
		if name != "fs" || !digestHex().MatchString(id) {
			continue
		}
		if !strings.Contains(o.options, "nfs_export=on") && !found[id] {
			m.config.Warn("image %.12s: the kernel turned nfs_export off; nodes will lose their root when the server restarts", id)
		}
		found[id] = true
	}
	return found, nil
}

// unmountImage unmounts an image and deletes what was changed in it.
func (m *Manager) unmountImage(id string) error {
	if err := unix.Unmount(m.mountPoint(id), unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("cannot unmount image %.12s: %w", id, err)
	}
	if err := os.RemoveAll(m.folder(id)); err != nil {
		return fmt.Errorf("cannot delete what was changed in image %.12s: %w", id, err)
	}
	return nil
}
