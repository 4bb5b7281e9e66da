package core

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/services/daemon/blocking/registry"
	"github.com/waltos/waltos/services/wire/credentials"
)

// logins is Registries that know one account.
type logins struct {
	NoRegistries
	tried []string
}

func (l *logins) Login(_ context.Context, r registry.Registry, a registry.Account) error {
	l.tried = append(l.tried, fmt.Sprint(r.API, " ", r.Host, " ", a.Username, " ", a.Password))
	if a.Password != "secret" {
		return errors.New("refused")
	}
	return nil
}

func TestRegistryLogin(t *testing.T) {
	known := &logins{}
	p := start(t, func(c *Config) {
		c.Registries = known
		c.Site.Registries = append(c.Site.Registries,
			&hcl.Registry{Label: "open", API: "docker-registry-v2", Host: "open.example", Port: 443, Protocol: "https", Auth: "none"},
			&hcl.Registry{Label: "own", API: "docker-registry-v2", Host: "own.example", Port: 443, Protocol: "https", Auth: "basic"})
	})
	var answer func(key *big.Int) any
	u := newUser("alice")
	u.hooks = func(path string, args []any) any {
		if path != "get_registry_encrypted_credentials" || len(args) != 2 {
			t.Errorf("callback %s%v", path, args)
			return nil
		}
		return answer(args[1].(*big.Int))
	}
	account := func(password string) func(*big.Int) any {
		return func(key *big.Int) any {
			sealed, err := credentials.Seal(key, "al", password)
			if err != nil {
				t.Error(err)
			}
			return sealed
		}
	}
	for _, c := range []struct {
		label  string
		answer func(*big.Int) any
		result string
		tried  string
	}{
		{"own", account("secret"), "true", "docker-registry-v2 own.example al secret"},
		{"hub", account("secret"), "true", "docker-hub  al secret"},
		{"hub", account("wrong"), "false", "docker-hub  al wrong"},
		{"own", func(*big.Int) any { return nil }, "false", ""}, // the client has no account there
		{"own", func(*big.Int) any { return "alice" }, "false", ""},
		{"open", nil, "true", ""},
		{"none", nil, "false", ""},
	} {
		answer, known.tried = c.answer, nil
		result, err := p.do(t, u, "registry_login", c.label)
		said := u.said()
		want := ""
		if c.result == "false" {
			want = "out:Sorry, " + c.label + " registry login FAILED.\n"
		}
		if err != nil || show(result) != c.result || said != want || strings.Join(known.tried, ";") != c.tried {
			t.Errorf("%s: got %v, %v, %q, tried %q; want %s, %q, %q", c.label, result, err, said, known.tried, c.result, want, c.tried)
		}
	}
}

// loginScript has the real client give its account to the server.
const loginScript = `
import sys
host, port = sys.argv[1:]
import walt.common.apilink
walt.common.apilink.WALT_SERVER_DAEMON_PORT = int(port)
sys.argv[0] = "walt"
from walt.client.link import ClientToServerLink
with ClientToServerLink() as server:
    for label in ("own", "other", "missing"):
        print(label, server.registry_login(label), flush=True)
`

// TestCN28AccountOfTheRealClient has the real client encrypt its password for the daemon,
// which tries it at a registry.
func TestCN28AccountOfTheRealClient(t *testing.T) {
	in := openInputs(t)
	const username, password = "al", "p\u00e4ss: w\u00f6rd"
	images := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if name, word, ok := r.BasicAuth(); !ok || name != username || word != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="images"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		io.WriteString(w, "{}")
	}))
	defer images.Close()
	host, port, err := net.SplitHostPort(strings.TrimPrefix(images.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, label := range []string{"own", "other", "missing"} {
		blocks = append(blocks, fmt.Sprintf("registry %q {\n api = \"docker-registry-v2\"\n host = %q\n port = %s\n protocol = \"http\"\n}\n", label, host, port))
	}
	n := startNative(t, strings.Join(blocks, ""))

	// The client keeps a password as the hexadecimal of its own obfuscation (client-api §4.1).
	hide := func(text string) string {
		const key = "RAND0M STRING T0 HIDE A PASSW0RD"
		out := make([]byte, len(text))
		for i := range out {
			out[i] = text[i] ^ key[i%len(key)]
		}
		return fmt.Sprintf("%x", out)
	}
	config := "registries:\n" +
		"  own:\n    username: " + username + "\n    password: " + hide(password) + "\n" +
		"  other:\n    username: " + username + "\n    password: " + hide("wrong") + "\n" +
		"  missing:\n    username: " + username + "\n"
	out, err := n.realClient(t, in, config, loginScript).CombinedOutput()
	const want = "own True\nSorry, other registry login FAILED.\nother False\nSorry, missing registry login FAILED.\nmissing False\n"
	if err != nil || string(out) != want {
		t.Errorf("the client: %v\n%s\nwant\n%s", err, out, want)
	}
}
