package waltctl

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/aymanbagabas/go-udiff"
	"github.com/spf13/cobra"
	"github.com/waltos/waltos/hcl"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/term"
)

func (t *Tool) configureCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "configure FILE", Short: "Check a site file, show what it changes, and put it in effect", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := os.ReadFile(args[0])
			if err != nil {
				return fmt.Errorf("cannot read the configuration: %w", err)
			}
			if _, err := hcl.ParseSite(text, args[0]); err != nil {
				return err
			}
			now, err := os.ReadFile(hcl.SitePath)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("cannot read the configuration in effect: %w", err)
			}
			difference := udiff.Unified(hcl.SitePath, args[0], string(now), string(text))
			if !t.asJSON {
				fmt.Fprint(t.Out, difference)
			}
			if difference != "" && !yes && !t.confirm("Put it in effect?") {
				return errors.New("nothing is changed")
			}
			done, err := t.Client.Configure(cmd.Context(), text)
			if err != nil {
				return err
			}
			if t.asJSON {
				return t.print(map[string]string{"done": done})
			}
			_, err = fmt.Fprintln(t.Out, done)
			return err
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func (t *Tool) passwordCommand() *cobra.Command {
	return &cobra.Command{
		Use: "password", Short: "Ask for a password and print its hash, for console.password_hash of the site file", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			password, err := t.password()
			if err != nil {
				return err
			}
			if bytes.ContainsFunc(password, func(r rune) bool { return r < ' ' || r > '~' }) {
				return errors.New("cannot use this password: not every console can type what is not ASCII")
			}
			hash, err := bcrypt.GenerateFromPassword(password, bcrypt.DefaultCost)
			if err != nil {
				return fmt.Errorf("cannot make a hash: %w", err)
			}
			if t.asJSON {
				return t.print(map[string]string{"password_hash": string(hash)})
			}
			_, err = fmt.Fprintf(t.Out, "console {\n  password_hash = %q\n}\n", hash)
			return err
		},
	}
}

// password reads one: twice from a terminal, without showing it, else one line.
func (t *Tool) password() ([]byte, error) {
	file, ok := t.In.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		line, err := bufio.NewReader(t.In).ReadString('\n')
		if line = strings.TrimRight(line, "\r\n"); line == "" {
			return nil, fmt.Errorf("cannot read a password: %w", errors.Join(err, errors.New("it is empty")))
		}
		return []byte(line), nil
	}
	var typed [2][]byte
	for i, prompt := range []string{"Password: ", "Again: "} {
		fmt.Fprint(t.Errors, prompt)
		password, err := term.ReadPassword(int(file.Fd()))
		fmt.Fprintln(t.Errors)
		if err != nil {
			return nil, fmt.Errorf("cannot read a password: %w", err)
		}
		typed[i] = password
	}
	switch {
	case len(typed[0]) == 0:
		return nil, errors.New("cannot use an empty password")
	case string(typed[0]) != string(typed[1]):
		return nil, errors.New("the two are not the same")
	}
	return typed[0], nil
}
