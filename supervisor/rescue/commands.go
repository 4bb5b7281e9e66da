package rescue

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/waltos/waltos/services/kmod"
	"golang.org/x/sys/unix"
)

// commands are those that look at and repair a machine.
func commands() map[string]own {
	return map[string]own{
		"chroot":   {"FOLDER COMMAND...", "run a program in another root", 2, chroot},
		"clear":    {"", "clear the screen", 0, clearScreen},
		"date":     {"", "print the time", 0, date},
		"df":       {"", "print the space of file systems", 0, df},
		"dmesg":    {"", "print the messages of the kernel", 0, dmesg},
		"free":     {"", "print the memory", 0, free},
		"grep":     {"EXPRESSION [FILE...]", "print lines with a match", 1, grep},
		"head":     {"[-n LINES] [FILE...]", "print the first lines", 0, head},
		"help":     {"", "list commands", 0, help},
		"hexdump":  {"[FILE...]", "print bytes", 0, hexdump},
		"ip":       {"[up INTERFACE | down INTERFACE | add ADDRESS/LENGTH INTERFACE | via GATEWAY]", "print and change the network", 0, network},
		"kill":     {"[-SIGNAL] PID...", "send a signal", 1, kill},
		"ln":       {"-s TARGET LINK", "make a symbolic link", 3, link},
		"lsblk":    {"", "list disks and partitions", 0, lsblk},
		"lsmod":    {"", "list modules of the kernel", 0, lsmod},
		"modprobe": {"MODULE...", "load modules", 1, modprobe},
		"mount":    {"[-t TYPE] [-o OPTIONS] DEVICE FOLDER", "mount, or list what is", 0, mount},
		"poweroff": {"", "switch off at once", 0, ending(unix.LINUX_REBOOT_CMD_POWER_OFF)},
		"ps":       {"", "list processes", 0, processes},
		"reboot":   {"", "reboot at once", 0, ending(unix.LINUX_REBOOT_CMD_RESTART)},
		"sleep":    {"SECONDS", "wait", 1, sleep},
		"sync":     {"", "write everything to the disks", 0, func(context.Context, *call) error { unix.Sync(); return nil }},
		"tail":     {"[-n LINES] [FILE...]", "print the last lines", 0, tail},
		"umount":   {"FOLDER...", "unmount", 1, umount},
		"uname":    {"", "print what kernel runs", 0, uname},
		"wc":       {"[FILE...]", "count lines, words, bytes", 0, count},
	}
}

