package state

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/waltos/waltos/services/daemon/connector"
	"github.com/waltos/waltos/services/metrics"
)

// Registrar takes what DHCP learns of clients; server-main implements it. Register
// returns when the device is recorded and published; what takes long (the download
// of an image) goes on after it.
type Registrar interface {
	Register(ctx context.Context, r Registration) error
}

// Method answers one kind of call that the snapshot does not serve (images of
// the web API). decode reads the caller's argument; the reply is encoded as CBOR.
type Method func(ctx context.Context, decode func(any) error) (any, error)

// Server is the end of server-main.
type Server struct {
	registrar Registrar
	methods   map[string]Method
	streams   map[string]Stream

	mu       sync.Mutex
	version  uint64
	encoded  []byte        // JSON of the last snapshot, nil before the first
	changed  chan struct{} // closed at the next Publish
	watchers map[*connector.Peer]bool
}

// NewServer returns a server that gives no snapshot before the first Publish.
// methods and streams may be nil.
func NewServer(registrar Registrar, methods map[string]Method, streams map[string]Stream) *Server {
	return &Server{registrar: registrar, methods: methods, streams: streams, changed: make(chan struct{}), watchers: map[*connector.Peer]bool{}}
}

// Publish makes s the state that every watcher is sent. It never waits for a watcher:
// a slow one skips to the last snapshot. s.Version is ignored: the server counts.
func (s *Server) Publish(snapshot Snapshot) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	snapshot.Version = s.version + 1
	encoded, err := json.Marshal(snapshot)
	if err != nil {
		return fmt.Errorf("cannot publish the state: %w", err)
	}
	s.version, s.encoded = snapshot.Version, encoded
	close(s.changed)
	s.changed = make(chan struct{})
	return nil
}

// current returns the last snapshot and a channel that closes at the next one.
func (s *Server) current() (version uint64, encoded []byte, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.version, s.encoded, s.changed
}

func (s *Server) watch(p *connector.Peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers[p] = true
}

func (s *Server) unwatch(p *connector.Peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.watchers, p)
}

// Measures returns what the watchers count, of those that tell it before ctx ends.
func (s *Server) Measures(ctx context.Context) (all []metrics.Family) {
	s.mu.Lock()
	watchers := slices.Collect(maps.Keys(s.watchers))
	s.mu.Unlock()
	answers := make([][]metrics.Family, len(watchers))
	var asking sync.WaitGroup
	for i, p := range watchers {
		asking.Go(func() {
			// Those that count nothing, and those that end, have no answer.
			answers[i], _ = metrics.Ask(ctx, p)
		})
	}
	asking.Wait()
	return slices.Concat(answers...)
}
