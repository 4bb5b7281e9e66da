package client

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/waltos/waltos/services/daemon/blocking/registrytest"
	"github.com/waltos/waltos/tests/native"
)

// password is that of alice, at all registries.
const password = "s3cr\u00e9t: x"

// registries starts the registries of the platform, and returns their part of the site
// file: the Docker Hub, one of the site, where alice has an account too, and one that is
// down.
func (p *platform) registries() string {
	p.hub = registrytest.StartHub(p.t, map[string]string{"alicehub": password, "carol": "other"})
	p.t.Setenv("HTTPS_PROXY", p.hub.Proxy.String())
	p.t.Setenv("SSL_CERT_FILE", p.hub.Authority)
	p.own = registrytest.Start(p.t, true, "alicehub", password)

	radio := map[string]string{"walt.node.models": "pc-x86-64", "walt.server.minversion": "4"}
	p.hub.Push(p.t, "carol/radio:latest", registrytest.Image{Labels: radio})
	p.hub.Push(p.t, "carol/walt_metadata:latest", registrytest.Image{Labels: map[string]string{"metadata": base64.StdEncoding.EncodeToString(
		[]byte(`{"walt.user.images": {"carol/radio:latest": {"labels": {"walt.node.models": "pc-x86-64", "walt.server.minversion": "4"}}}}`))}})
	p.hub.Push(p.t, "alicehub/weather:v2", registrytest.Image{Labels: map[string]string{"walt.node.models": "rpi-3-b,rpi-3-b-plus"}})
	p.own.Push(p.t, "team/robot:latest", registrytest.Image{Labels: map[string]string{"walt.node.models": "rpi-4-b", "walt.server.minversion": "12"}})
	p.own.Push(p.t, "team/site:latest", registrytest.Image{})
	// Newer default images: for the one that is here, and for one that is not.
	layer, err := defaultLayer()
	if err != nil {
		p.t.Fatal(err)
	}
	for full, created := range map[string]time.Time{
		native.DefaultImage: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC), "waltplatform/rpi-3-b-default:latest": time.Now(),
	} {
		p.hub.Push(p.t, full, registrytest.Image{
			Labels: map[string]string{"walt.node.models": "pc-x86-64,pc-x86-32"}, Created: created, Layers: []v1.Layer{layer},
		})
	}
	return fmt.Sprintf(`registry "hub" {
  api         = "docker-hub"
  description = "Public registry at hub.docker.com"
}
registry "own" {
  api         = "docker-registry-v2"
  description = "Registry of the laboratory"
  host        = %q
  port        = %d
  protocol    = "https-no-verify"
  auth        = "basic"
}
registry "gone" {
  api         = "docker-registry-v2"
  description = "Registry that is down"
  host        = "127.0.0.1"
  port        = 1
  protocol    = "http"
  auth        = "none"
}
`, p.own.Host, p.own.Port)
}

// defaultLayer is what the default image of a registry is made of.
func defaultLayer() (v1.Layer, error) {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, dir := range []string{"bin", "dev", "etc", "mnt", "proc", "root", "run", "sys", "tmp", "usr/local/bin", "boot/pc-x86-64"} {
		if err := w.WriteHeader(&tar.Header{Name: dir + "/", Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
			return nil, err
		}
	}
	const text = "#!ipxe newer\n"
	if err := w.WriteHeader(&tar.Header{Name: "boot/pc-x86-64/start.ipxe", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(text))}); err != nil {
		return nil, err
	}
	if _, err := io.WriteString(w, text); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(archive.Bytes())), nil })
}