func help(_ context.Context, c *call) error {
	table := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	all := commands()
	for _, name := range names() {
		if command, ok := all[name]; ok {
			fmt.Fprintf(table, "%s %s\t%s\n", name, command.usage, command.about)
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	var rest []string
	for name := range borrowed {
		rest = append(rest, name)
	}
	slices.Sort(rest)
	_, err := fmt.Fprintf(c.out, "As usual: %s; cd, echo, test, read, set and the rest of the language of bash.\n", strings.Join(rest, ", "))
	return err
}

func clearScreen(_ context.Context, c *call) error {
	_, err := io.WriteString(c.out, "\x1b[H\x1b[2J")
	return err
}

func date(_ context.Context, c *call) error {
	_, err := fmt.Fprintln(c.out, time.Now().Format(time.RFC1123Z))
	return err
}

// inputs calls each for every file, or for the standard input.
func (c *call) inputs(files []string, each func(name string, r io.Reader) error) error {
	if len(files) == 0 {
		return each("", c.in)
	}
	for _, name := range files {
		f, err := os.Open(c.path(name))
		if err != nil {
			return err
		}
		err = each(name, f)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// maxLine bounds a line of input.
const maxLine = 1 << 20

func scan(r io.Reader, each func(line string) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		if err := each(lines.Text()); err != nil {
			return err
		}
	}
	return lines.Err()
}

func grep(ctx context.Context, c *call) error {
	pattern, err := regexp.Compile(c.args[0])
	if err != nil {
		return err
	}
	found := false
	err = c.inputs(c.args[1:], func(name string, r io.Reader) error {
		return scan(r, func(line string) error {
			if !pattern.MatchString(line) {
				return ctx.Err()
			}
			found = true
			if len(c.args) > 2 {
				line = name + ":" + line
			}
			_, err := fmt.Fprintln(c.out, line)
			return err
		})
	})
	if err == nil && !found {
		return errors.New("no match")
	}
	return err
}

// lineOption takes "-n LINES" from the arguments.
func (c *call) lineOption() (lines int, files []string, err error) {
	lines, files = 10, c.args
	if len(files) > 0 && files[0] == "-n" {
		if len(files) < 2 {
			return 0, nil, errNoNumber
		}
		if lines, err = strconv.Atoi(files[1]); err != nil || lines < 0 {
			return 0, nil, fmt.Errorf("-n %s: %w", files[1], errNoNumber)
		}
		files = files[2:]
	}
	return lines, files, nil
}

func head(_ context.Context, c *call) error {
	lines, files, err := c.lineOption()
	if err != nil {
		return err
	}
	return c.inputs(files, func(_ string, r io.Reader) error {
		left := lines
		err := scan(r, func(line string) error {
			if left == 0 {
				return io.EOF
			}
			left--
			_, err := fmt.Fprintln(c.out, line)
			return err
		})
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	})
}

func tail(_ context.Context, c *call) error {
	lines, files, err := c.lineOption()
	if err != nil {
		return err
	}
	return c.inputs(files, func(_ string, r io.Reader) error {
		var kept []string
		err := scan(r, func(line string) error {
			if kept = append(kept, line); len(kept) > lines {
				kept = kept[1:]
			}
			return nil
		})
		for _, line := range kept {
			fmt.Fprintln(c.out, line)
		}
		return err
	})
}

func count(_ context.Context, c *call) error {
	return c.inputs(c.args, func(name string, r io.Reader) error {
		lines, words, bytes := 0, 0, 0
		err := scan(r, func(line string) error {
			lines++
			words += len(strings.Fields(line))
			bytes += len(line) + 1
			return nil
		})
		fmt.Fprintln(c.out, lines, words, bytes, name)
		return err
	})
}

func hexdump(_ context.Context, c *call) error {
	return c.inputs(c.args, func(_ string, r io.Reader) error {
		d := hex.Dumper(c.out)
		_, err := io.Copy(d, r)
		return errors.Join(err, d.Close())
	})
}

func sleep(ctx context.Context, c *call) error {
	seconds, err := strconv.ParseFloat(c.args[0], 64)
	if err != nil || seconds < 0 {
		return fmt.Errorf("%s: %w", c.args[0], errNoNumber)
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Duration(seconds * float64(time.Second))):
		return nil
	}
}

func link(_ context.Context, c *call) error {
	if c.args[0] != "-s" {
		return errors.New("only symbolic links: ln -s TARGET LINK")
	}
	return os.Symlink(c.args[1], c.path(c.args[2]))
}

func kill(_ context.Context, c *call) error {
	signal, pids := unix.SIGTERM, c.args
	if name, ok := strings.CutPrefix(pids[0], "-"); ok {
		n, err := strconv.Atoi(name)
		if err != nil {
			n = int(unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(name), "SIG")))
		}
		if n <= 0 {
			return fmt.Errorf("no signal is named %q", name)
		}
		signal, pids = syscall.Signal(n), pids[1:]
	}
	for _, text := range pids {
		pid, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("%s: %w", text, errNoNumber)
		}
		if err := unix.Kill(pid, signal); err != nil {
			return fmt.Errorf("%d: %w", pid, err)
		}
	}
	return nil
}

// processes reads /proc (proc(5)).
func processes(_ context.Context, c *call) error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil {
			continue // it has ended
		}
		text := strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " "))
		if text == "" {
			name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
			if err != nil {
				continue
			}
			text = "[" + strings.TrimSpace(string(name)) + "]"
		}
		fmt.Fprintf(c.out, "%6d %s\n", pid, text)
	}
	return nil
}

func free(_ context.Context, c *call) error {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return err
	}
	unit := uint64(info.Unit)
	_, err := fmt.Fprintf(c.out, "%d MiB, %d MiB free\n", uint64(info.Totalram)*unit>>20, uint64(info.Freeram)*unit>>20)
	return err
}

