package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/waltos/waltos/services/atomicfile"
	"github.com/waltos/waltos/services/metrics"
)

// maxEncoded bounds a snapshot, from the socket and from the file.
const maxEncoded = 16 << 20

// cachePause is the least time between two writes of the cache file: a boot storm
// changes the state many times a second.
const cachePause = time.Second

// Watcher is the end of a network service: it always holds a snapshot, the one of
// the cache file until the daemon has sent its own.
type Watcher struct {
	cacheFile string
	remote    remote

	current atomic.Pointer[Snapshot]
	changed chan struct{} // capacity 1
	streams receivers

	connections atomic.Uint64 // ever made
	measures    atomic.Pointer[metrics.Set]
	mu          sync.Mutex
	encoded     []byte        // what the cache file must hold
	news        chan struct{} // closed at the next snapshot
	dirty       chan struct{} // capacity 1: the cache file is behind
	done        chan struct{} // closed when the cache file is settled
	behind      bool          // the last write of the cache file failed; used by run only
}

// remote is the connection to server-main.
type remote interface {
	Call(ctx context.Context, method string, arg, reply any) error
	Close()
}

// Watch follows the state served on socket, until ctx ends. The last snapshot is
// kept in cacheFile ("": nowhere), and taken from there at first.
func Watch(ctx context.Context, socket, cacheFile string) *Watcher {
	w := newWatcher(cacheFile)
	if cacheFile != "" {
		if err := w.load(); err != nil && !errors.Is(err, fs.ErrNotExist) {
			log.Printf("state: %v; waiting for the daemon instead", err)
		}
	}
	w.remote = connect(socket, w)
	go w.run(ctx)
	return w
}

// Fixed returns a watcher of a state that never changes, and that refuses calls.
func Fixed(s Snapshot) *Watcher {
	w := newWatcher("")
	w.remote = nowhere{}
	w.current.Store(s.indexed())
	close(w.done)
	return w
}

type nowhere struct{}

func (nowhere) Call(context.Context, string, any, any) error {
	return errors.New("cannot call the daemon: this state is fixed")
}
func (nowhere) Close() {}

func newWatcher(cacheFile string) *Watcher {
	w := &Watcher{
		cacheFile: cacheFile,
		changed:   make(chan struct{}, 1),
		news:      make(chan struct{}),
		dirty:     make(chan struct{}, 1),
		done:      make(chan struct{}),
	}
	w.current.Store((&Snapshot{}).indexed())
	return w
}

// Current returns the last snapshot, never nil; it must not be modified.
func (w *Watcher) Current() *Snapshot {
	return w.current.Load()
}

// Changed receives a value after one or more changes of Current. It has one receiver.
func (w *Watcher) Changed() <-chan struct{} {
	return w.changed
}

// Done is closed once ctx has ended and the cache file is written.
func (w *Watcher) Done() <-chan struct{} {
	return w.done
}

// Measure lets the daemon ask for what the service counts.
func (w *Watcher) Measure(set *metrics.Set) { w.measures.Store(set) }

// Connections returns how often the daemon was connected to: again each time it was lost.
func (w *Watcher) Connections() uint64 { return w.connections.Load() }

// Register records a device. When it returns nil, Current holds the device, unless
// ctx ended in between.
func (w *Watcher) Register(ctx context.Context, r Registration) error {
	var version uint64
	if err := w.remote.Call(ctx, methodRegister, r, &version); err != nil {
		return fmt.Errorf("cannot register %s: %w", r.MAC, err)
	}
	w.waitFor(ctx, version)
	return nil
}

// Call asks server-main for what no snapshot holds.
func (w *Watcher) Call(ctx context.Context, method string, arg, reply any) error {
	return w.remote.Call(ctx, method, arg, reply)
}

// waitFor returns when the version or a later one is held, or ctx ends.
func (w *Watcher) waitFor(ctx context.Context, version uint64) {
	for {
		w.mu.Lock()
		news := w.news
		w.mu.Unlock()
		if w.Current().Version >= version {
			return
		}
		select {
		case <-news:
		case <-ctx.Done():
			return
		}
	}
}

// accept takes over a snapshot sent by the daemon.
func (w *Watcher) accept(encoded []byte) error {
	if err := w.decode(encoded); err != nil {
		return err
	}
	w.mu.Lock()
	w.encoded = encoded
	close(w.news)
	w.news = make(chan struct{})
	w.mu.Unlock()
	signal(w.changed)
	signal(w.dirty)
	return nil
}

func (w *Watcher) decode(encoded []byte) error {
	var s Snapshot
	if err := json.Unmarshal(encoded, &s); err != nil {
		return fmt.Errorf("cannot decode the state: %w", err)
	}
	w.current.Store(s.indexed())
	return nil
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (w *Watcher) load() error {
	f, err := os.Open(w.cacheFile)
	if err != nil {
		return fmt.Errorf("cannot read the last state: %w", err)
	}
	defer f.Close()
	encoded, err := io.ReadAll(io.LimitReader(f, maxEncoded+1))
	if err != nil {
		return fmt.Errorf("cannot read the last state: %w", err)
	}
	if len(encoded) > maxEncoded {
		return fmt.Errorf("cannot read the last state: %s is over %d bytes", w.cacheFile, maxEncoded)
	}
	return w.decode(encoded)
}

// run keeps the cache file up to date.
func (w *Watcher) run(ctx context.Context) {
	defer close(w.done)
	defer w.remote.Close()
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			select {
			case <-w.dirty:
				w.store()
			default:
			}
			return
		case <-pause.C:
		}
		select {
		case <-ctx.Done():
			continue
		case <-w.dirty:
			w.store()
			pause.Reset(cachePause)
		}
	}
}

// store writes the cache file. A failure costs nothing while the daemon runs.
func (w *Watcher) store() {
	if w.cacheFile == "" {
		return
	}
	w.mu.Lock()
	encoded := w.encoded
	w.mu.Unlock()
	err := atomicfile.Write(w.cacheFile, encoded, 0o600)
	if failed := err != nil; failed != w.behind { // said once: a full disk has no room for more
		w.behind = failed
		if failed {
			log.Printf("state: cannot keep the last state: %v; a restart of this service will wait for the daemon", err)
		} else {
			log.Printf("state: %s is kept again", w.cacheFile)
		}
	}
}
