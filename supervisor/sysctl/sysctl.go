// Package sysctl sets values of the running kernel (sysctl(8)): of the image, from a file in
// the form of sysctl.d(5), and of the site. A value that the kernel does not know, or refuses,
// is told and stops nothing.
//
// Refused: names that leave the folder. Not supported: wildcards.
package sysctl

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/waltos/waltos/hcl"
)

// Mount is where the kernel shows its values.
const Mount = "/proc/sys"

// ErrUnknown is what the kernel says of values that belong to a module or a device that is not
// there, or not yet.
var ErrUnknown = errors.New("the kernel does not know it")

// Apply sets values, by name, below a folder. Those that the kernel has already are left.
func Apply(folder string, values map[string]string) error {
	var failures []error
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if err := apply(folder, hcl.SysctlPath(name), values[name]); err != nil {
			failures = append(failures, fmt.Errorf("cannot set %s to %q: %w", name, values[name], err))
		}
	}
	return errors.Join(failures...)
}

func apply(folder, path, value string) error {
	if !filepath.IsLocal(path) {
		return errors.New("it is no name below " + folder)
	}
	path = filepath.Join(folder, path)
	if old, err := os.ReadFile(path); err == nil && strings.Join(strings.Fields(string(old)), " ") == strings.Join(strings.Fields(value), " ") {
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ErrUnknown
	case err != nil:
		return errors.Unwrap(err)
	}
	defer f.Close()
	if _, err := f.WriteString(value + "\n"); err != nil {
		return errors.Unwrap(err)
	}
	return nil
}

// maxFile bounds a file of settings.
const maxFile = 1 << 20

// Read reads a file of the form of sysctl.d(5); one that does not exist sets nothing. Lines
// without a value are left out: that is for people to check with sysctl(8).
func Read(path string) (map[string]string, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read kernel values: %w", err)
	}
	defer f.Close()
	values, err := parse(io.LimitReader(f, maxFile))
	if err != nil {
		return values, fmt.Errorf("cannot read kernel values from %s: %w", path, err)
	}
	return values, nil
}

func parse(r io.Reader) (map[string]string, error) {
	values := map[string]string{}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		// A dash says that failures do not matter, which they never do here.
		name, value, ok := strings.Cut(strings.TrimPrefix(line, "-"), "=")
		if ok {
			values[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	return values, lines.Err()
}