func uname(_ context.Context, c *call) error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	_, err := fmt.Fprintln(c.out, unix.ByteSliceToString(u.Sysname[:]), unix.ByteSliceToString(u.Nodename[:]), unix.ByteSliceToString(u.Release[:]),
		unix.ByteSliceToString(u.Version[:]), unix.ByteSliceToString(u.Machine[:]))
	return err
}

// dmesg reads /dev/kmsg up to what is there now (dev-kmsg of the kernel's documentation).
func dmesg(ctx context.Context, c *call) error {
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	buffer := make([]byte, 8192)
	for ctx.Err() == nil {
		n, err := unix.Read(fd, buffer)
		if errors.Is(err, unix.EPIPE) {
			continue // overwritten meanwhile
		}
		if err != nil {
			return nil // EAGAIN: that was all
		}
		head, text, _ := strings.Cut(string(buffer[:n]), ";")
		text, _, _ = strings.Cut(text, "\n")
		seconds := 0.0
		if fields := strings.Split(head, ","); len(fields) > 2 {
			if micros, err := strconv.ParseFloat(fields[2], 64); err == nil {
				seconds = micros / 1e6
			}
		}
		if _, err := fmt.Fprintf(c.out, "[%12.6f] %s\n", seconds, text); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func mountTable() ([][]string, error) {
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	var rows [][]string
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) >= 4 {
			rows = append(rows, fields)
		}
	}
	return rows, nil
}

func df(_ context.Context, c *call) error {
	rows, err := mountTable()
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "SIZE MiB\tFREE MiB\tTYPE\tMOUNTED ON")
	for _, row := range rows {
		var s unix.Statfs_t
		if unix.Statfs(row[1], &s) == nil && s.Blocks > 0 {
			fmt.Fprintf(table, "%d\t%d\t%s\t%s\n", int64(s.Blocks)*s.Frsize>>20, int64(s.Bavail)*s.Frsize>>20, row[2], row[1])
		}
	}
	return table.Flush()
}

// mountFlags are options of mount(8) that are flags of mount(2).
var mountFlags = map[string]uintptr{
	"ro": unix.MS_RDONLY, "bind": unix.MS_BIND, "remount": unix.MS_REMOUNT, "noexec": unix.MS_NOEXEC, "nosuid": unix.MS_NOSUID,
	"nodev": unix.MS_NODEV, "noatime": unix.MS_NOATIME, "rbind": unix.MS_BIND | unix.MS_REC, "rw": 0, "defaults": 0,
}

func mount(_ context.Context, c *call) error {
	args, fstype, options := c.args, "", ""
	if len(args) == 0 {
		rows, err := mountTable()
		for _, row := range rows {
			fmt.Fprintf(c.out, "%s on %s type %s (%s)\n", row[0], row[1], row[2], row[3])
		}
		return err
	}
	for len(args) > 2 && (args[0] == "-t" || args[0] == "-o") {
		if args[0] == "-t" {
			fstype = args[1]
		} else {
			options = args[1]
		}
		args = args[2:]
	}
	if len(args) != 2 {
		return errors.New("usage: mount [-t TYPE] [-o OPTIONS] DEVICE FOLDER")
	}
	var flags uintptr
	var rest []string
	for _, option := range strings.Split(options, ",") {
		if flag, ok := mountFlags[option]; ok {
			flags |= flag
		} else if option != "" {
			rest = append(rest, option)
		}
	}
	types := []string{fstype}
	if fstype == "" && flags&(unix.MS_BIND|unix.MS_REMOUNT) == 0 {
		types = []string{"ext4", "erofs", "vfat", "iso9660"}
	}
	var failures []error
	for _, fstype := range types {
		err := unix.Mount(args[0], c.path(args[1]), fstype, flags, strings.Join(rest, ","))
		if err == nil {
			return nil
		}
		failures = append(failures, fmt.Errorf("cannot mount %s on %s as %s: %w", args[0], args[1], fstype, err))
	}
	return errors.Join(failures...)
}

