package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/waltos/waltos/image/compose"
	"github.com/waltos/waltos/image/fetch"
	"github.com/waltos/waltos/image/flash"
)

func (s *settings) flash() *cobra.Command {
	from, confirm := "", ""
	c := &cobra.Command{
		Use:   "flash DEVICE",
		Short: "Write the disk image to a disk or USB stick of this machine, and read it back",
		Long: "Everything on DEVICE (as /dev/sdX or a name below /dev/disk/by-id) is lost, the data partition of an\n" +
			"appliance included. The command shows the disk and asks for its id. Disks in use are refused.",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			device, err := flash.Find(args[0])
			if err != nil {
				return err
			}
			progress := fetch.NewProgress(c.ErrOrStderr())
			var result *compose.Result
			if from != "" {
				result, err = compose.Open(from)
			} else {
				result, err = compose.Build(c.Context(), compose.Options{Architecture: s.architecture, Cache: s.cache, Mirror: s.mirror, Progress: progress})
			}
			if err != nil {
				return err
			}
			fmt.Fprintln(c.ErrOrStderr(), device)
			if len(device.Partitions) > 0 {
				fmt.Fprintf(c.ErrOrStderr(), "It holds partitions, which will be lost: %s\n", strings.Join(device.Partitions, ", "))
			}
			if err := confirmed(c.InOrStdin(), c.ErrOrStderr(), device, confirm); err != nil {
				return err
			}
			if err := write(c.Context(), device, result, progress); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "%s %s is on %s, read back and compared\n", result.Manifest.Name, result.Manifest.Version, device.Path)
			return nil
		},
	}
	c.Flags().StringVar(&from, "from", "", "folder of outputs to write (default: build the image, if it is not built)")
	c.Flags().StringVar(&confirm, "confirm", "", "id of the disk, instead of the question")
	return c
}

// confirmed asks for the id of the disk, which nobody types by accident.
func confirmed(in io.Reader, out io.Writer, device *flash.Device, answer string) error {
	if answer == "" {
		if f, ok := in.(*os.File); ok && !term.IsTerminal(int(f.Fd())) {
			return fmt.Errorf("cannot ask: no terminal; confirm with --confirm %s", device.ID)
		}
		fmt.Fprintf(out, "Everything on it will be lost. Type its id to go on: ")
		line, err := bufio.NewReader(in).ReadString('\n')
		if err != nil {
			return errors.New("not confirmed; nothing was written")
		}
		answer = strings.TrimSpace(line)
	}
	if answer != device.ID {
		return fmt.Errorf("%q is not the id of %s, which is %q; nothing was written", answer, device.Path, device.ID)
	}
	return nil
}

func write(ctx context.Context, device *flash.Device, result *compose.Result, progress *fetch.Progress) error {
	f, err := device.Open()
	if err != nil {
		return err
	}
	disk := flash.Disk{File: f}
	defer disk.Close()
	image, err := os.Open(result.Disk)
	if err != nil {
		return err
	}
	defer image.Close()
	output := result.Manifest.Outputs[compose.DiskName]
	if err := flash.Write(ctx, disk, device.Size, flash.Image{File: image, Size: output.Size, SHA256: output.SHA256}, progress); err != nil {
		return err
	}
	return disk.Partitions()
}
