package netconfig

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/waltos/waltos/hcl"
)

// Names of the ruleset; nothing else of the machine's firewall is touched.
const (
	tableName = "walt"
	natSet    = "nat_devices"
)

// firewall is the ruleset of node-protocols 4.7: nodes reach each other; those of
// setting netsetup NAT also reach the rest of the world, behind the server's address.
type firewall struct {
	subnet netip.Prefix
	set    *nftables.Set
}

// install replaces our table as a whole, in one transaction.
func (f *firewall) install(natDevices []netip.Addr) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("cannot set the firewall up: %w", err)
	}
	table := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: tableName}
	c.AddTable(table) // so that the next line cannot fail
	c.DelTable(table)
	c.AddTable(table)
	f.set = &nftables.Set{Table: table, Name: natSet, KeyType: nftables.TypeIPAddr}
	if err := c.AddSet(f.set, elements(natDevices)); err != nil {
		return fmt.Errorf("cannot set the firewall up: %w", err)
	}
	accept := nftables.ChainPolicyAccept
	forward := c.AddChain(&nftables.Chain{
		Table: table, Name: "forward", Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &accept,
	})
	postrouting := c.AddChain(&nftables.Chain{
		Table: table, Name: "postrouting", Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource, Policy: &accept,
	})
	rule := func(chain *nftables.Chain, parts ...[]expr.Any) {
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: slices.Concat(parts...)})
	}
	out := slices.Concat(f.address(source, expr.CmpOpEq), f.address(destination, expr.CmpOpNeq))
	rule(forward, onInterface(expr.MetaKeyIIFNAME), onInterface(expr.MetaKeyOIFNAME), verdict(expr.VerdictAccept))
	rule(forward, out, inSet(f.set), verdict(expr.VerdictAccept))
	rule(forward, out, verdict(expr.VerdictDrop))
	rule(forward, f.address(destination, expr.CmpOpEq), established(), verdict(expr.VerdictAccept))
	rule(postrouting, out, notLocal(), []expr.Any{&expr.Counter{}, &expr.Masq{}})
	if err := c.Flush(); err != nil {
		return fmt.Errorf("cannot set the firewall up: %w", err)
	}
	return nil
}

// update changes which devices may leave the platform, at once and for connections
// that exist too.
func (f *firewall) update(natDevices []netip.Addr) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("cannot update the firewall: %w", err)
	}
	c.FlushSet(f.set)
	if len(natDevices) > 0 {
		if err := c.SetAddElements(f.set, elements(natDevices)); err != nil {
			return fmt.Errorf("cannot update the firewall: %w", err)
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("cannot update the firewall: %w", err)
	}
	return nil
}

// removeFirewall removes our table, if it exists.
func removeFirewall() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("cannot remove the firewall: %w", err)
	}
	table := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: tableName}
	c.AddTable(table)
	c.DelTable(table)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("cannot remove the firewall: %w", err)
	}
	return nil
}

func elements(addrs []netip.Addr) []nftables.SetElement {
	out := make([]nftables.SetElement, len(addrs))
	for i, a := range addrs {
		out[i].Key = a.AsSlice()
	}
	return out
}

// Offsets of addresses in the IPv4 header.
const (
	source      = 12
	destination = 16
)

// address compares an address of the packet with the subnet.
func (f *firewall) address(offset uint32, op expr.CmpOp) []expr.Any {
	mask := ipNet(f.subnet).Mask
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: []byte{0, 0, 0, 0}},
		&expr.Cmp{Op: op, Register: 1, Data: f.subnet.Masked().Addr().AsSlice()},
	}
}

func onInterface(key expr.MetaKey) []expr.Any {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, hcl.WaltNet)
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name}}
}

func inSet(set *nftables.Set) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: source, Len: 4},
		&expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID},
	}
}

func established() []expr.Any {
	states := binaryutil.NativeEndian.PutUint32(expr.CtStateBitRELATED | expr.CtStateBitESTABLISHED)
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: states, Xor: []byte{0, 0, 0, 0}},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{0, 0, 0, 0}},
	}
}

// notLocal holds for packets to other machines than the server.
func notLocal() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
}

func verdict(kind expr.VerdictKind) []expr.Any {
	return []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: kind}}
}
