// Command image builds the appliance: it locks its inputs, and composes the disk
// image from them.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/waltos/waltos/image/compose"
	"github.com/waltos/waltos/image/fetch"
	"github.com/waltos/waltos/image/inputs"
)

// memory is what the collector tries to keep within: beyond it, it works more. Other
// work on the machine needs the rest.
const memory = 900 << 20

func main() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memory)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "image: %v\n", err)
		stop()
		os.Exit(1)
	}
}

// settings are the flags that all commands share.
type settings struct{ architecture, cache, mirror string }

func command() *cobra.Command {
	s := &settings{}
	root := &cobra.Command{
		Use:           "image",
		Short:         "Build the WalT appliance",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.PersistentFlags().StringVar(&s.architecture, "architecture", "", "of the appliance: amd64 or arm64 (default amd64)")
	root.PersistentFlags().StringVar(&s.cache, "cache", "", "folder of downloads (default $WALT_CACHE, or waltos in the user's cache folder)")
	root.PersistentFlags().StringVar(&s.mirror, "mirror", "", "URL or folder of a Debian mirror (default $WALT_MIRROR, or the host's apt sources, or the public one)")
	root.AddCommand(s.build(), s.flash(), s.verify(), s.diff(), s.check(), s.lock(), s.keys())
	return root
}

func (s *settings) build() *cobra.Command {
	o := compose.Options{}
	c := &cobra.Command{
		Use:   "build",
		Short: "Build disk image, kernel, initramfs and UKI from the locked packages",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			o.Architecture, o.Cache, o.Mirror, o.Progress = s.architecture, s.cache, s.mirror, fetch.NewProgress(c.ErrOrStderr())
			result, err := compose.Build(c.Context(), o)
			if err != nil {
				return err
			}
			return result.Report(c.OutOrStdout())
		},
	}
	also := "further outputs:"
	for _, name := range slices.Sorted(maps.Keys(compose.Extras())) {
		also += fmt.Sprintf(" %s (%s)", name, compose.Extras()[name])
	}
	c.Flags().StringSliceVar(&o.Also, "also", nil, also)
	c.Flags().StringVarP(&o.Output, "output", "o", "", "folder of the outputs (default .cache/build in the repository; with --architecture, .cache/build-ARCHITECTURE)")
	c.Flags().StringVar(&o.Signatures, "signatures", "", "folder of a published build: copy its signatures instead of signing, to get the same bytes without its keys")
	return c
}

func (s *settings) verify() *cobra.Command {
	o, asJSON := compose.Options{}, false
	c := &cobra.Command{
		Use:   "verify",
		Short: "Build once more, elsewhere and otherwise, and compare every byte of the outputs",
		Long: "Build the outputs unless they are there, then once more from a copy of the sources in another folder, with\n" +
			"another umask, time, time zone, locale, number of processors and order of files. Each difference is named by\n" +
			"output, partition, file and byte; the exit status is then 1.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			o.Architecture, o.Cache, o.Mirror, o.Progress = s.architecture, s.cache, s.mirror, fetch.NewProgress(c.ErrOrStderr())
			v, err := compose.Verify(c.Context(), o)
			if err != nil {
				return err
			}
			if asJSON {
				err = writeJSON(c.OutOrStdout(), v.Differences)
			} else {
				err = v.Report(c.OutOrStdout())
			}
			if n := len(v.Differences); err == nil && n > 0 {
				err = fmt.Errorf("the second build differs in %d places", n)
			}
			return err
		},
	}
	c.Flags().StringVarP(&o.Output, "output", "o", "", "folder of the outputs (default .cache/build in the repository; with --architecture, .cache/build-ARCHITECTURE)")
	c.Flags().BoolVar(&asJSON, "json", false, "print the differences as JSON")
	return c
}

func (s *settings) diff() *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use:   "diff OLD NEW",
		Short: "Tell what differs between two builds: packages, units, kernel options, sizes, files",
		Long:  "OLD and NEW are folders of outputs, as `image build -o` makes them.",
		Args:  cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			o := compose.Options{Cache: s.cache, Mirror: s.mirror, Progress: fetch.NewProgress(c.ErrOrStderr())}
			d, err := compose.DiffBuilds(c.Context(), o, args[0], args[1])
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(c.OutOrStdout(), d)
			}
			return d.Report(c.OutOrStdout())
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the changes as JSON")
	return c
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
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
				Appliance:    filepath.Join(source, "image", "appliance.hcl"),
				Architecture: s.architecture, Cache: s.cache, Mirror: s.mirror, Progress: fetch.NewProgress(c.ErrOrStderr()),
			}
			return inputs.Relock(c.Context(), o, update, c.OutOrStdout())
		},
	}
	c.Flags().BoolVar(&update, "update", false, "look for newer packages although the lock fits")
	return c
}
