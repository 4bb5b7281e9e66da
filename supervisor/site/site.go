// Package site finds the configuration of the platform at boot and puts the effective
// one where all services read it.
//
// Order: walt.hcl; if it is missing, upstream's server.conf, which is imported; if both
// are, the first-boot sources; if nothing is valid, the last configuration that was, then
// a built-in one (virtual nodes only). What was refused and why is kept for the console
// and for waltctl; the machine boots in every case.
package site

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/services/atomicfile"
)

// Default is the configuration of a machine that nobody has configured.
const Default = `# Nobody has configured this platform: virtual nodes only.
network "walt-net" {
  ip = "192.168.152.1/24"
}
`

// Source is somewhere that a first configuration may be found.
type Source struct {
	Name string
	Read func() ([]byte, error) // fs.ErrNotExist: nothing there
}

// Config holds the paths.
type Config struct {
	File       string // hcl.SitePath
	ServerConf string // upstream's
	LastGood   string
	Effective  string // for all services: without the secret
	Secret     string // URL of an external database
	Owner      string // user who may read Secret, besides root
	First      []Source
}

// Result tells what became effective.
type Result struct {
	Site   *hcl.Site
	Source string // in words
	// Refused is what is wrong with what should have been effective: diagnostics with
	// file, line and cause; empty when all is well.
	Refused string
}

// Load finds the configuration and writes the effective copy and the secret. The error is of writing;
// the result is usable all the same.
func (c Config) Load() (Result, error) {
	r, text, keep := c.choose()
	var failures []error
	if keep {
		failures = append(failures, writeIfChanged(c.LastGood, text, 0o600))
	}
	failures = append(failures, c.publish(text))
	return r, errors.Join(failures...)
}

// publish writes what services read.
func (c Config) publish(text []byte) error {
	public, secret, err := hcl.WithoutSecrets(text, c.Secret)
	if err != nil {
		return err
	}
	failure := writeIfChanged(c.Effective, public, 0o644)
	if secret == "" {
		if err := os.Remove(c.Secret); err != nil && !errors.Is(err, os.ErrNotExist) {
			return errors.Join(failure, fmt.Errorf("cannot remove a former secret: %w", err))
		}
		return failure
	}
	if err := writeIfChanged(c.Secret, []byte(secret+"\n"), 0o400); err != nil {
		return errors.Join(failure, err)
	}
	return errors.Join(failure, giveTo(c.Owner, c.Secret))
}

// giveTo makes a user the owner of a file.
func giveTo(owner, path string) error {
	u, err := user.Lookup(owner)
	if err != nil {
		return fmt.Errorf("cannot give %s to %s: %w", path, owner, err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return fmt.Errorf("cannot give %s to %s: %w", path, owner, err)
	}
	return os.Chown(path, uid, -1)
}

// choose returns the configuration, its text, and whether it is worth keeping as the last
// good one.
func (c Config) choose() (Result, []byte, bool) {
	var refused []string
	refuse := func(err error) { refused = append(refused, err.Error()) }

	text, err := os.ReadFile(c.File)
	switch {
	case err == nil:
		site, err := hcl.ParseSite(text, c.File)
		if err == nil {
			return Result{Site: site, Source: c.File}, text, true
		}
		refuse(err)
	case errors.Is(err, os.ErrNotExist):
		if r, text, ok := c.first(refuse); ok {
			r.Refused = strings.Join(refused, "\n")
			return r, text, true
		}
	default:
		refuse(fmt.Errorf("cannot read configuration: %w", err))
	}

	if text, err := os.ReadFile(c.LastGood); err == nil {
		site, err := hcl.ParseSite(text, c.LastGood)
		if err == nil {
			return Result{Site: site, Source: "the last good configuration", Refused: strings.Join(refused, "\n")}, text, false
		}
		refuse(err)
	}
	site, err := hcl.ParseSite([]byte(Default), "built-in configuration")
	if err != nil {
		panic("internal error: " + err.Error())
	}
	return Result{Site: site, Source: "the built-in configuration", Refused: strings.Join(refused, "\n")}, []byte(Default), false
}

// first imports server.conf or takes a first-boot source, and makes it the site file.
func (c Config) first(refuse func(error)) (Result, []byte, bool) {
	adopt := func(site *hcl.Site, text []byte, source string) (Result, []byte, bool) {
		if err := writeIfChanged(c.File, text, 0o600); err != nil {
			refuse(err)
		}
		return Result{Site: site, Source: source}, text, true
	}
	text, err := os.ReadFile(c.ServerConf)
	if err == nil {
		site, err := hcl.ParseServerConf(text, c.ServerConf)
		if err == nil {
			return adopt(site, hcl.FormatSite(site), c.File+", imported from "+c.ServerConf)
		}
		refuse(err)
		return Result{}, nil, false
	}
	for _, source := range c.First {
		text, err := source.Read()
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			refuse(fmt.Errorf("cannot read %s: %w", source.Name, err))
			continue
		}
		site, err := hcl.ParseSite(text, source.Name)
		if err != nil {
			refuse(err)
			continue
		}
		return adopt(site, text, c.File+", taken from "+source.Name)
	}
	return Result{}, nil, false
}

// writeIfChanged replaces a file as a whole, durably, unless it holds the text already.
func writeIfChanged(path string, text []byte, mode os.FileMode) error {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, text) {
		return nil
	}
	fail := func(err error) error { return fmt.Errorf("cannot write configuration: %w", err) }
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fail(err)
	}
	if err := atomicfile.Write(path, text, mode); err != nil {
		return fail(err)
	}
	return nil
}
