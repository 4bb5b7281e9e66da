package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/waltos/waltos/image/fetch"
	"github.com/waltos/waltos/qemu/control"
	"github.com/waltos/waltos/qemu/machine"
	"github.com/waltos/waltos/qemu/platform"
	"github.com/waltos/waltos/qemu/provision"
)

// folderOf finds the folder of the lab.
type folderOf func() (string, error)

// optionsName is the file, in the folder of a lab, with its options: what other
// commands read.
const optionsName = "lab.json"

func upCommand(lab folderOf) *cobra.Command {
	var o platform.Options
	var address, accelerator, site string
	var supplies provision.Options
	c := &cobra.Command{
		Use:   "up",
		Short: "Build the appliance, boot it, and boot nodes from it",
		Long: `Build the appliance, boot it in a virtual machine, and boot nodes from it over
the network. The lab then runs in the background until "qemu stop".`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			folder, err := lab()
			if err != nil {
				return err
			}
			if o.Folder, err = filepath.Abs(folder); err != nil {
				return err
			}
			if o.Address, err = netip.ParseAddr(address); err != nil {
				return fmt.Errorf("cannot use --address: %w", err)
			}
			o.Accelerator = machine.Accelerator(accelerator)
			if site != "" {
				text, err := os.ReadFile(site)
				if err != nil {
					return fmt.Errorf("cannot use --site: %w", err)
				}
				o.Site = string(text)
			}
			return up(cmd.Context(), o, supplies)
		},
	}
	f := c.Flags()
	f.StringVar(&address, "address", "127.0.0.1", "loopback address for the ports of the appliance; several labs use several")
	f.BoolVar(&o.Direct, "direct", false, "boot the kernel directly instead of the disk by UEFI")
	f.BoolVar(&o.SecureBoot, "secure-boot", false, "let the firmware refuse what the keys of the image have not signed")
	f.StringVar(&accelerator, "accelerator", "", "kvm or tcg (default: kvm if it works)")
	f.IntVar(&o.Nodes, "nodes", 1, "number of nodes with a BIOS")
	f.IntVar(&o.UEFINodes, "uefi-nodes", 0, "number of nodes with a UEFI")
	f.IntVar(&o.Memory, "memory", 0, "memory of the appliance in MiB (default 768)")
	f.IntVar(&o.NodeMemory, "node-memory", 0, "memory of each node in MiB (default 384)")
	f.DurationVar(&o.Patience, "patience", 0, "longest wait for the appliance, and then for the nodes (default 5m)")
	f.BoolVar(&o.Isolated, "isolated", false, "let the appliance reach nothing outside of the lab")
	f.BoolVar(&o.KeepDisk, "keep-disk", false, "go on with the disk of the last lab of this folder")
	f.StringVar(&site, "site", "", "site file to boot with; @KEY@ in it stands for the lab's ssh key")
	f.StringVar(&supplies.Mirror, "mirror", "", "Debian mirror (default: WALT_MIRROR, or the host's own)")
	return c
}

func up(ctx context.Context, o platform.Options, want provision.Options) error {
	if platform.Running(o.Folder) {
		return fmt.Errorf("a lab is running in %s already: see \"qemu status\", end it with \"qemu stop\"", o.Folder)
	}
	want.Progress = fetch.NewProgress(os.Stderr)
	supplies, err := provision.Get(ctx, want)
	if err != nil {
		return err
	}
	o.Image, o.Tools, o.Client = supplies.Image, supplies.Tools, supplies.Client
	summary, err := launch(ctx, o)
	if err != nil {
		return err
	}
	if !supplies.Released {
		fmt.Fprintln(os.Stderr, "This is not the released image: packages of the lock are gone and were replaced, see above.")
	}
	return printSummary(os.Stdout, summary)
}

// event is what the background process tells, a line of JSON each.
type event struct {
	Progress string            `json:"progress,omitempty"`
	Ready    *platform.Summary `json:"ready,omitempty"`
	Failed   string            `json:"failed,omitempty"`
}

