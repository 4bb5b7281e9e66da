package sbom

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdxlib"
)

// The reader of SPDX accepts the document and finds the components, the same ones joined.
func TestWrite(t *testing.T) {
	file := filepath.Join(t.TempDir(), "program")
	if out, err := exec.Command("go", "build", "-o", file, "..").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	program, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	modules, err := Modules("test", program)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(modules, func(c Component) bool { return c.Name == "github.com/spdx/tools-golang" }) {
		t.Errorf("the library is missing in %v", modules)
	}
	i := Image{Name: "walt", Version: "10.0", ID: "8f8c4f9e-8d19-5c2b-9e37-5c1b8a1f3c11", Time: time.Unix(1e9, 0)}
	i.Components = append(i.Components,
		Component{Kind: Debian, Name: "libstdc++6", Version: "1:14.2.0-19+b1", Architecture: "amd64", Source: "gcc-14", SHA256: strings.Repeat("ab", 32), Within: "root"},
		Component{Kind: Debian, Name: "libstdc++6", Version: "1:14.2.0-19+b1", Architecture: "amd64", Source: "gcc-14", SHA256: strings.Repeat("ab", 32), Within: "image pc"},
		Component{Kind: Python, Name: "walt_client", Version: "10.0", Within: "wheels"},
	)
	i.Components = append(i.Components, modules...)
	var out, again bytes.Buffer
	if err := Write(&out, i); err != nil {
		t.Fatal(err)
	}
	slices.Reverse(i.Components)
	if err := Write(&again, i); err != nil {
		t.Fatal(err)
	}
	if out.String() != again.String() {
		t.Error("the order of components matters")
	}
	doc, err := json.Read(&out)
	if err != nil {
		t.Fatal(err)
	}
	if err := spdxlib.ValidateDocument(doc); err != nil {
		t.Fatal(err)
	}
	if want := len(modules) + 3; len(doc.Packages) != want {
		t.Errorf("%d packages, expected %d", len(doc.Packages), want)
	}
	purls := map[string]string{}
	for _, p := range doc.Packages {
		for _, r := range p.PackageExternalReferences {
			purls[p.PackageName] = r.Locator + " " + p.PackageComment
		}
	}
	for name, want := range map[string]string{
		"libstdc++6":  "pkg:deb/debian/libstdc++6@1:14.2.0-19%2Bb1?arch=amd64&distro=trixie part of image pc, root",
		"walt_client": "pkg:pypi/walt-client@10.0 part of wheels",
	} {
		if purls[name] != want {
			t.Errorf("%s: %q, expected %q", name, purls[name], want)
		}
	}
}

func TestModulesOfNothing(t *testing.T) {
	if _, err := Modules("none", []byte("#!/bin/sh")); err == nil || !strings.Contains(err.Error(), "program none") {
		t.Errorf("%v", err)
	}
}
