package vnodes

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/waltos/waltos/services/atomicfile"
	"github.com/waltos/waltos/services/internal/pidfile"
)

// maxRecord bounds the record of a node, in bytes.
const maxRecord = 64 << 10

// place is the folder of a node below the runtime folder, named by its MAC. By it the next
// life of the service finds the node, and reaches its process:
//
//	node.json  the node as it shall run
//	pid        which its process owns (package pidfile)
//	commands   FIFO that it reads
//	console    FIFO that it writes to
type place string

func (s *Service) place(mac string) place { return place(filepath.Join(s.Runtime, mac)) }

func (p place) record() string   { return filepath.Join(string(p), "node.json") }
func (p place) pidFile() string  { return filepath.Join(string(p), "pid") }
func (p place) commands() string { return filepath.Join(string(p), "commands") }
func (p place) console() string  { return filepath.Join(string(p), "console") }

// save makes the place of a node if need be, and records the node.
func (p place) save(n Node) error {
	text, err := json.Marshal(n)
	if err == nil {
		err = os.MkdirAll(string(p), 0o700)
	}
	for _, path := range []string{p.commands(), p.console()} {
		if err == nil {
			if err = unix.Mkfifo(path, 0o600); errors.Is(err, fs.ErrExist) {
				err = nil
			}
		}
	}
	if err == nil {
		err = atomicfile.Write(p.record(), text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("cannot record virtual node %s: %w", n.Settings.Name, err)
	}
	return nil
}

// load reads the record of a node.
func (p place) load() (Node, error) {
	info, err := os.Stat(p.record())
	if err != nil {
		return Node{}, err
	}
	if info.Size() > maxRecord {
		return Node{}, fmt.Errorf("%s has %d bytes", p.record(), info.Size())
	}
	text, err := os.ReadFile(p.record())
	if err != nil {
		return Node{}, err
	}
	n, err := readRecord(text)
	if err == nil && n.MAC != filepath.Base(string(p)) {
		err = fmt.Errorf("it is that of %s", n.MAC)
	}
	if err != nil {
		return Node{}, fmt.Errorf("cannot read %s: %w", p.record(), err)
	}
	return n, nil
}

func readRecord(text []byte) (n Node, err error) {
	if err := json.Unmarshal(text, &n); err != nil {
		return Node{}, err
	}
	return n, n.check()
}

// remove forgets a node whose process has ended.
func (p place) remove() error { return os.RemoveAll(string(p)) }

// open opens the ends of the FIFOs that are the service's, neither of which ever blocks.
func (p place) open() (commands, console *os.File, err error) {
	in, err := unix.Open(p.commands(), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot open %s: %w", p.commands(), err)
	}
	out, err := unix.Open(p.console(), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		unix.Close(in)
		return nil, nil, fmt.Errorf("cannot open %s: %w", p.console(), err)
	}
	return os.NewFile(uintptr(in), p.commands()), os.NewFile(uintptr(out), p.console()), nil
}

// openFar opens the ends that are the process's. They are open both ways: it sees no end of
// its commands, and no error of its console, while the service is away.
func (p place) openFar() (commands, console *os.File, err error) {
	var far [2]*os.File
	for i, path := range []string{p.commands(), p.console()} {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if err != nil {
			if i > 0 {
				far[0].Close()
			}
			return nil, nil, fmt.Errorf("cannot open %s: %w", path, err)
		}
		far[i] = os.NewFile(uintptr(fd), path)
	}
	return far[0], far[1], nil
}

// find returns the process that runs in a place, nil if there is none.
func (p place) find() (*process, error) {
	for {
		pid, err := pidfile.Owner(p.pidFile())
		if pid == 0 || err != nil {
			return nil, err
		}
		found, err := openProcess(pid)
		if errors.Is(err, unix.ESRCH) {
			continue // it has just ended
		}
		if err != nil {
			return nil, err
		}
		// The number may have become another's before it was opened.
		if again, err := pidfile.Owner(p.pidFile()); again == pid && err == nil {
			return found, nil
		}
		found.close()
	}
}
