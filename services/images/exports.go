package images

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/waltos/waltos/services/atomicfile"
	"github.com/waltos/waltos/services/daemon/trackexec"
)

const (
	exportsHeader  = "# Written by server-main at each change: do not edit.\n"
	exportsTimeout = 30 * time.Second
)

// writeExports writes the export files (server-state 3.6) and has them applied if
// they changed, or if the last attempt failed, or at the first time.
func (m *Manager) writeExports(ctx context.Context, ids []string, devices []Device) error {
	subnet := m.config.Network.Masked()
	var roots, persist bytes.Buffer
	roots.WriteString(exportsHeader)
	persist.WriteString(exportsHeader)
	if len(ids) > 0 {
		fmt.Fprintf(&roots, "%s %s(ro,sync,no_root_squash,no_subtree_check)\n", m.nodes(), subnet)
	}
	for _, id := range ids {
		fmt.Fprintf(&roots, "%s %s(fsid=%s,ro,sync,no_root_squash,no_subtree_check)\n", m.mountPoint(id), subnet, id[:32])
	}
	for _, d := range devices {
		if dir := m.persistDir(d); dir != "" {
			fmt.Fprintf(&persist, "%s %s(rw,sync,no_root_squash,no_subtree_check)\n", dir, subnet)
		}
	}
	if err := os.MkdirAll(m.config.Exports, 0o755); err != nil {
		return fmt.Errorf("cannot export images: %w", err)
	}
	for name, content := range map[string][]byte{"walt.exports": roots.Bytes(), "walt-persist.exports": persist.Bytes()} {
		path := filepath.Join(m.config.Exports, name)
		old, err := os.ReadFile(path)
		if err == nil && bytes.Equal(old, content) {
			continue
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot export images: %w", err)
		}
		m.exported = false
		if err := atomicfile.Write(path, content, 0o644); err != nil {
			return fmt.Errorf("cannot export images: %w", err)
		}
	}
	if m.exported || len(m.config.Exportfs) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, exportsTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, m.config.Exportfs[0], m.config.Exportfs[1:]...)
	var out []byte
	err := trackexec.RunCommand(ctx, cmd, func() (err error) { out, err = cmd.CombinedOutput(); return err })
	if err != nil {
		return fmt.Errorf("cannot export images: %s: %w: %s", m.config.Exportfs[0], err, strings.TrimSpace(string(out)))
	}
	m.exported = true
	return nil
}
