package keys

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"text/tabwriter"

	"github.com/waltos/waltos/image/sign"
	"github.com/waltos/waltos/image/tree"
)

// Export writes what machines need to trust the keys into a folder, nothing secret: for each
// variable of Secure Boot the certificate (.cer, DER), the signature list (.esl) and what
// firmware takes as a signed change (.auth); the public key of releases. After
// a change of the platform key, PK.update.auth is its change signed by the previous one.
// Programs that certificates (DER) of others sign are trusted also.
func (s *Store) Export(dir string, also ...[]byte) error {
	files, err := s.exported(also)
	if err != nil {
		return fmt.Errorf("cannot export keys: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("cannot export keys: %w", err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return fmt.Errorf("cannot export keys: %w", err)
		}
	}
	return nil
}

// Stick returns the content of an ESP that brings the keys into a firmware which is in setup mode:
// systemd-boot offers to write them, and does so at once in a virtual machine. What
// Export writes is in the folder keys, for the menus of firmware. The loader is systemd-boot,
// unsigned; boot is the path that firmware starts.
func (s *Store) Stick(loader []byte, boot string, also ...[]byte) (*tree.Tree, error) {
	fail := func(err error) (*tree.Tree, error) { return nil, fmt.Errorf("cannot make a stick of keys: %w", err) }
	exported, err := s.exported(also)
	if err != nil {
		return fail(err)
	}
	signer, err := s.Signer(sign.Programs)
	if err != nil {
		return fail(err)
	}
	// It is started once more when its keys are there.
	signed, err := signer.Program(loader)
	if err != nil {
		return fail(err)
	}
	files := map[string][]byte{boot: signed}
	for name, content := range exported {
		files["/keys/"+name] = content
	}
	for _, name := range []string{sign.PlatformKey, sign.ExchangeKeys, sign.Programs} {
		files["/loader/keys/auto/"+name+".auth"] = exported[name+".auth"]
	}
	content := tree.New()
	for name, data := range files {
		if err := content.Add(name, &tree.File{Mode: 0o644, Content: data}); err != nil {
			return fail(err)
		}
	}
	return content, nil
}

// exported makes the files of Export.
func (s *Store) exported(also [][]byte) (map[string][]byte, error) {
	platform, err := s.Signer(sign.PlatformKey)
	if err != nil {
		return nil, err
	}
	exchange, err := s.Signer(sign.ExchangeKeys)
	if err != nil {
		return nil, err
	}
	trusted, err := s.Trusted()
	if err != nil {
		return nil, err
	}
	variables, err := s.Variables(s.now(), also...)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{"release.pub": trusted[0].File()}
	for _, v := range variables {
		by := platform
		if v.Name == sign.Programs {
			by = exchange
		}
		current, err := s.Certificate(v.Name)
		if err != nil {
			return nil, err
		}
		files[v.Name+".cer"], files[v.Name+".esl"] = current.Raw, v.Data
		if files[v.Name+".auth"], err = by.Variable(v); err != nil {
			return nil, err
		}
		if v.Name != sign.PlatformKey {
			continue
		}
		old, err := s.Signer(previous(sign.PlatformKey))
		switch {
		case err == nil:
			if files[v.Name+".update.auth"], err = old.Variable(v); err != nil {
				return nil, err
			}
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
	}
	return files, nil
}

// Show prints a table of the keys.
func (s *Store) Show(w io.Writer) error {
	development, err := s.Development()
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "keys in %s\n", s.Dir)
	if development {
		fmt.Fprintln(w, "local development keys: whoever reads this folder can sign; make your own with `image keys generate`")
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ROLE\tKEY\tPRIVATE PART\tSUBJECT\tUNTIL")
	for _, role := range Roles {
		for _, name := range []string{role, previous(role)} {
			private, err := s.privatePart(name)
			if err != nil {
				return err
			}
			key, subject, until, err := s.publicPart(role, name)
			if name != role && errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", name, key, private, subject, until)
		}
	}
	return t.Flush()
}

// publicPart says what is known of a key: the key itself, or the fingerprint of its
// certificate.
func (s *Store) publicPart(role, name string) (key, subject, until string, err error) {
	if role == Release {
		public, err := s.public(name)
		return public.String(), "minisign " + public.Name(), "", err
	}
	issued, err := s.Certificate(name)
	if err != nil {
		return "", "", "", err
	}
	return Fingerprint(issued.Raw), issued.Subject.String(), issued.NotAfter.Format("2006-01-02"), nil
}

// privatePart says how a private key is kept.
func (s *Store) privatePart(name string) (string, error) {
	protected, err := s.protected(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "absent", nil
	case err != nil:
		return "", err
	case protected:
		return "with passphrase", nil
	}
	return "open", nil
}
