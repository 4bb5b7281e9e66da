package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/waltos/waltos/qemu/control"
	"github.com/waltos/waltos/qemu/platform"
)

func statusCommand(lab folderOf) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show the machines and ports of the lab", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			folder, err := lab()
			if err != nil {
				return err
			}
			answer, err := control.Ask(cmd.Context(), folder, control.Request{Command: control.Status})
			if errors.Is(err, control.ErrNone) && platform.Running(folder) {
				fmt.Println("the lab is starting: \"qemu logs\" shows how far it is")
				return nil
			}
			if err != nil {
				return err
			}
			if err := printSummary(os.Stdout, &answer.Summary); err != nil {
				return err
			}
			t := tabwriter.NewWriter(os.Stdout, 0, 8, 3, ' ', 0)
			fmt.Fprintf(t, "\nSWITCH PORT\tPLUGGED\tRECEIVED\tSENT\tDROPPED\n")
			for _, p := range answer.Ports {
				fmt.Fprintf(t, "%s\t%v\t%d\t%d\t%d\n", p.Name, p.Plugged, p.Received, p.Sent, p.Dropped)
			}
			return t.Flush()
		},
	}
}

func ask(ctx context.Context, lab folderOf, request control.Request) (*control.Answer, error) {
	folder, err := lab()
	if err != nil {
		return nil, err
	}
	return control.Ask(ctx, folder, request)
}

func stopCommand(lab folderOf) *cobra.Command {
	return &cobra.Command{
		Use: "stop", Short: "Power off the lab; nothing of it goes on running", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			folder, err := lab()
			if err != nil {
				return err
			}
			_, err = control.Ask(cmd.Context(), folder, control.Request{Command: control.Stop})
			if !errors.Is(err, control.ErrNone) {
				return err
			}
			// It may be starting, and not listen yet.
			found, err := platform.Terminate(folder)
			if err == nil && !found {
				fmt.Println("no lab is running")
			}
			return err
		},
	}
}

func addCommand(lab folderOf) *cobra.Command {
	var uefi bool
	c := &cobra.Command{
		Use: "add", Short: "Boot one more node", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			request := control.Request{Command: control.Add}
			if uefi {
				request.Name = "uefi"
			}
			answer, err := ask(cmd.Context(), lab, request)
			if err != nil {
				return err
			}
			return printSummary(os.Stdout, &answer.Summary)
		},
	}
	c.Flags().BoolVar(&uefi, "uefi", false, "with a UEFI instead of a BIOS")
	return c
}

// onMachine makes the commands "qemu power on node1" and the like.
func onMachine(lab folderOf, name, short, request string) *cobra.Command {
	return &cobra.Command{
		Use: name + " MACHINE", Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := ask(cmd.Context(), lab, control.Request{Command: request, Name: args[0]})
			return err
		},
	}
}

func powerCommand(lab folderOf) *cobra.Command {
	c := &cobra.Command{Use: "power", Short: "Handle the power of a machine"}
	c.AddCommand(onMachine(lab, "cut", "Take the power away", control.Cut),
		onMachine(lab, "on", "Give it back", control.On),
		onMachine(lab, "reset", "Press the reset button", control.Reset))
	return c
}

func cableCommand(lab folderOf) *cobra.Command {
	c := &cobra.Command{Use: "cable", Short: "Handle the network cable of a machine"}
	c.AddCommand(onMachine(lab, "out", "Pull it out of the switch", control.Unplug),
		onMachine(lab, "in", "Plug it in", control.Plug))
	return c
}

func waltCommand(lab folderOf) *cobra.Command {
	return &cobra.Command{
		Use: "walt ARGUMENT...", Short: "Run the real walt client on the lab",
		DisableFlagParsing: true, // they are the client's
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := readOptions(lab)
			if err != nil {
				return err
			}
			code, err := o.User(platform.DefaultUser).Run(cmd.Context(), os.Stdin, os.Stdout, os.Stderr, args...)
			return ended(code, err)
		},
	}
}

