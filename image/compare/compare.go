// Package compare finds where two builds of the appliance differ, down to the
// partition, the file and the byte.
//
// It opens what an output is made of, as far as something differs: the partitions of
// a disk (GPT), the files of an ESP (FAT, by mcopy) and of a root (EROFS, by
// fsck.erofs), the sections of a unified kernel image (PE), the files of an initial
// root (cpio, zstd). What it cannot open is compared byte by byte. Contents come from
// our own builder or from a disk that was tampered with: every format is read within
// limits, and what is no longer readable is reported as it is, with its bytes.
package compare

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Difference is one thing that is not the same.
type Difference struct {
	// Where leads to it from the outside, as "walt.img", "partition root-a", "/usr/bin/psql".
	Where []string `json:"where"`
	// What says what is different there.
	What string `json:"what"`
}

func (d Difference) String() string { return strings.Join(d.Where, ": ") + ": " + d.What }

// Comparer compares files and what is in them.
type Comparer struct {
	// Command prepares a run of mcopy or fsck.erofs.
	Command func(ctx context.Context, name string, arguments ...string) *exec.Cmd
	// Scratch is an existing folder, where file systems are unpacked one at a time.
	Scratch string
}

// Files compares two files by what they are.
func (c *Comparer) Files(ctx context.Context, label, a, b string) ([]Difference, error) {
	var sides [2]*io.SectionReader
	for i, name := range []string{a, b} {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("cannot compare: %w", err)
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return nil, fmt.Errorf("cannot compare: %w", err)
		}
		sides[i] = io.NewSectionReader(f, 0, info.Size())
	}
	run := &comparison{Comparer: c, ctx: ctx}
	if err := run.contents([]string{label}, sides[0], sides[1]); err != nil {
		return nil, fmt.Errorf("cannot compare %s: %w", label, err)
	}
	return run.found, nil
}

// Folders compares the outputs that two manifests name.
func (c *Comparer) Folders(ctx context.Context, a, b string, names []string) ([]Difference, error) {
	var found []Difference
	for _, name := range names {
		some, err := c.Files(ctx, name, filepath.Join(a, name), filepath.Join(b, name))
		if err != nil {
			return nil, err
		}
		found = append(found, some...)
	}
	return found, nil
}

// comparison is one run.
type comparison struct {
	*Comparer
	ctx   context.Context
	found []Difference
}

func (c *comparison) report(where []string, format string, args ...any) {
	c.found = append(c.found, Difference{slices.Clone(where), fmt.Sprintf(format, args...)})
}

// part is something inside of a container.
type part struct {
	// about is all of it but its time and its content, as "-rw-r--r-- 0:0".
	about, time string
	content     *io.SectionReader // nil if it has none
	// plain is set of a content that is not to be opened.
	plain bool
}

// opener takes a container apart; ok is false when it is none of this kind. The parts
// stay readable until close is called. An error says what is damaged; some parts may be
// there nevertheless.
type opener func(c *comparison, r *io.SectionReader) (parts map[string]part, close func(), ok bool, err error)

// openers in the order they are tried.
var openers = []opener{openDisk, openFAT, openEROFS, openProgram, openCompressed, openArchive}

// contents compares two contents that may be containers. A difference that is in no
// part is reported by its bytes.
func (c *comparison) contents(where []string, a, b *io.SectionReader) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	same, err := equal(a, b)
	if err != nil || same {
		return err
	}
	before, damaged := len(c.found), false
	for _, open := range openers {
		partsA, closeA, ok, err := open(c, a)
		if err != nil {
			c.report(where, "the first is damaged: %v", err)
			damaged = true
		}
		if !ok {
			continue
		}
		partsB, closeB, ok, err := open(c, b)
		if err != nil {
			c.report(where, "the second is damaged: %v", err)
			damaged = true
		}
		if !ok {
			closeA()
			continue
		}
		err = c.parts(where, partsA, partsB)
		closeA()
		closeB()
		if err != nil {
			return err
		}
		break
	}
	if len(c.found) > before && !damaged {
		return nil
	}
	return c.bytes(where, a, b)
}

