package state

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// registrar publishes each registration as a device.
type registrar struct {
	server  *Server
	devices []Device
	err     error
}

func (r *registrar) Register(_ context.Context, reg Registration) error {
	if r.err != nil {
		return r.err
	}
	r.devices = append(r.devices, Device{MAC: reg.MAC, IP: reg.IP, Name: reg.Name, Type: "unknown"})
	return r.server.Publish(Snapshot{Devices: r.devices})
}

// serve starts a server on a new or given socket.
func serve(t *testing.T, socket string) (*registrar, *Server, func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	r := &registrar{}
	r.server = NewServer(r, map[string]Method{
		"echo": func(_ context.Context, decode func(any) error) (any, error) {
			var text string
			err := decode(&text)
			return text + text, err
		},
	}, map[string]Stream{"count": count})
	done := make(chan error, 1)
	go func() { done <- r.server.Serve(ctx, ln) }()
	stop := func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	return r, r.server, stop
}

// until waits for a condition on the state.
func until(t *testing.T, w *Watcher, what string, ok func(*Snapshot) bool) {
	t.Helper()
	for !ok(w.Current()) {
		select {
		case <-w.Changed():
		case <-time.After(20 * time.Second):
			t.Fatalf("waited in vain for: %s; the state is %+v", what, w.Current())
		}
	}
}

func TestPushRegisterAndCache(t *testing.T) {
	dir := t.TempDir()
	socket, cache := filepath.Join(dir, "state.sock"), filepath.Join(dir, "state.json")
	registrar, server, stop := serve(t, socket)

	ctx, cancel := context.WithCancel(t.Context())
	w := Watch(ctx, socket, cache)
	if w.Current() == nil || len(w.Current().Devices) != 0 {
		t.Fatalf("a state before the first snapshot: %+v", w.Current())
	}
	want := Device{
		MAC: "52:54:00:00:00:01", IP: "192.168.1.2", Name: "n1", Type: "node", Model: "pc-x86-64",
		Image: "waltplatform/pc-x86-64-default:latest", Booted: true, NAT: true,
		Config: map[string]any{"netsetup": "NAT", "boot.timeout": 180.0, "kexec.allow": true},
		Root:   "/var/lib/walt/images/x/fs", BootDir: "/var/lib/walt/images/x/fs/boot/pc-x86-64",
	}
	registrar.devices = []Device{want}
	if err := server.Publish(Snapshot{Devices: registrar.devices}); err != nil {
		t.Fatal(err)
	}
	until(t, w, "the node", func(s *Snapshot) bool { _, ok := s.ByName("n1"); return ok })
	for key, find := range map[string]func(string) (Device, bool){
		"52:54:00:00:00:01": w.Current().ByMAC, "192.168.1.2": w.Current().ByIP, "n1": w.Current().ByName,
	} {
		if got, ok := find(key); !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, want %+v", key, got, want)
		}
		if got, ok := find(""); ok {
			t.Errorf("empty key finds %+v", got)
		}
	}

	if err := w.Register(ctx, Registration{MAC: "52:54:00:00:00:02", IP: "192.168.1.3", Name: "x"}); err != nil {
		t.Fatal(err)
	}
	if _, ok := w.Current().ByMAC("52:54:00:00:00:02"); !ok {
		t.Error("the device just registered is not in the state")
	}

	var twice string
	if err := w.Call(ctx, "echo", "ab", &twice); err != nil || twice != "abab" {
		t.Errorf("echo: %q, %v", twice, err)
	}
	if err := w.Call(ctx, "nothing", nil, nil); err == nil || !strings.Contains(err.Error(), "no such method") {
		t.Errorf("unknown method: %v", err)
	}

	cancel()
	<-w.Done()
	stop()

	// The daemon is away: the last state is there at once.
	ctx2, cancel2 := context.WithCancel(t.Context())
	w = Watch(ctx2, socket, cache)
	if _, ok := w.Current().ByMAC("52:54:00:00:00:02"); !ok {
		t.Error("the cache file does not hold the last state")
	}
	short, cancelShort := context.WithTimeout(ctx2, time.Millisecond)
	if err := w.Register(short, Registration{MAC: "52:54:00:00:00:03"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("registration without daemon: %v", err)
	}
	cancelShort()

	// It comes back, with a lower version and another state.
	_, server, stop = serve(t, socket)
	if err := server.Publish(Snapshot{Devices: []Device{{Name: "other", MAC: "52:54:00:00:00:09"}}}); err != nil {
		t.Fatal(err)
	}
	until(t, w, "the state of the new daemon", func(s *Snapshot) bool { _, ok := s.ByName("other"); return ok })
	cancel2()
	<-w.Done()
	stop()
}