// giveAccounts gives the client of a user its accounts at the registries.
func (p *platform) giveAccounts(user string) {
	p.t.Helper()
	home := p.Folder(user)
	if err := os.MkdirAll(filepath.Join(home, ".walt"), 0o700); err != nil {
		p.t.Fatal(err)
	}
	config := "walt:\n  server: 127.0.0.1\n  username: " + user + "\nregistries:\n"
	for _, label := range []string{"hub", "own"} {
		config += "  " + label + ":\n    username: alicehub\n    password: " + hide(password) + "\n"
	}
	if err := os.WriteFile(filepath.Join(home, ".walt", "config"), []byte(config), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// hide writes a password as the client keeps it (client-api §4.1).
func hide(text string) string {
	const key = "RAND0M STRING T0 HIDE A PASSW0RD"
	out := make([]byte, len(text))
	for i := range out {
		out[i] = text[i] ^ key[i%len(key)]
	}
	return fmt.Sprintf("%x", out)
}

// newcomer is the home folder of a person whose client has, of registries, what is given.
func newcomer(t *testing.T, registries string) string {
	t.Helper()
	home := t.TempDir()
	if err := os.MkdirAll(filepath.Join(home, ".walt"), 0o700); err != nil {
		t.Fatal(err)
	}
	config := "walt:\n  server: 127.0.0.1\n  username: eve\n" + registries
	if err := os.WriteFile(filepath.Join(home, ".walt", "config"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return home
}

// TestPrompts has a person type accounts when the work needs them.
func TestPrompts(t *testing.T) {
	p := startPlatform(t)
	const hubPrompt = `Docker hub credentials are missing or invalid\. Please enter them below\.\r\nusername: $`
	t.Run("typed", func(t *testing.T) {
		home := newcomer(t, "")
		term := p.terminalAt(t, home, "walt", "image", "search", "ra")
		account := func(word string) {
			term.key("alicehub\r")
			term.expect(`password( \(or token\))?: $`, nil)
			term.key(word + "\r")
		}
		term.expect(hubPrompt, nil)
		account("wrong")
		term.expect(`Sorry, hub registry login FAILED\.\r\n`, nil)
		term.expect(`username: $`, nil)
		account(password)
		term.expect(`Credentials for access to "own" registry are missing or invalid\. Please enter them below\.\r\nusername: $`, nil)
		account(password)
		term.expect(`\d matches\r`, nil)
		term.expect(`carol +radio +docker hub +pc-x86-64 +hub:carol/radio *\r\n`, nil)
		if code := term.end(); code != 0 {
			t.Errorf("exit code %d", code)
		}
		// They were kept.
		term = p.terminalAt(t, home, "walt", "advanced", "update-hub-meta")
		if code, text := term.end(), term.rest(); code != 0 || strings.Contains(text, "username") {
			t.Errorf("exit code %d, %q", code, text)
		}
	})
	t.Run("refused", func(t *testing.T) {
		account := "username: alicehub\n    password: "
		home := newcomer(t, "registries:\n  hub:\n    "+account+hide("wrong")+"\n  own:\n    "+account+hide(password)+"\n")
		term := p.terminalAt(t, home, "walt", "image", "search", "radio")
		term.expect(`Sorry, hub registry login FAILED\.\r\n`, nil)
		term.expect(`hub:carol/radio *\r\n`, nil) // anybody may search
		term.end()
		p.hub.Asked()
		term = p.terminalAt(t, home, "walt", "advanced", "update-hub-meta")
		term.expect(`Sorry, hub registry login FAILED\.\r\n`, nil)
		term.end()
		for _, request := range p.hub.Asked() {
			if strings.HasPrefix(request, "P") {
				t.Errorf("the hub was asked %s", request)
			}
		}
	})
	t.Run("CN28 only the password is missing", func(t *testing.T) {
		home := newcomer(t, "registries:\n  hub:\n    username: alicehub\n")
		term := p.terminalAt(t, home, "walt", "image", "search")
		term.expect(`Sorry, hub registry login FAILED\.\r\n`, nil)
		term.end()
	})
	t.Run("interrupted", func(t *testing.T) {
		term := p.terminalAt(t, newcomer(t, ""), "walt", "image", "search")
		term.expect(hubPrompt, nil)
		term.key(interrupt)
		term.end()
		if _, err := p.Call("eve", "get_time"); err != nil {
			t.Error(err)
		}
	})
}
