package compose

import (
	"bytes"
	"path/filepath"
	"testing"
	"time"

	"github.com/waltos/waltos/image/bundle"
	"github.com/waltos/waltos/image/inputs"
)

// Two builds of one version and lock have different names when anything of them differs, and
// have the same when only keys do: the root is then the same too.
func TestBuildsAreToldApart(t *testing.T) {
	in, err := inputs.Open(inputs.Options{Appliance: filepath.Join("..", "appliance.hcl"), Cache: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	describe := func(service, key string) (*Manifest, bundle.Release, []byte) {
		t.Helper()
		b := &builder{
			Options:  Options{Source: filepath.Join("..", ".."), Inputs: in},
			time:     time.Unix(1e9, 0),
			programs: &programs{toolchain: "go1", services: []byte(service)},
			signer:   &published{signing: Signing{Releases: []string{key}}},
		}
		if b.manifest, err = b.newManifest(); err != nil {
			t.Fatal(err)
		}
		return b.manifest, b.release(), b.osRelease()
	}
	first, release, system := describe("one", "ours")
	again, releaseAgain, systemAgain := describe("one", "ours")
	if again.Inputs != first.Inputs || releaseAgain != release || !bytes.Equal(systemAgain, system) {
		t.Errorf("the same is told apart: %v and %v", release, releaseAgain)
	}
	signed, releaseSigned, systemSigned := describe("one", "yours")
	if signed.Inputs == first.Inputs {
		t.Error("outputs of other keys would be reused")
	}
	if releaseSigned != release || !bytes.Equal(systemSigned, system) {
		t.Errorf("keys are in the root: %s", systemSigned)
	}
	other, releaseOther, systemOther := describe("two", "ours")
	if other.Inputs == first.Inputs || releaseOther.String() == release.String() || bytes.Equal(systemOther, system) {
		t.Errorf("%v and %v are different builds", release, releaseOther)
	}
	for _, pair := range [][2]bundle.Release{{release, releaseOther}, {releaseOther, release}} {
		if older, err := pair[0].Older(pair[1]); err != nil || older {
			t.Errorf("%v is older than %v, %v", pair[0], pair[1], err)
		}
	}
}