func umount(_ context.Context, c *call) error {
	for _, folder := range c.args {
		if err := unix.Unmount(c.path(folder), 0); err != nil {
			return fmt.Errorf("%s: %w", folder, err)
		}
	}
	return nil
}

// lsblk reads /sys/class/block.
func lsblk(_ context.Context, c *call) error {
	const folder = "/sys/class/block"
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "DEVICE\tMiB\tPARTITION\tMODEL")
	for _, e := range entries {
		read := func(file string) string {
			text, err := os.ReadFile(filepath.Join(folder, e.Name(), file))
			if err != nil {
				return ""
			}
			return strings.TrimSpace(string(text))
		}
		sectors, err := strconv.ParseInt(read("size"), 10, 64)
		if err != nil || sectors == 0 {
			continue
		}
		partition := ""
		for line := range strings.Lines(read("uevent")) {
			if name, ok := strings.CutPrefix(strings.TrimSpace(line), "PARTNAME="); ok {
				partition = name
			}
		}
		fmt.Fprintf(table, "/dev/%s\t%d\t%s\t%s\n", e.Name(), sectors>>11, partition, read("device/model"))
	}
	return table.Flush()
}

func lsmod(_ context.Context, c *call) error {
	text, err := os.ReadFile("/proc/modules")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		name, _, _ := strings.Cut(line, " ")
		fmt.Fprintln(c.out, name)
	}
	return nil
}

func modprobe(_ context.Context, c *call) error { return kmod.Modprobe(c.args) }

// network prints the interfaces, or changes one.
func network(_ context.Context, c *call) error {
	if len(c.args) == 0 {
		return showNetwork(c.out)
	}
	switch args := c.args[1:]; {
	case c.args[0] == "up" && len(args) == 1, c.args[0] == "down" && len(args) == 1:
		l, err := netlink.LinkByName(args[0])
		if err != nil {
			return err
		}
		if c.args[0] == "up" {
			return netlink.LinkSetUp(l)
		}
		return netlink.LinkSetDown(l)
	case c.args[0] == "add" && len(args) == 2:
		address, err := netlink.ParseAddr(args[0])
		if err != nil {
			return err
		}
		l, err := netlink.LinkByName(args[1])
		if err != nil {
			return err
		}
		return netlink.AddrAdd(l, address)
	case c.args[0] == "via" && len(args) == 1:
		address, err := netlink.ParseAddr(args[0] + "/32")
		if err != nil {
			return err
		}
		return netlink.RouteReplace(&netlink.Route{Gw: address.IP})
	}
	return errors.New("usage: ip " + commands()["ip"].usage)
}

func showNetwork(out io.Writer) error {
	links, err := netlink.LinkList()
	if err != nil {
		return err
	}
	for _, l := range links {
		a := l.Attrs()
		addresses, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		var texts []string
		for _, address := range addresses {
			texts = append(texts, address.IPNet.String())
		}
		fmt.Fprintf(out, "%s: %s %s %s\n", a.Name, a.OperState, a.HardwareAddr, strings.Join(texts, " "))
	}
	return nil
}

func chroot(ctx context.Context, c *call) error {
	root := c.path(c.args[0])
	if info, err := os.Stat(root); err != nil || !info.IsDir() {
		return fmt.Errorf("%s is no folder: %w", root, errors.Join(err, fs.ErrNotExist))
	}
	// The program is looked for in the new root, as its shell would.
	program := c.args[1]
	if !strings.Contains(program, "/") {
		for _, dir := range []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
			if info, err := os.Stat(filepath.Join(root, dir, program)); err == nil && info.Mode()&0o111 != 0 {
				program = filepath.Join(dir, program)
				break
			}
		}
	}
	cmd := &exec.Cmd{
		Path: program, Args: c.args[1:], Dir: "/", Stdin: c.in, Stdout: c.out, Stderr: c.err,
		SysProcAttr: &syscall.SysProcAttr{Chroot: root}, WaitDelay: killTime,
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	return cmd.Wait()
}

func ending(order int) func(context.Context, *call) error {
	return func(context.Context, *call) error {
		unix.Sync()
		return unix.Reboot(order)
	}
}
