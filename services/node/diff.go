package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"golang.org/x/sys/unix"
)

// unsaved are the paths that no image should take over from a node.
var unsaved = regexp.MustCompile(`/log/|\.lock$|machine-id|walt-env|_walt_internal_|README\.nonlocal`)

// dumpDiff is walt-dump-diff-tar: it writes on standard output a tar of what users
// changed since the node is up. Removed files have no form in it: "walt node save"
// does not handle them.
func dumpDiff(context.Context, []string) error {
	const ready = "/run/uptime-ready"
	info, err := os.Stat(ready)
	if err != nil {
		return fmt.Errorf("cannot tell what changed: the node is not up yet: %w", err)
	}
	return writeDiff(os.Stdout, rootFS+"/mnt/fs_rw", info.ModTime())
}

// writeDiff writes the entries of upper, an upper layer of overlayfs, that changed
// since a time, and the folders that lead to them.
func writeDiff(w io.Writer, upper string, since time.Time) error {
	archive := tar.NewWriter(w)
	var pending []string // folders above the current entry that are not written yet
	err := filepath.WalkDir(upper, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) { // it vanished meanwhile
				return nil
			}
			return err
		}
		name, err := filepath.Rel(upper, file)
		if err != nil || name == "." || unsaved.MatchString("/"+name) {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(file, &st); err != nil {
			return nil
		}
		if st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 {
			return nil // a whiteout: the file was removed
		}
		for n := len(pending); n > 0 && !within(pending[n-1], file); n = len(pending) {
			pending = pending[:n-1]
		}
		if !changedSince(&st, since) {
			if entry.IsDir() {
				pending = append(pending, file)
			}
			return nil
		}
		for _, dir := range pending {
			above, err := filepath.Rel(upper, dir)
			if err != nil {
				return err
			}
			if err := addToTar(archive, dir, "./"+above); err != nil {
				return err
			}
		}
		pending = nil
		return addToTar(archive, file, "./"+name)
	})
	if err != nil {
		return fmt.Errorf("cannot send what changed: %w", err)
	}
	return archive.Close()
}

func within(dir, file string) bool {
	relative, err := filepath.Rel(dir, file)
	return err == nil && filepath.IsLocal(relative)
}

func changedSince(st *unix.Stat_t, since time.Time) bool {
	return !time.Unix(st.Mtim.Unix()).Before(since) || !time.Unix(st.Ctim.Unix()).Before(since)
}
