package images

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// FuzzStore checks that a damaged store gives images or an error, and that what is
// written back reads the same.
func FuzzStore(f *testing.F) {
	image, layer := id("1a"), id("a1")
	f.Add(`[{"id": "`+image+`", "names": ["docker.io/u/x:latest"], "layer": "`+layer+`", "kept": 1}]`,
		`[{"id": "`+layer+`", "parent": "`+layer+`", "diff-size": 5}]`,
		`{"config": {"digest": "sha256:x"}}`, `{"config": {"Labels": {"walt.node.models": "pc-x86-64,"}}}`)
	f.Add(`[null, {}, {"id": null}]`, `[null]`, `null`, `{}`)
	f.Add(`[{"id": "`+image+`", "layer": "../../x"}]`, `[{"id": "../../x"}]`, `{"config": {"digest": ".."}}`, ``)
	f.Add(`{}`, `7`, `[]`, `"`)
	f.Fuzz(func(t *testing.T, images, layers, manifest, config string) {
		dir := t.TempDir()
		for name, content := range map[string]string{
			"overlay-images/images.json":                       images,
			"overlay-layers/layers.json":                       layers,
			"overlay-images/" + image + "/manifest":            manifest,
			"overlay-images/" + image + "/=c2hhMjU2Ong=":       config, // sha256:x
			"overlay/" + layer + "/diff/boot/pc-x86-64/kernel": "",
		} {
			must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
			must(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
		}
		c, err := readCatalog([]string{dir}, func(string, ...any) {})
		if err != nil {
			return
		}
		for _, e := range c.images {
			if len(e.lower) == 0 {
				t.Errorf("image %s has no layer", e.ID)
			}
		}
		text, err := json.Marshal(c.stores[0].images)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, "overlay-images/images.json"), text, 0o600))
		if again, err := readStore(dir); err != nil || len(again.images) != len(c.stores[0].images) {
			t.Errorf("what was written reads as %v, %v\n%s", again, err, text)
		}
	})
}

// FuzzSpec checks the specification of an image, which whoever made it has written.
func FuzzSpec(f *testing.F) {
	f.Add("templates: [/etc/motd, etc/none]\nfeatures: {nbfs2: 'activate nbfs'}\n")
	f.Add(`{"templates": ["/a"], "features": {"x": "y"}}`)
	f.Add("a: &a [x, x]\nb: &b [*a, *a]\ntemplates: *b\n")
	f.Add("templates: 7\nfeatures: [\x00")
	f.Fuzz(func(t *testing.T, text string) {
		spec, err := parseSpec([]byte(text))
		if err == nil && len(spec.Templates)+len(spec.Features) > len(text) {
			t.Errorf("%d templates and %d features of %d bytes", len(spec.Templates), len(spec.Features), len(text))
		}
	})
}