func sshCommand(lab folderOf) *cobra.Command {
	return &cobra.Command{
		Use: "ssh [COMMAND...]", Short: "Run a command, or a shell, as root on the appliance",
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := readOptions(lab)
			if err != nil {
				return err
			}
			if len(args) == 0 && term.IsTerminal(int(os.Stdin.Fd())) {
				restore, err := raw()
				if err != nil {
					return err
				}
				defer restore()
			}
			var stdin io.Reader
			if len(args) == 0 {
				stdin = os.Stdin
			}
			code, err := o.Shell().Run(cmd.Context(), strings.Join(args, " "), stdin, os.Stdout, os.Stderr)
			return ended(code, err)
		},
	}
}

func ended(code int, err error) error {
	if err == nil && code != 0 {
		err = exitCode(code)
	}
	return err
}

func logsCommand(lab folderOf) *cobra.Command {
	return &cobra.Command{
		Use: "logs", Short: "Show what the lab did since its start", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			folder, err := lab()
			if err != nil {
				return err
			}
			f, err := os.Open(filepath.Join(folder, "lab.log"))
			if err != nil {
				return fmt.Errorf("cannot show the log of the lab: %w", err)
			}
			defer f.Close()
			_, err = io.Copy(os.Stdout, f)
			return err
		},
	}
}

func consoleCommand(lab folderOf) *cobra.Command {
	var lines int
	c := &cobra.Command{
		Use: "console [MACHINE]", Short: "Attach to a serial console (default: of the appliance)",
		Long: `Show the last lines of a serial console, then attach to it: what it shows is shown,
what is typed is typed there. Ctrl-] ends it.

With -n only the lines are shown; that works after the end of the lab too.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			folder, err := lab()
			if err != nil {
				return err
			}
			name := "appliance"
			if len(args) == 1 {
				name = filepath.Base(args[0])
			}
			only := cmd.Flags().Changed("lines")
			if err := showLines(filepath.Join(folder, "consoles", name+".log"), lines); err != nil || only {
				return err
			}
			return attach(cmd.Context(), folder, name)
		},
	}
	c.Flags().IntVarP(&lines, "lines", "n", 20, "show only this many last lines")
	return c
}

func showLines(file string, count int) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("cannot show the console: %w", err)
	}
	defer f.Close()
	var last []string
	scanner := bufio.NewScanner(f)
	for scanner.Scan() {
		if last = append(last, scanner.Text()); len(last) > 2*count+1000 {
			last = append(last[:0], last[len(last)-count:]...)
		}
	}
	for _, line := range last[max(0, len(last)-count):] {
		fmt.Println(line)
	}
	return scanner.Err()
}

const escapeKey = 0x1d // Ctrl-]

func attach(ctx context.Context, folder, name string) error {
	console, err := control.Attach(ctx, folder, name)
	if err != nil {
		return err
	}
	defer console.Close()
	defer context.AfterFunc(ctx, func() { console.Close() })()
	if term.IsTerminal(int(os.Stdin.Fd())) {
		restore, err := raw()
		if err != nil {
			return err
		}
		defer restore()
		fmt.Fprintf(os.Stderr, "(console of %s; Ctrl-] ends it)\r\n", name)
	}
	go func() {
		keys := make([]byte, 256)
		for {
			n, err := os.Stdin.Read(keys)
			if i := strings.IndexByte(string(keys[:n]), escapeKey); i >= 0 {
				console.Close()
				return
			}
			if n > 0 {
				console.Write(keys[:n]) // a console that ended shows below
			}
			if err != nil {
				return // a script's input has ended; go on showing
			}
		}
	}()
	io.Copy(os.Stdout, console) // ends with the machine, the key or a signal: all of them are fine
	return nil
}

// raw hands every key to the other side.
func raw() (restore func(), err error) {
	fd := int(os.Stdin.Fd())
	state, err := term.MakeRaw(fd)
	if err != nil {
		return nil, fmt.Errorf("cannot use the terminal: %w", err)
	}
	return func() { term.Restore(fd, state) }, nil
}
