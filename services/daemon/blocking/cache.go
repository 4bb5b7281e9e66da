package blocking

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"reflect"
	"sync"

	"github.com/waltos/waltos/services/daemon/blocking/snmp"
)

// identity tells whether the switch at an address is still the same.
type identity struct {
	MAC    string // as the platform knows it
	Kind   string // sysObjectID
	Bridge string // address of the bridge
}

// knowledge is what need not be asked again of a switch.
type knowledge struct {
	Identity  identity
	LLDP      string               `json:",omitempty"` // names of variants
	PoE       string               `json:",omitempty"`
	Numbering *snmp.Numbering      `json:",omitempty"`
	PoEPorts  map[int]snmp.PoEPort `json:",omitempty"` // by interface, or by port if the variant says so
}

// cache remembers switches by their address, in memory and in a file of our own format.
// Losing it costs only new probes.
type cache struct {
	path string // "": memory only

	mu       sync.Mutex
	switches map[string]knowledge
	probing  map[string]*probe
}

// probe is a switch that is being asked what it is.
type probe struct {
	held  chan struct{} // holds one element while somebody asks
	users int
}

// cacheFormat is the file; a file of another format is dropped.
type cacheFormat struct {
	Format   string
	Switches map[string]knowledge
}

const (
	cacheVersion = "walt switches 1"
	maxCache     = 64 << 20
)

func openCache(path string) *cache {
	c := &cache{path: path, switches: map[string]knowledge{}, probing: map[string]*probe{}}
	if path == "" {
		return c
	}
	info, err := os.Stat(path)
	if err != nil || info.Size() > maxCache {
		return c
	}
	data, err := os.ReadFile(path)
	var file cacheFormat
	if err == nil {
		err = json.Unmarshal(data, &file)
	}
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		log.Printf("cannot read %s, switches are probed again: %v", path, err)
	case file.Format == cacheVersion && file.Switches != nil:
		c.switches = file.Switches
	}
	return c
}

// lock makes the caller the only one who probes the switch at an address, until it calls
// unlock.
func (c *cache) lock(ctx context.Context, address string) (unlock func(), err error) {
	c.mu.Lock()
	p := c.probing[address]
	if p == nil {
		p = &probe{held: make(chan struct{}, 1)}
		c.probing[address] = p
	}
	p.users++
	c.mu.Unlock()
	leave := func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if p.users--; p.users == 0 {
			delete(c.probing, address)
		}
	}
	select {
	case p.held <- struct{}{}:
		return func() { <-p.held; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}

// get returns what is known of the switch at an address if it is still the same.
func (c *cache) get(address string, is identity) knowledge {
	c.mu.Lock()
	defer c.mu.Unlock()
	if known := c.switches[address]; known.Identity == is {
		return known
	}
	return knowledge{Identity: is}
}

// put remembers a switch. Its lock must be held.
func (c *cache) put(address string, known knowledge) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if reflect.DeepEqual(c.switches[address], known) {
		return
	}
	c.switches[address] = known
	if c.path == "" {
		return
	}
	if err := c.save(); err != nil {
		log.Printf("cannot remember how switches are talked to: %v", err)
	}
}

func (c *cache) save() error {
	data, err := json.Marshal(cacheFormat{cacheVersion, c.switches})
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(c.path), ".switches-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // fails once renamed
	_, err = tmp.Write(data)
	if err := errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), c.path)
}
