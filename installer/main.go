// Command walt-server-setup checks and imports the configuration of a WalT server.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/waltos/waltos/hcl"
)

func main() {
	if err := command(os.Stdout).Execute(); err != nil {
		fmt.Fprintf(os.Stderr, "walt-server-setup: %v\n", err)
		os.Exit(1)
	}
}

func command(out io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:           "walt-server-setup",
		Short:         "Check and import the configuration of a WalT server",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetOut(out)
	root.AddCommand(checkCommand(), importCommand())
	return root
}

// load reads a site in either format, told apart by the file name.
func load(path string) (*hcl.Site, error) {
	if strings.HasSuffix(path, ".hcl") {
		return hcl.LoadSite(path)
	}
	return hcl.LoadServerConf(path)
}

func checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Say whether a configuration file (walt.hcl, or upstream's server.conf) is valid",
		Long: "Say whether a configuration file is valid. A name ending with .hcl is read as a site file,\n" +
			"any other as upstream's server.conf (YAML or JSON). The exit status is 1 for a file that is refused.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			site, err := load(args[0])
			if err != nil {
				return err
			}
			server := site.Server()
			fmt.Fprintf(cmd.OutOrStdout(), "%s is valid: %d networks, server %s on %s, %d registries.\n",
				args[0], len(site.Networks), server.Addr(), server.Masked(), len(site.Registries))
			return nil
		},
	}
}

func importCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "import SERVER.CONF",
		Short: "Convert upstream's server.conf into a site file (HCL)",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			site, err := hcl.LoadServerConf(args[0])
			if err != nil {
				return err
			}
			text := hcl.FormatSite(site)
			if output == "" {
				_, err := cmd.OutOrStdout().Write(text)
				return err
			}
			if err := writeNew(output, text); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s written from %s.\n", output, args[0])
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "write to this file, which must not exist, instead of standard output")
	return cmd
}

// writeNew writes a file that appears whole or not at all, and never replaces one.
func writeNew(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err == nil {
		err = os.Link(f.Name(), path)
	}
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("cannot write %s: it already exists; remove it or choose another name", path)
	}
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	return nil
}
