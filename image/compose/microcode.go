package compose

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/waltos/waltos/image/cpio"
	"github.com/waltos/waltos/image/tree"
)

// microcodes are where packages have the microcode of processors, and what the kernel looks for
// (its Documentation/arch/x86/microcode.rst).
var microcodes = []struct{ folder, suffix, name string }{
	{"/usr/lib/firmware/amd-ucode", ".bin", "AuthenticAMD.bin"},
	{"/usr/lib/firmware/intel-ucode", "", "GenuineIntel.bin"},
}

// microcode moves what packages bring for processors, as amd64-microcode and intel-microcode do,
// from the root to what stands before an initramfs, for the kernel to load it before all else;
// empty if none does. It is not compressed, for nothing could decompress it then.
func microcode(root *tree.Tree, mtime time.Time) ([]byte, error) {
	early := tree.New()
	found := false
	for _, m := range microcodes {
		folder, err := root.Get(m.folder)
		if errors.Is(err, tree.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("cannot find microcode: %w", err)
		}
		var content []byte
		seen := map[string]bool{} // one file serves several models of processors
		for _, name := range folder.Names() {
			f, err := root.Get(path.Join(m.folder, name))
			if err != nil {
				return nil, fmt.Errorf("cannot read microcode: %w", err)
			}
			if strings.HasSuffix(name, m.suffix) && f.Mode.IsRegular() && !seen[digestOf(f.Content)] {
				seen[digestOf(f.Content)] = true
				content = append(content, f.Content...)
			}
		}
		if len(content) == 0 {
			continue
		}
		found = true
		root.Remove(m.folder)
		if err := early.Add("/kernel/x86/microcode/"+m.name, &tree.File{Mode: 0o644, Content: content, Origin: "microcode"}); err != nil {
			return nil, err
		}
	}
	if !found {
		return nil, nil
	}
	var out bytes.Buffer
	if err := cpio.Write(&out, early, mtime); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
