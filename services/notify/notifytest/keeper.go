// Package notifytest is, for the tests of one process, what the supervisor is on the
// appliance (package notify): it keeps the sockets that the process listens on and what
// the process leaves, starts it again with them, and hears that it is ready.
package notifytest

import (
	"bytes"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/waltos/waltos/services/notify"
)

// Keeper keeps what a process needs between its lives. The process is the program of the
// test itself, with arguments by which TestMain knows what to be.
type Keeper struct {
	t       *testing.T
	args    []string
	socket  *net.UnixConn // of notifications
	ready   chan bool
	cmd     *exec.Cmd
	printed bytes.Buffer // by the process that runs, or ran

	mu    sync.Mutex
	files map[string]*os.File
}

// Start starts a process that listens on sockets, given by name, and waits until it is
// ready. It ends with the test.
func Start(t *testing.T, sockets map[string]*os.File, args ...string) *Keeper {
	t.Helper()
	// Not in t.TempDir, whose path may be longer than a socket's name can be.
	dir, err := os.MkdirTemp("", "walt-keeper")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	k := &Keeper{t: t, args: args, socket: socket, ready: make(chan bool, 1), files: sockets}
	go k.receive()
	t.Cleanup(func() { k.Kill(); socket.Close() })
	k.Start()
	return k
}

func (k *Keeper) receive() {
	text, rights := make([]byte, 4096), make([]byte, 4096)
	for {
		n, n2, _, _, err := k.socket.ReadMsgUnix(text, rights)
		if err != nil {
			return
		}
		var fds []int
		if messages, err := unix.ParseSocketControlMessage(rights[:n2]); err == nil && len(messages) > 0 {
			fds, _ = unix.ParseUnixRights(&messages[0])
		}
		message := string(text[:n])
		_, name, _ := strings.Cut(message, "FDNAME=")
		name = notify.UnescapeName(name)
		k.mu.Lock()
		switch {
		case message == "READY=1":
			k.ready <- true
		case strings.HasPrefix(message, "FDSTORE=1") && len(fds) == 1:
			k.files[name] = os.NewFile(uintptr(fds[0]), name)
		case strings.HasPrefix(message, "FDSTOREREMOVE=1") && k.files[name] != nil:
			k.files[name].Close()
			delete(k.files, name)
		}
		k.mu.Unlock()
	}
}

// Start starts the process again, and waits until it is ready.
func (k *Keeper) Start() {
	k.t.Helper()
	program, err := os.Executable()
	if err != nil {
		k.t.Fatal(err)
	}
	// The process must find its own number in the environment.
	k.cmd = exec.Command("sh", append([]string{"-c", `LISTEN_PID=$$ exec "$@"`, "sh", program}, k.args...)...)
	k.cmd.Stderr = &k.printed
	var names []string
	k.mu.Lock()
	for name, f := range k.files {
		names = append(names, notify.EscapeName(name))
		k.cmd.ExtraFiles = append(k.cmd.ExtraFiles, f)
	}
	k.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+k.socket.LocalAddr().String(),
		fmt.Sprint("LISTEN_FDS=", len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	err = k.cmd.Start() // with mu held: the descriptors must not be closed meanwhile
	k.mu.Unlock()
	if err != nil {
		k.t.Fatal(err)
	}
	select {
	case <-k.ready:
	case <-k.t.Context().Done():
	}
}

// Kill ends the process with the signal that nothing survives.
func (k *Keeper) Kill() {
	if k.cmd == nil {
		return
	}
	k.cmd.Process.Kill()
	k.cmd.Wait()
	k.cmd = nil
	if k.t.Failed() {
		text := k.printed.Bytes()
		k.t.Logf("%s printed:\n%s", k.args[0], text[max(0, len(text)-2048):])
	}
	k.printed.Reset()
}

// Kept returns the names of what is kept.
func (k *Keeper) Kept() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Sorted(maps.Keys(k.files))
}
