package waltctl

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/waltos/waltos/supervisor/control"
	"github.com/waltos/waltos/supervisor/journal"
	"github.com/waltos/waltos/supervisor/redact"
)

// Bounds of a support bundle.
const (
	maxItem     = 2 << 20  // bytes of one file; of logs the end is kept
	maxBundle   = 32 << 20 // bytes of all files, before compression
	itemTime    = 20 * time.Second
	bundleLines = 20_000 // of the journal
)

// item is one file of the bundle.
type item struct {
	name string
	get  func(ctx context.Context, w io.Writer) error
}

func (t *Tool) supportCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "support", Short: "Collect what those who help need to know, without secrets", Args: cobra.NoArgs,
		Long: `support writes an archive with the state of the server: units, events, boot, logs, kernel messages,
configuration, versions, disks, networks. Passwords, tokens and private keys are taken out as far as they
can be recognised; look through it before you give it to others. "-o -" writes to standard output.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				host, err := os.Hostname()
				if err != nil {
					return fmt.Errorf("cannot name the bundle: %w", err)
				}
				file = fmt.Sprintf("walt-support-%s-%s.tar.gz", host, time.Now().UTC().Format("20060102T150405Z"))
			}
			return t.support(cmd.Context(), file)
		},
	}
	cmd.Flags().StringVarP(&file, "output", "o", "", "the archive's `FILE`")
	return cmd
}

func (t *Tool) support(ctx context.Context, file string) (err error) {
	if file == "-" {
		return t.bundle(ctx, t.Out)
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("cannot write the bundle: %w", err)
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			os.Remove(file)
		}
	}()
	if err := t.bundle(ctx, f); err != nil {
		return err
	}
	if t.asJSON {
		return t.print(map[string]string{"file": file})
	}
	_, err = fmt.Fprintf(t.Out, "%s holds the state of this server; look through it before you give it to others\n", file)
	return err
}

// bundle writes the archive. What cannot be had is told in the file that it would be.
func (t *Tool) bundle(ctx context.Context, w io.Writer) error {
	compressed := gzip.NewWriter(w)
	archive := tar.NewWriter(compressed)
	now, total := time.Now(), 0
	for _, i := range t.items() {
		if err := ctx.Err(); err != nil {
			return err
		}
		content := i.content(ctx, min(maxItem, maxBundle-total))
		total += len(content)
		header := &tar.Header{Name: "walt-support/" + i.name, Mode: 0o600, Size: int64(len(content)), ModTime: now, Format: tar.FormatPAX}
		if err := archive.WriteHeader(header); err != nil {
			return fmt.Errorf("cannot write the bundle: %w", err)
		}
		if _, err := archive.Write(content); err != nil {
			return fmt.Errorf("cannot write the bundle: %w", err)
		}
	}
	if err := errors.Join(archive.Close(), compressed.Close()); err != nil {
		return fmt.Errorf("cannot write the bundle: %w", err)
	}
	return nil
}

// content gets a file of the bundle, without secrets, its end if it is too long.
func (i item) content(ctx context.Context, limit int) []byte {
	ctx, cancel := context.WithTimeout(ctx, itemTime)
	defer cancel()
	// Some more than what is kept, so that no secret loses the name that tells it.
	end := &tail{limit: 2 * limit}
	err := i.get(ctx, end)
	content := redact.Text(end.bytes())
	if len(content) > limit {
		content = content[len(content)-limit:]
	}
	if err != nil {
		content = append(content, ("\n" + err.Error() + "\n")...)
	}
	return content
}

// tail keeps the end of what is written to it.
type tail struct {
	limit int
	kept  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.kept = append(t.kept, p...)
	if len(t.kept) > 2*t.limit {
		t.kept = append(t.kept[:0], t.kept[len(t.kept)-t.limit:]...)
	}
	return len(p), nil
}

func (t *tail) bytes() []byte { return t.kept[max(0, len(t.kept)-t.limit):] }

// items lists the files of the bundle.
func (t *Tool) items() []item {
	items := []item{
		{"status.txt", t.call("status")}, {"status.json", t.call("status", "--json")},
		{"events.txt", t.call("events")}, {"boot.txt", t.call("boot")}, {"boot.svg", t.call("boot", "--svg")},
		{"graph.txt", t.call("graph")}, {"graph.dot", t.call("graph", "--dot")}, {"boots.txt", t.call("logs", "--boots")},
		{"security.txt", t.call("security")}, {"plan.txt", t.call("plan")},
		{"units.json", t.details},
		{"journal.jsonl", t.journal},
		{"kernel.txt", program("dmesg", "--time-format", "iso")},
	}
	for _, path := range []string{
		"/usr/lib/walt/appliance.json", "/usr/lib/os-release", "/etc/walt/walt.hcl", "/run/walt/site.hcl", "/etc/hosts", "/etc/resolv.conf",
		"/proc/version", "/proc/cmdline", "/proc/meminfo", "/proc/cpuinfo", "/proc/loadavg", "/proc/pressure/cpu", "/proc/pressure/io",
		"/proc/pressure/memory", "/proc/modules", "/proc/mounts", "/proc/partitions", "/proc/diskstats", "/proc/interrupts",
	} {
		items = append(items, item{"files" + path, readFile(path)})
	}
	for name, command := range map[string][]string{
		"disk/df.txt": {"df", "-h"}, "disk/inodes.txt": {"df", "-i"}, "disk/blocks.txt": {"lsblk", "-o", "NAME,SIZE,TYPE,FSTYPE,LABEL,PARTLABEL,MOUNTPOINTS,MODEL"},
		"network/addresses.txt": {"ip", "-details", "-statistics", "address"}, "network/routes.txt": {"ip", "route", "show", "table", "all"},
		"network/neighbours.txt": {"ip", "neighbour"}, "network/sockets.txt": {"ss", "-tuanp"}, "network/firewall.txt": {"nft", "list", "ruleset"},
		"processes.txt": {"ps", "-eo", "pid,ppid,user,stat,start,time,rss,cgroup,args"}, "clock.txt": {"chronyc", "-n", "tracking"},
	} {
		items = append(items, item{name, program(command...)})
	}
	return items
}

// call gives what a command of this program prints.
func (t *Tool) call(args ...string) func(context.Context, io.Writer) error {
	return func(ctx context.Context, w io.Writer) error {
		var errs bytes.Buffer
		other := &Tool{Client: t.Client, Journal: t.Journal, In: strings.NewReader(""), Out: w, Errors: &errs}
		if other.Main(ctx, args) != exitDone {
			return errors.New(strings.TrimSpace(errs.String()))
		}
		return nil
	}
}

func (t *Tool) details(ctx context.Context, w io.Writer) error {
	status, err := t.Client.Status(ctx)
	if err != nil {
		return err
	}
	out := &Tool{Out: w}
	for _, u := range status.Units {
		detail, err := t.Client.Unit(ctx, u.Name)
		if err != nil {
			return err
		}
		if err := out.printLine(detail); err != nil {
			return err
		}
	}
	return nil
}

func (t *Tool) journal(ctx context.Context, w io.Writer) error {
	flushed := t.Client.Flush(ctx)
	if errors.Is(flushed, control.ErrForbidden) {
		return flushed
	}
	out := &Tool{Out: w}
	return t.last(&selection{urgency: len(journal.Priorities)}, bundleLines, func(r journal.Record) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return out.printLine(r)
	})
}

func readFile(path string) func(context.Context, io.Writer) error {
	return func(_ context.Context, w io.Writer) error {
		f, err := os.Open(filepath.Clean(path))
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(w, io.LimitReader(f, maxItem))
		return err
	}
}

func program(command ...string) func(context.Context, io.Writer) error {
	return func(ctx context.Context, w io.Writer) error {
		cmd := exec.CommandContext(ctx, command[0], command[1:]...)
		cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
		cmd.Stdout, cmd.Stderr = w, w
		cmd.WaitDelay = time.Second
		return cmd.Run()
	}
}
