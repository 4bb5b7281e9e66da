package bootfile

import (
	"errors"
	"io"
	"io/fs"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/waltos/waltos/services/state"
)

func TestTree(t *testing.T) {
	root, dir := image(t)
	static := t.TempDir()
	write(t, filepath.Join(static, "config.txt"), "static")
	tree := &Tree{Network: netip.MustParsePrefix("192.168.152.1/24"), Static: static, State: state.Fixed(state.Snapshot{
		Devices: []state.Device{
			{MAC: "02:00:00:00:00:01", IP: "192.168.152.1", Name: "walt-server", Type: "server"},
			{MAC: "02:00:00:00:00:02", IP: "192.168.152.2", Name: "n", Type: "node", Root: root, BootDir: dir},
			{MAC: "02:00:00:00:00:03", IP: "192.168.152.3", Name: "unmounted", Type: "node"},
			{MAC: "b8:27:eb:00:00:04", IP: "192.168.152.4", Name: "pi", Type: "unknown"},
			{MAC: "02:00:00:00:00:05", IP: "192.168.152.5", Name: "printer", Type: "unknown"},
			{MAC: "02:00:00:00:00:06", IP: "192.168.152.6", Name: "sw", Type: "switch"},
		}})}
	for _, c := range []struct{ client, name, want string }{
		{"192.168.152.2", "kernel", "kernel"},
		{"192.168.152.2", "config.txt", ""},
		{"192.168.152.3", "config.txt", "static"},
		{"192.168.152.4", "config.txt", "static"},
		{"192.168.152.99", "config.txt", "static"}, // a free address
		{"192.168.152.99", "../secret", ""},
		{"192.168.152.5", "config.txt", ""},
		{"192.168.152.6", "config.txt", ""},
		{"192.168.152.1", "config.txt", ""},
		{"10.0.0.1", "config.txt", ""},
	} {
		f, _, err := tree.Open(netip.MustParseAddr(c.client), c.name)
		if err != nil {
			if c.want != "" || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ErrEscape) {
				t.Errorf("%s %s: %v", c.client, c.name, err)
			}
			continue
		}
		text, err := io.ReadAll(f)
		f.Close()
		if err != nil || string(text) != c.want {
			t.Errorf("%s %s: %q (%v), want %q", c.client, c.name, text, err, c.want)
		}
	}
}