// launch starts the process that keeps the lab, in a session of its own, and waits until
// the lab is up. That process gives up when this one ends before: it then reads the end
// of its standard input.
func launch(ctx context.Context, o platform.Options) (*platform.Summary, error) {
	if err := os.MkdirAll(o.Folder, 0o755); err != nil {
		return nil, fmt.Errorf("cannot make the folder of the lab: %w", err)
	}
	options, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	journal, err := os.Create(filepath.Join(o.Folder, "lab.log"))
	if err != nil {
		return nil, fmt.Errorf("cannot keep the log of the lab: %w", err)
	}
	defer journal.Close()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	keeper := exec.Command(self, "keep")
	keeper.Stderr = journal
	keeper.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	life, err := keeper.StdinPipe()
	if err != nil {
		return nil, err
	}
	events, err := keeper.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := keeper.Start(); err != nil {
		return nil, fmt.Errorf("cannot start the process of the lab: %w", err)
	}
	if _, err := life.Write(append(options, '\n')); err != nil {
		return nil, fmt.Errorf("cannot start the process of the lab: %w", err)
	}
	defer context.AfterFunc(ctx, func() {
		fmt.Fprintln(os.Stderr, "interrupted: taking the lab down")
		life.Close()
	})()
	lines := bufio.NewScanner(events)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			continue // not ours: a library's
		}
		switch {
		case e.Ready != nil:
			return e.Ready, nil
		case e.Failed != "":
			keeper.Wait() // it has taken everything down; its code says no more
			return nil, errors.New(e.Failed)
		default:
			fmt.Fprintln(os.Stderr, e.Progress)
		}
	}
	err = keeper.Wait()
	return nil, fmt.Errorf("the process of the lab ended: %v; see %s", err, journal.Name())
}

// keepCommand is the background process of a lab.
func keepCommand() *cobra.Command {
	return &cobra.Command{
		Use: "keep", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return keep(cmd.Context()) },
	}
}

func keep(ctx context.Context) error {
	input := bufio.NewReader(os.Stdin)
	line, err := input.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("cannot read the options of the lab: %w", err)
	}
	var o platform.Options
	if err := json.Unmarshal(line, &o); err != nil {
		return fmt.Errorf("cannot read the options of the lab: %w", err)
	}
	// Once the lab is up, nobody reads the events any more; the log has them too.
	signal.Ignore(syscall.SIGPIPE)
	tell := func(e event) {
		if data, err := json.Marshal(e); err == nil {
			os.Stdout.Write(append(data, '\n'))
		}
	}
	o.Progress = func(text string) {
		fmt.Fprintln(os.Stderr, text)
		tell(event{Progress: text})
	}

	starting, cancel := context.WithCancelCause(ctx)
	go func() {
		io.Copy(io.Discard, input)
		cancel(errors.New("interrupted"))
	}()
	lab, err := platform.Start(starting, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		tell(event{Failed: err.Error()})
		return err
	}
	defer lab.Stop()
	listener, err := control.Listen(o.Folder)
	if err == nil {
		err = writeOptions(o)
	}
	if err != nil {
		tell(event{Failed: err.Error()})
		return err
	}
	summary := lab.Summary()
	tell(event{Ready: &summary})
	err = control.Serve(ctx, listener, lab)
	if ctx.Err() != nil {
		return nil // told to end by a signal
	}
	return err
}

func writeOptions(o platform.Options) error {
	data, err := json.Marshal(o)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(o.Folder, optionsName), data, 0o600)
}

// readOptions returns the options of the lab that runs in a folder.
func readOptions(lab folderOf) (*platform.Options, error) {
	folder, err := lab()
	if err != nil {
		return nil, err
	}
	if !platform.Running(folder) {
		return nil, fmt.Errorf("no lab is running in %s: start one with \"qemu up\"", folder)
	}
	data, err := os.ReadFile(filepath.Join(folder, optionsName))
	if err != nil {
		return nil, fmt.Errorf("the lab in %s is not up yet: %w", folder, err)
	}
	var o platform.Options
	if err := json.Unmarshal(data, &o); err != nil {
		return nil, fmt.Errorf("cannot read the options of the lab: %w", err)
	}
	return &o, nil
}

func printSummary(w io.Writer, s *platform.Summary) error {
	t := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
	fmt.Fprintf(t, "MACHINE\tKIND\tSTATE\tTOOK\tNAME\tADDRESS\tCONSOLE\n")
	for _, m := range s.Machines {
		took := ""
		if m.Took > 0 {
			took = fmt.Sprintf("%.1f s", m.Took)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", m.Name, m.Kind, m.State, took, m.Known, m.IP, m.Console)
	}
	fmt.Fprintln(t)
	fmt.Fprintf(t, "PORT\tUSE\n")
	for _, p := range platform.Ports() {
		fmt.Fprintf(t, "%s:%d\t%s\n", s.Address, p.Host, p.Purpose)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprint(w, strings.TrimLeft(`
Accelerator `+s.Accelerator+`, up since `+s.Since.Format("15:04:05")+`, folder `+s.Folder+`
Try:  go run ./qemu walt node show --all      go run ./qemu console node1
      go run ./qemu ssh waltctl status        go run ./qemu stop
`, ""))
	return err
}
