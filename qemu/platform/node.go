package platform

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"time"

	"github.com/waltos/waltos/image/qcow2"
	"github.com/waltos/waltos/qemu/machine"
)

// nodeMAC is the address of a node's card, by the node's number: locally administered,
// and not QEMU's 52:54:00, by which the server tells virtual and VPN nodes.
const nodeMAC = "02:00:00:00:01:%02x"

// nodeRetry is between two attempts of a node to boot.
const nodeRetry = 3 * time.Second

// newNode describes the next node.
func (l *Lab) newNode(uefi bool) (*Host, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	number := len(l.nodes) + 1
	if number > maxNodes {
		return nil, fmt.Errorf("cannot add a node: there are %d", maxNodes)
	}
	o := &l.options
	h := &Host{Name: fmt.Sprintf("node%d", number), MAC: fmt.Sprintf(nodeMAC, number), Kind: "BIOS node", lab: l}
	// Its disk is no device: it holds the snapshots of a machine without a disk.
	disk := filepath.Join(o.Folder, h.Name+".qcow2")
	if err := writeDisk(disk, qcow2.Image{Size: 1 << 20}); err != nil {
		return nil, err
	}
	h.spec = machine.Spec{
		Name: h.Name, Memory: o.NodeMemory, Accelerator: o.Accelerator, Serial: true,
		Retry: nodeRetry, // the server may be away for a while
		Disks: []machine.Disk{{File: disk, Detached: true}},
	}
	card := machine.Card{MAC: h.MAC}
	if uefi {
		h.Kind = "UEFI node"
		card.NetworkFirst = true
		var err error
		if h.spec.Firmware, err = o.firmware(h.Name); err != nil {
			return nil, err
		}
	} else {
		card.Boot = o.Tools.ROM
	}
	h.spec.Cards = []machine.Card{card}
	l.nodes = append(l.nodes, h)
	return h, nil
}

// bootNode starts a node and waits until the server says that it is booted.
func (l *Lab) bootNode(ctx context.Context, h *Host) error {
	began := time.Now()
	l.say("%s: power on (%s, %s, %d MiB)", h.Name, h.Kind, h.MAC, l.options.NodeMemory)
	if err := h.PowerOn(ctx); err != nil {
		return err
	}
	if err := l.AwaitBooted(ctx, h); err != nil {
		return err
	}
	l.mu.Lock()
	l.booted[h.Name] = time.Since(began)
	l.mu.Unlock()
	return nil
}

// AwaitBooted waits until the server says that a node is booted. After a power cut the
// server goes on saying so until its keepalive fails, some 25 s later; a node that
// restarts in order is known to be down at once.
func (l *Lab) AwaitBooted(ctx context.Context, h *Host) error {
	ctx, cancel := context.WithTimeoutCause(ctx, l.options.Patience, fmt.Errorf("%s was not booted after %v", h.Name, l.options.Patience))
	defer cancel()
	defer l.heartbeat(h, "to be booted")()
	var known *Known
	err := l.poll(ctx, h, func() error {
		if f := l.Appliance.Console().Failure(); f != nil {
			cancel() // without the server no node boots
			return f
		}
		nodes, err := l.Inventory(ctx)
		if err != nil {
			return err
		}
		before := known
		known = nodes[h.MAC]
		switch {
		case known == nil:
			return fmt.Errorf("the server does not know the node with address %s", h.MAC)
		case before == nil:
			l.say("%s: registered as %s, %s", h.Name, known.Name, known.IP)
		}
		if !known.Booted {
			return fmt.Errorf("the server says that %s is not booted", known.Name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	l.say("%s: booted", h.Name)
	return nil
}

// Known is what the server tells of a node.
type Known struct {
	Name   string `json:"name"`
	Model  string `json:"model"`
	Image  string `json:"image"`
	IP     string `json:"ip"`
	MAC    string `json:"mac"`
	Booted bool   `json:"booted"`
}

const maxInventory = 1 << 20

// Inventory asks the server for its nodes (web API, /api/v1/nodes), by address.
func (l *Lab) Inventory(ctx context.Context) (map[string]*Known, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	fail := func(err error) (map[string]*Known, error) {
		return nil, fmt.Errorf("cannot ask the server for its nodes: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+l.options.endpoint(httpPort)+"/api/v1/nodes", nil)
	if err != nil {
		return fail(err)
	}
	request.Close = true // the appliance may be killed before the next request
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return fail(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxInventory))
	if err != nil {
		return fail(err)
	}
	if answer.StatusCode != http.StatusOK {
		return fail(fmt.Errorf("%s: %s", answer.Status, body))
	}
	var list struct {
		Nodes []*Known `json:"nodes"`
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return fail(err)
	}
	nodes := map[string]*Known{}
	for _, n := range list.Nodes {
		nodes[n.MAC] = n
	}
	return nodes, nil
}
