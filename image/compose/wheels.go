package compose

import (
	"archive/zip"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/waltos/waltos/image/fetch"
	"github.com/waltos/waltos/image/lock"
	"github.com/waltos/waltos/image/tree"
)

// Where the root holds what clients of another version install, and the pages that one
// of these wheels brings.
const (
	wheelFolder = lib + "/wheels"
	docFolder   = lib + "/doc"
	docInWheel  = "walt/doc/html/"
)

// maxPage bounds a file of the documentation.
const maxPage = 16 << 20

// addWheels adds wheels as they were published, and the documentation that they hold.
func addWheels(t *tree.Tree, cache *fetch.Cache, set []lock.Wheel) error {
	for _, w := range set {
		content, err := os.ReadFile(cache.File(w.SHA256))
		if err != nil {
			return err
		}
		if sum := digestOf(content); sum != w.SHA256 {
			return fmt.Errorf("%s in the cache is damaged: its SHA-256 is %s", w.File, sum)
		}
		if err := t.Add(path.Join(wheelFolder, w.File), &tree.File{Mode: 0o644, Content: content, Origin: w.File}); err != nil {
			return err
		}
		if err := addDocumentation(t, content, w.File); err != nil {
			return fmt.Errorf("%s: %w", w.File, err)
		}
	}
	return nil
}

// addDocumentation unpacks the pages of a wheel, which is a zip archive (PEP 427).
func addDocumentation(t *tree.Tree, wheel []byte, origin string) error {
	archive, err := zip.NewReader(bytes.NewReader(wheel), int64(len(wheel)))
	if err != nil {
		return err
	}
	for _, entry := range archive.File {
		name, inside := strings.CutPrefix(entry.Name, docInWheel)
		// Python modules only make folders known to Python.
		if !inside || entry.Mode()&fs.ModeType != 0 || path.Ext(name) == ".py" {
			continue
		}
		if !fs.ValidPath(name) {
			return fmt.Errorf("%q is not a path", entry.Name)
		}
		content, err := readEntry(entry)
		if err != nil {
			return fmt.Errorf("%s: %w", entry.Name, err)
		}
		if err := t.Add(path.Join(docFolder, name), &tree.File{Mode: 0o644, Content: content, Origin: origin}); err != nil {
			return err
		}
	}
	return nil
}

func readEntry(entry *zip.File) ([]byte, error) {
	r, err := entry.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	content, err := io.ReadAll(io.LimitReader(r, maxPage+1))
	if err == nil && len(content) > maxPage {
		err = fmt.Errorf("longer than %d bytes", maxPage)
	}
	return content, err
}
