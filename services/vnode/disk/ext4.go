package disk

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Marks that nodes look for on their disks (node-protocols 2.3, 2.6).
const (
	hybridFolder   = "walt_hybrid"
	persistentFile = ".persistent"
)

// formatExt4 makes a file system in a partition, by the usual program.
func formatExt4(ctx context.Context, disk string, p extent, template string) error {
	program, err := findProgram("mke2fs")
	if err != nil {
		return fmt.Errorf("cannot format it as ext4: %w", err)
	}
	args := []string{"-q", "-F", "-t", "ext4", "-E", fmt.Sprintf("offset=%d", int64(p.first)*sectorSize)}
	if template != ext4 {
		content, err := os.MkdirTemp("", "walt-disk")
		if err != nil {
			return fmt.Errorf("cannot format it as ext4: %w", err)
		}
		defer os.RemoveAll(content)
		// The user of this program is nobody on the node.
		args = append(args, "-E", fmt.Sprintf("offset=%d,root_owner=0:0", int64(p.first)*sectorSize), "-d", content)
		folder := filepath.Join(content, hybridFolder)
		if err := os.Mkdir(folder, 0o755); err != nil {
			return fmt.Errorf("cannot format it as ext4: %w", err)
		}
		if template == hybridPersistent {
			if err := os.WriteFile(filepath.Join(folder, persistentFile), nil, 0o644); err != nil {
				return fmt.Errorf("cannot format it as ext4: %w", err)
			}
		}
	}
	args = append(args, disk, fmt.Sprintf("%dk", int64(p.sectors)*sectorSize/1024))
	cmd := exec.CommandContext(ctx, program, args...)
	var words bytes.Buffer
	cmd.Stdout, cmd.Stderr = &words, &words
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("cannot format it as ext4: mke2fs: %w: %s", err, strings.TrimSpace(words.String()))
	}
	return nil
}

// findProgram looks where programs of the administrator are too.
func findProgram(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, folder := range []string{"/usr/sbin", "/sbin"} {
		if path := filepath.Join(folder, name); isProgram(path) {
			return path, nil
		}
	}
	return "", err
}

func isProgram(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}