func (c *comparison) parts(where []string, a, b map[string]part) error {
	names := maps.Clone(a)
	maps.Copy(names, b)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		inside := append(slices.Clone(where), name)
		one, inA := a[name]
		other, inB := b[name]
		switch {
		case !inB:
			c.report(inside, "only in the first (%s)", one.about)
		case !inA:
			c.report(inside, "only in the second (%s)", other.about)
		case one.about != other.about:
			c.report(inside, "%s, in the second %s", one.about, other.about)
		case one.time != other.time:
			c.report(inside, "time %s, in the second %s", one.time, other.time)
		}
		if one.content == nil || other.content == nil {
			continue
		}
		compare := c.contents
		if one.plain {
			compare = c.bytes
		}
		if err := compare(inside, one.content, other.content); err != nil {
			return err
		}
	}
	return nil
}

const (
	chunk = 1 << 20
	// maxText is up to where a difference of text is shown as lines.
	maxText = 1 << 20
)

// equal reports whether two contents are the same.
func equal(a, b *io.SectionReader) (bool, error) {
	if a.Size() != b.Size() {
		return false, nil
	}
	first, _, err := differing(a, b, true)
	return first < 0, err
}

// bytes reports the first byte that differs, if any, and how many do.
func (c *comparison) bytes(where []string, a, b *io.SectionReader) error {
	if a.Size() <= maxText && b.Size() <= maxText {
		if line, one, other, ok := differingLine(a, b); ok {
			c.report(where, "line %d is %q, in the second %q", line, one, other)
			return nil
		}
	}
	first, count, err := differing(a, b, false)
	if err != nil {
		return err
	}
	switch sizes := fmt.Sprintf("%d bytes, in the second %d", a.Size(), b.Size()); {
	case first < 0 && a.Size() == b.Size():
	case first < 0:
		c.report(where, "%s; what both have is the same", sizes)
	case a.Size() != b.Size():
		c.report(where, "%s; the first difference is byte %d", sizes, first)
	default:
		var one, other [1]byte
		if _, err := a.ReadAt(one[:], first); err != nil {
			return err
		}
		if _, err := b.ReadAt(other[:], first); err != nil {
			return err
		}
		c.report(where, "byte %d (%#x) is 0x%02x, in the second 0x%02x; %d of %d bytes differ", first, first, one[0], other[0], count, a.Size())
	}
	return nil
}

// differing returns the offset of the first byte that differs, -1 for none, and the
// number of those that do, as far as both reach.
func differing(a, b *io.SectionReader, onlyFirst bool) (first, count int64, err error) {
	first = -1
	one, other := make([]byte, chunk), make([]byte, chunk)
	for at, size := int64(0), min(a.Size(), b.Size()); at < size; at += chunk {
		n := min(chunk, size-at)
		if _, err := a.ReadAt(one[:n], at); err != nil {
			return first, count, err
		}
		if _, err := b.ReadAt(other[:n], at); err != nil {
			return first, count, err
		}
		if bytes.Equal(one[:n], other[:n]) {
			continue
		}
		for i := range n {
			if one[i] == other[i] {
				continue
			}
			if first < 0 {
				first = at + i
			}
			if count++; onlyFirst {
				return first, count, nil
			}
		}
	}
	return first, count, nil
}

// differingLine returns the first line that differs, if both are text.
func differingLine(a, b *io.SectionReader) (line int, one, other string, ok bool) {
	texts := [2][]string{}
	for i, r := range []*io.SectionReader{a, b} {
		content, err := io.ReadAll(io.NewSectionReader(r, 0, r.Size()))
		if err != nil || !isText(content) {
			return 0, "", "", false
		}
		texts[i] = strings.SplitAfter(string(content), "\n")
	}
	at := 0
	for at < len(texts[0]) && at < len(texts[1]) && texts[0][at] == texts[1][at] {
		at++
	}
	if at == len(texts[0]) && at == len(texts[1]) {
		return 0, "", "", false
	}
	for i := range texts {
		if at == len(texts[i]) { // the end
			texts[i] = append(texts[i], "")
		}
	}
	one, other = around(texts[0][at], texts[1][at])
	return at + 1, one, other, true
}

// around cuts what two long lines share before and far behind their first difference.
func around(a, b string) (string, string) {
	const before, after = 30, 50
	at := 0
	for at < len(a) && at < len(b) && a[at] == b[at] {
		at++
	}
	cut := func(s string) string {
		end := ""
		if len(s) > at+after {
			s, end = s[:at+after], "..."
		}
		if at > before {
			s = "..." + s[at-before:]
		}
		return s + end
	}
	return cut(a), cut(b)
}

// isText reports whether bytes are printable ASCII and white space.
func isText(content []byte) bool {
	return !bytes.ContainsFunc(content, func(r rune) bool { return r > '~' || r < ' ' && r != '\n' && r != '\t' && r != '\r' })
}
