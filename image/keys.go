package main

import (
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/waltos/waltos/image/compose"
	"github.com/waltos/waltos/image/esp"
	"github.com/waltos/waltos/image/fetch"
	"github.com/waltos/waltos/image/inputs"
	"github.com/waltos/waltos/image/keys"
	"github.com/waltos/waltos/image/lock"
	"github.com/waltos/waltos/image/uki"
)

// keys is the command of what signs builds.
func (s *settings) keys() *cobra.Command {
	c := &cobra.Command{
		Use:   "keys",
		Short: "Make, show, replace and export the keys that sign builds",
		Long: `Builds are signed by two keys: "release" signs the manifest and the upgrade bundle, "db" signs
the UKI for Secure Boot. Firmware trusts db because KEK says so, and KEK because PK does.
The first build makes development keys if there are none.`,
	}
	dir := c.PersistentFlags().String("keys", "", "folder of keys (default $WALT_KEYS, or waltos/keys in the user's configuration folder)")
	store := func() (*keys.Store, error) {
		store := &keys.Store{Dir: *dir}
		var err error
		if store.Dir == "" {
			if store.Dir, err = keys.DefaultFolder(); err != nil {
				return nil, err
			}
		}
		store.Sources, err = compose.FindSource(".")
		return store, err
	}
	c.AddCommand(generateKeys(store), showKeys(store), exportKeys(store), s.stick(store), replaceKey(store), rotateKey(store))
	return c
}

type storeOf func() (*keys.Store, error)

func generateKeys(open storeOf) *cobra.Command {
	name, protect := "", false
	c := &cobra.Command{
		Use: "generate", Short: "Make all keys", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			store, err := open()
			if err != nil {
				return err
			}
			passphrase := ""
			if protect {
				if passphrase, err = keys.AskPassphrase(); err != nil {
					return err
				}
			}
			if err := store.Generate(name, passphrase); err != nil {
				return err
			}
			return store.Show(c.OutOrStdout())
		},
	}
	c.Flags().StringVar(&name, "name", "walt", "whose keys they are: in the certificates")
	c.Flags().BoolVar(&protect, "passphrase", false, "protect them by a passphrase, from the terminal or $"+keys.PassphraseVariable)
	return c
}

func showKeys(open storeOf) *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "Show the keys", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			store, err := open()
			if err != nil {
				return err
			}
			return store.Show(c.OutOrStdout())
		},
	}
}

func exportKeys(open storeOf) *cobra.Command {
	var also []string
	c := &cobra.Command{
		Use: "export FOLDER", Short: "Write what firmware and administrators need to trust the keys", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			store, err := open()
			if err != nil {
				return err
			}
			others, err := certificates(also)
			if err != nil {
				return err
			}
			return store.Export(args[0], others...)
		},
	}
	addAlso(c, &also)
	return c
}

// addAlso adds the flag that names certificates of others.
func addAlso(c *cobra.Command, also *[]string) {
	c.Flags().StringArrayVar(also, "also", nil, "certificate (PEM) of somebody else whose programs are trusted, as the maker's of network cards")
}

// certificates reads files in PEM.
func certificates(files []string) (all [][]byte, err error) {
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("cannot trust programs of others: %w", err)
		}
		block, _ := pem.Decode(content)
		if block == nil || block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("cannot trust programs of others: %s is no certificate in PEM", file)
		}
		all = append(all, block.Bytes)
	}
	return all, nil
}

// stickSize is little more than the smallest FAT32 takes.
const stickSize = 40 << 20

func (s *settings) stick(open storeOf) *cobra.Command {
	var also []string
	c := &cobra.Command{
		Use: "stick FILE", Short: "Write the image of a USB stick that brings the keys into firmware", Args: cobra.ExactArgs(1),
		Long: `Write the image of a USB stick. Copy it onto one (dd), put the firmware of a machine into setup mode
(its menu: delete the platform key, or all Secure Boot keys), start from the stick, and choose
"Enroll Secure Boot keys: auto"; a virtual machine does so by itself. Where network cards or
disk controllers bring firmware of their own, add their maker's certificate by --also first: with
the keys of this builder only, that firmware is refused too.`,
		RunE: func(c *cobra.Command, args []string) error {
			store, err := open()
			if err != nil {
				return err
			}
			others, err := certificates(also)
			if err != nil {
				return err
			}
			source, err := compose.FindSource(".")
			if err != nil {
				return err
			}
			in, err := inputs.Open(inputs.Options{
				Appliance: filepath.Join(source, "image", "appliance.hcl"),
				Cache:     s.cache, Mirror: s.mirror, Progress: fetch.NewProgress(c.ErrOrStderr()),
			})
			if err != nil {
				return err
			}
			set := lock.ToolSet("build")
			if err := in.Ensure(c.Context(), set); err != nil {
				return err
			}
			box, err := in.Toolbox(c.Context(), set)
			if err != nil {
				return err
			}
			architecture := in.Appliance.Debian.Architecture
			loader, err := os.ReadFile(box.Path(uki.LoaderName(architecture)))
			if err != nil {
				return fmt.Errorf("cannot make a stick of keys: %w", err)
			}
			content, err := store.Stick(loader, uki.BootName(architecture), others...)
			if err != nil {
				return err
			}
			return esp.Write(args[0], stickSize, "WALT-KEYS", time.Now(), content)
		},
	}
	addAlso(c, &also)
	return c
}

func replaceKey(open storeOf) *cobra.Command {
	key, certificate := "", ""
	c := &cobra.Command{
		Use: "replace ROLE", Short: "Use a key of your own for a role", Args: cobra.ExactArgs(1), ValidArgs: keys.Roles,
		Long: "Use a key of your own for a role: " + strings.Join(keys.Roles, ", ") + `. The key is in PKCS #8 (PEM), Ed25519 for
the role release, else RSA with 2048 bits and a certificate (PEM). The private keys of PK and KEK
may stay elsewhere. The old key is kept as the previous one: what was set up with it is still served.`,
		RunE: func(c *cobra.Command, args []string) error {
			store, err := open()
			if err != nil {
				return err
			}
			var content [2][]byte
			for i, file := range []string{key, certificate} {
				if file == "" {
					continue
				}
				if content[i], err = os.ReadFile(file); err != nil {
					return fmt.Errorf("cannot replace key: %w", err)
				}
			}
			if err := store.Replace(args[0], content[0], content[1]); err != nil {
				return err
			}
			return store.Show(c.OutOrStdout())
		},
	}
	c.Flags().StringVar(&key, "key", "", "file of the private key")
	c.Flags().StringVar(&certificate, "certificate", "", "file of the certificate")
	return c
}

func rotateKey(open storeOf) *cobra.Command {
	return &cobra.Command{
		Use: "rotate ROLE", Short: "Make a new key of a role; the old one is kept as the previous one", Args: cobra.ExactArgs(1), ValidArgs: keys.Roles,
		RunE: func(c *cobra.Command, args []string) error {
			store, err := open()
			if err != nil {
				return err
			}
			if err := store.Rotate(args[0]); err != nil {
				return err
			}
			return store.Show(c.OutOrStdout())
		},
	}
}
