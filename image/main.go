// Command image builds the appliance: it locks its inputs, and composes the disk
// image from them.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/waltos/waltos/image/compose"
	"github.com/waltos/waltos/image/fetch"
	"github.com/waltos/waltos/image/inputs"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "image: %v\n", err)
		stop()
		os.Exit(1)
	}
}

// settings are the flags that all commands share.
type settings struct{ cache, mirror string }

func command() *cobra.Command {
	s := &settings{}
	root := &cobra.Command{
		Use:           "image",
		Short:         "Build the WalT appliance",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.PersistentFlags().StringVar(&s.cache, "cache", "", "folder of downloads (default $WALT_CACHE, or waltos in the user's cache folder)")
	root.PersistentFlags().StringVar(&s.mirror, "mirror", "", "URL or folder of a Debian mirror (default $WALT_MIRROR, or the host's apt sources, or the public one)")
	root.AddCommand(s.build(), s.lock(), s.keys())
	return root
}

func (s *settings) build() *cobra.Command {
	o := compose.Options{}
	c := &cobra.Command{
		Use:   "build",
		Short: "Build disk image, kernel, initramfs and UKI from the locked packages",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			o.Cache, o.Mirror, o.Progress = s.cache, s.mirror, fetch.NewProgress(c.ErrOrStderr())
			result, err := compose.Build(c.Context(), o)
			if err != nil {
				return err
			}
			return result.Report(c.OutOrStdout())
		},
	}
	c.Flags().StringVarP(&o.Output, "output", "o", "", "folder of the outputs (default .cache/build in the repository)")
	return c
}

func (s *settings) lock() *cobra.Command {
	update := false
	c := &cobra.Command{
		Use:   "lock",
		Short: "Lock the packages that image/appliance.hcl names",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			source, err := compose.FindSource(".")
			if err != nil {
				return err
			}
			o := inputs.Options{
				Appliance: filepath.Join(source, "image", "appliance.hcl"),
				Cache:     s.cache, Mirror: s.mirror, Progress: fetch.NewProgress(c.ErrOrStderr()),
			}
			return inputs.Relock(c.Context(), o, update, c.OutOrStdout())
		},
	}
	c.Flags().BoolVar(&update, "update", false, "look for newer packages although the lock fits")
	return c
}
