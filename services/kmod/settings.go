package kmod

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Settings are what modprobe.d(5) files and the kernel command line say of modules: of the
// former the commands options and blacklist, of the latter MODULE.PARAMETER=VALUE and
// modprobe.blacklist=. What else such files may hold is ignored.
type Settings struct {
	options   map[string][]string // by normalised name
	blacklist []string
}

// folders of modprobe.d files, in the order in which options are passed: the last one counts.
var folders = []string{"/usr/lib/modprobe.d", "/run/modprobe.d"}

const (
	cmdline = "/proc/cmdline"
	// maxSettings bounds a file.
	maxSettings = 1 << 20
)

// ReadSettings reads the files below some folders, and the command line of the running kernel,
// which counts most. What cannot be read is left out, and told.
func ReadSettings(dirs ...string) (Settings, error) {
	var s Settings
	var failures []error
	for _, folder := range dirs {
		files, err := filepath.Glob(filepath.Join(folder, "*.conf"))
		if err != nil {
			return s, err
		}
		for _, file := range files {
			text, err := readBounded(file)
			if err != nil {
				failures = append(failures, err)
			}
			s.parse(text)
		}
	}
	text, err := readBounded(cmdline)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		failures = append(failures, err)
	}
	s.parseCommandLine(text)
	return s, errors.Join(failures...)
}

func readBounded(path string) (string, error) {
	info, err := os.Stat(path)
	if err == nil && info.Size() > maxSettings {
		err = fmt.Errorf("larger than %d bytes", maxSettings)
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(path)
	}
	if err != nil {
		return "", fmt.Errorf("cannot read settings of modules from %s: %w", path, err)
	}
	return string(text), nil
}

// parse reads lines of modprobe.d(5).
func (s *Settings) parse(text string) {
	text = strings.ReplaceAll(text, "\\\n", " ")
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		switch module := Normalize(words[1]); words[0] {
		case "options":
			s.add(module, words[2:]...)
		case "blacklist":
			s.blacklist = append(s.blacklist, module)
		}
	}
}

// parseCommandLine reads what the kernel does for modules that are built in. A value in
// quotes may hold blanks (kernel-parameters); it is not split.
func (s *Settings) parseCommandLine(text string) {
	quoted := false
	words := strings.FieldsFunc(text, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return !quoted && (r == ' ' || r == '\n' || r == '\t')
	})
	for _, word := range words {
		if word == "--" { // what follows is for init
			return
		}
		name, value, _ := strings.Cut(word, "=")
		if name == "modprobe.blacklist" {
			for module := range strings.SplitSeq(value, ",") {
				s.blacklist = append(s.blacklist, Normalize(module))
			}
			continue
		}
		if module, parameter, ok := strings.Cut(word, "."); ok && !strings.Contains(module, "=") && module != "" && parameter != "" {
			s.add(Normalize(module), parameter)
		}
	}
}

func (s *Settings) add(module string, parameters ...string) {
	if s.options == nil {
		s.options = map[string][]string{}
	}
	s.options[module] = append(s.options[module], parameters...)
}

// Options are the parameters of a module, as finit_module(2) takes them.
func (s *Settings) Options(module string) string {
	return strings.Join(s.options[Normalize(module)], " ")
}

// Wanted tells whether a module may be loaded because a device asks for it.
func (s *Settings) Wanted(module string) bool {
	module = Normalize(module)
	return !slices.Contains(unwanted, module) && !slices.Contains(s.blacklist, module)
}