func TestRegistrationRefused(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	registrar, _, stop := serve(t, socket)
	defer stop()
	registrar.err = errors.New("the database is away")
	w := Watch(t.Context(), socket, "")
	err := w.Register(t.Context(), Registration{MAC: "52:54:00:00:00:02"})
	if err == nil || !strings.Contains(err.Error(), "the database is away") {
		t.Errorf("error %v", err)
	}
}

func TestDamagedCache(t *testing.T) {
	cache := filepath.Join(t.TempDir(), "state.json")
	if err := os.WriteFile(cache, []byte(`{"Devices":[{"Na`), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	w := Watch(ctx, filepath.Join(t.TempDir(), "nobody"), cache)
	if len(w.Current().Devices) != 0 {
		t.Errorf("state %+v", w.Current())
	}
	cancel()
	<-w.Done()
}

// FuzzDecode checks that no cache file and no message breaks a watcher.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"Version":3,"Devices":[{"MAC":"02:00:00:00:00:01","Config":{"a":[1,{"b":null}]}}]}`))
	f.Add([]byte(`[`))
	f.Fuzz(func(t *testing.T, b []byte) {
		w := newWatcher("")
		if err := w.accept(b); err == nil {
			for _, d := range w.Current().Devices {
				w.Current().ByMAC(d.MAC)
			}
		}
	})
}

// count sends the numbers below the one asked for, and says how it ended.
func count(_ context.Context, decode func(any) error, send func(any) error) error {
	var n int
	if err := decode(&n); err != nil {
		return err
	}
	for i := range n {
		if err := send(i); err != nil {
			return fmt.Errorf("stopped: %w", err)
		}
	}
	return nil
}

func TestStream(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	_, _, stop := serve(t, socket)
	w := Watch(t.Context(), socket, "")
	var got []int
	take := func(decode func(any) error) error {
		var i int
		err := decode(&i)
		got = append(got, i)
		return err
	}
	if err := w.Stream(t.Context(), "count", 4, take); err != nil || !slices.Equal(got, []int{0, 1, 2, 3}) {
		t.Errorf("got %v, %v", got, err)
	}
	if err := w.Stream(t.Context(), "count", 0, take); err != nil {
		t.Error(err)
	}
	if err := w.Stream(t.Context(), "nothing", 0, take); err == nil || !strings.Contains(err.Error(), "no such method") {
		t.Errorf("unknown method: %v", err)
	}
	err := w.Stream(t.Context(), "count", 1000, func(func(any) error) error { return errors.New("enough") })
	if err == nil || !strings.Contains(err.Error(), "stopped: enough") {
		t.Errorf("a reader that stops: %v", err)
	}

	// A reader that goes away, and the end of the daemon, end a stream that has no end.
	endless := func(ctx context.Context, end func()) {
		t.Helper()
		ended, parts := make(chan struct{}), 0
		err := w.Stream(ctx, "count", 1<<30, func(func(any) error) error {
			if parts++; parts == 3 {
				go func() { defer close(ended); end() }()
			}
			return nil
		})
		if <-ended; err == nil {
			t.Error("the stream has an end")
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	endless(ctx, cancel)
	endless(t.Context(), stop)
}
