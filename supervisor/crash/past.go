package crash

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Folder is where pstore is mounted.
const Folder = "/sys/fs/pstore"

// Unit is under what name the journal has what pstore held.
const Unit = "pstore"

// Bounds of what is read of pstore: each boot, an attacker with the firmware's variables could
// have written it.
const (
	maxFile  = 1 << 20
	maxFiles = 256
)

// Line is a line of an earlier boot.
type Line struct {
	Time time.Time // when it was written to pstore
	Text string
}

// part finds the place of a record in a dump that its backend had to split: the first line of
// a part is "Panic#1 Part3".
var part = regexp.MustCompile(`^[A-Za-z-]+#\d+ Part\d+$`)

// Past returns what a folder of pstore holds, the oldest lines first, and a function that
// removes it from there.
func Past(folder string) (lines []Line, forget func() error, err error) {
	entries, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, func() error { return nil }, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("cannot read what a crash has left: %w", err)
	}
	entries = entries[:min(len(entries), maxFiles)]
	type file struct {
		path string
		time time.Time
		text string
	}
	var files []file
	for _, e := range entries {
		path := filepath.Join(folder, e.Name())
		f, err := os.Open(path)
		if err != nil {
			continue // pstore loses what it cannot read
		}
		info, err := f.Stat()
		if err == nil && info.Mode().IsRegular() {
			text, _ := io.ReadAll(io.LimitReader(f, maxFile)) // a part is better than nothing
			files = append(files, file{path, info.ModTime(), string(text)})
		}
		f.Close()
	}
	// Of one dump, the part with the highest number has the oldest messages.
	slices.SortStableFunc(files, func(a, b file) int {
		if order := a.time.Truncate(time.Second).Compare(b.time.Truncate(time.Second)); order != 0 {
			return order
		}
		return number(b.text) - number(a.text)
	})
	for _, f := range files {
		for text := range strings.Lines(f.text) {
			text = strings.TrimRight(text, "\r\n\x00")
			if text != "" && !part.MatchString(text) {
				lines = append(lines, Line{f.time, text})
			}
		}
	}
	return lines, func() error {
		var failures []error
		for _, f := range files {
			failures = append(failures, os.Remove(f.path))
		}
		return errors.Join(failures...)
	}, nil
}

// number is that of a part, or 0.
func number(text string) (n int) {
	head, _, _ := strings.Cut(text, "\n")
	if !part.MatchString(head) {
		return 0
	}
	_, digits, _ := strings.Cut(head, " Part")
	_, _ = fmt.Sscanf(digits, "%d", &n)
	return n
}
