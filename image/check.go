package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/waltos/waltos/image/bundle"
	"github.com/waltos/waltos/image/keys"
	"github.com/waltos/waltos/image/minisign"
)

// checked is what is told of a good bundle.
type checked struct {
	bundle.Release
	Signer  string          `json:"signer"` // key of minisign
	Comment string          `json:"comment"`
	Parts   map[string]part `json:"parts"`
}

type part struct {
	bundle.Content
	What string `json:"what"`
}

func (s *settings) check() *cobra.Command {
	var trusted []string
	asJSON := false
	c := &cobra.Command{
		Use:   "check BUNDLE",
		Short: "Check an upgrade bundle by the key that signs releases, and tell what is in it",
		Long: "Read the whole of an upgrade bundle as an appliance does before it upgrades. The exit status is 1 if anything of it\n" +
			"is damaged, or signed by somebody else.",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			trust := bundle.Trust{}
			var err error
			if trust.Keys, err = releaseKeys(trusted); err != nil {
				return err
			}
			found, err := checkBundle(args[0], trust)
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(c.OutOrStdout(), found)
			}
			return found.report(c.OutOrStdout())
		},
	}
	c.Flags().StringArrayVar(&trusted, "key", nil, "public `KEY` of releases, as `keys show` prints it, or a file with one (default: of your own keys)")
	c.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	return c
}

// releaseKeys reads public keys, each given as it is or by the name of a file; if there
// are none, those of the builder.
func releaseKeys(given []string) (all []minisign.PublicKey, err error) {
	if len(given) == 0 {
		dir, err := keys.DefaultFolder()
		if err != nil {
			return nil, err
		}
		if all, err = (&keys.Store{Dir: dir}).Trusted(); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("cannot check the signature: there are no keys in %s; give the public key by --key", dir)
		}
		return all, err
	}
	for _, text := range given {
		key, err := minisign.ParsePublicKey(text)
		if err != nil {
			content, readErr := os.ReadFile(text)
			if errors.Is(readErr, fs.ErrNotExist) {
				return nil, fmt.Errorf("--key %s is neither a public key of minisign nor a file", text)
			}
			if readErr != nil {
				return nil, fmt.Errorf("cannot read public key: %w", readErr)
			}
			if key, err = minisign.ParsePublicKey(string(content)); err != nil {
				return nil, fmt.Errorf("%s: %w", text, err)
			}
		}
		all = append(all, key)
	}
	return all, nil
}

func checkBundle(name string, trust bundle.Trust) (*checked, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("cannot check upgrade bundle: %w", err)
	}
	defer f.Close()
	b, err := bundle.Open(f, trust)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	defer b.Close()
	if err := b.Verify(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	found := &checked{
		Release: b.Release, Signer: b.Signer.Key.String(), Comment: b.Signer.Comment,
		Parts: map[string]part{"root": {b.Root, "file system of the root, with its hash tree"}},
	}
	for slot, s := range b.Slots {
		found.Parts["uki "+slot] = part{s.UKI, "kernel with its initial root, for slot " + slot}
	}
	return found, nil
}

func (c *checked) report(w io.Writer) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(out, "%v\nsigned by release key %s: %s\n", c.Release, c.Signer, c.Comment)
	for _, name := range slices.Sorted(maps.Keys(c.Parts)) {
		p := c.Parts[name]
		fmt.Fprintf(out, "%s\t%d bytes\t%s\t%s\n", name, p.Size, p.SHA256, p.What)
	}
	return out.Flush()
}
