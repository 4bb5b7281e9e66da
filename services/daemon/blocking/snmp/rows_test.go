package snmp

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/waltos/waltos/services/daemon/blocking/snmptest"
)

// rows reads "index=value" texts.
func rows(values map[string]any) []Row {
	var list []Row
	for index, value := range values {
		list = append(list, Row{oid(index), Value{value}})
	}
	slices.SortFunc(list, func(a, b Row) int { return a.Index.compare(b.Index) })
	return list
}

var mac1, mac2 = []byte{2, 0, 0, 0, 0, 1}, []byte{2, 0, 0, 0, 0, 2}

func TestStandardNeighbors(t *testing.T) {
	subtypes := rows(map[string]any{"0.1.1": 4, "0.2.1": 7, "0.3.1": 4, "0.4.1": 4, "0.5.1": 4, "0.6.1": "4", "0.0.1": 4, "0.7": 4, "9.8.1": 4})
	ids := rows(map[string]any{
		"0.1.1": mac1, "0.2.1": []byte("local"), "0.3.1": []byte("short"), "0.4.1": make([]byte, 6), "0.5.1": []byte{1, 2, 3, 4, 5, 6},
		"0.6.1": mac1, "0.0.1": mac1, "0.7": mac1, "9.8.1": mac2,
	})
	names := rows(map[string]any{"0.1.1": []byte("Switch-A\x00"), "9.8.1": []byte{0xff, 0xfe}})
	addresses := rows(map[string]any{
		"0.1.1.1.4.10.0.0.1": 2, "0.1.1.1.4.10.0.0.2": 2, "0.1.1.2.16.1.2.3.4.5.6.7.8.9.10.11.12.13.14.15.16": 2,
		"9.8.1.1.4.127.0.0.1": 2, "9.8.1.1.4.1.2.3.256": 2, "9.8.1.1.4.0.0.0.0": 2, "9.8.1.1.4.224.0.0.1": 2, "9.8.1.1.5.1.2.3.4": 2,
	})
	want := []Neighbor{{1, "02:00:00:00:00:01", "10.0.0.1", "switch-a"}, {8, "02:00:00:00:00:02", "", ""}}
	if d := cmp.Diff(want, joinStandard(subtypes, ids, names, addresses)); d != "" {
		t.Error(d)
	}
}

// 10.0 gives a neighbour whose chassis is not named by a MAC the data of the one before.
func TestDefectN10TPLinkNeighborWithoutMAC(t *testing.T) {
	locals := rows(map[string]any{"49153": []byte("gigabitEthernet 1/0/1"), "49154": []byte("gigabitEthernet 1/0/2 "), "49155": []byte("none"), "49156": []byte("1/0/2")})
	types := rows(map[string]any{"49153.1": []byte("MAC address"), "49154.1": []byte("Interface name"), "49155.1": []byte("MAC address"), "49154.2": []byte("MAC address"), "49154.3": []byte("MAC address")})
	ids := rows(map[string]any{
		"49153.1": []byte("02:00:00:00:00:01"), "49154.1": []byte("eth0"), "49155.1": []byte("02:00:00:00:00:03"),
		"49154.2": []byte("no MAC"), "49154.3": []byte("02-00-00-00-00-02"),
	})
	names := rows(map[string]any{"49153.1": []byte("First"), "49154.1": []byte("Second")})
	want := []Neighbor{{1, "02:00:00:00:00:01", "", "first"}, {2, "02:00:00:00:00:02", "", ""}}
	if d := cmp.Diff(want, joinTPLink(locals, types, ids, names)); d != "" {
		t.Error(d)
	}
}

func TestStations(t *testing.T) {
	ports := rows(map[string]any{
		"1.2.0.0.0.0.1": 3, "2.2.0.0.0.0.1": 3, "1.2.0.0.0.0.2": 0, "1.2.0.0.0.0.3": 4, "1.1.0.0.0.0.4": 3, "1.2.0.0.0.256.4": 3,
		"1.2.0.0.0.5": 3, "1.2.0.0.0.0.6": "3", "1.2.0.0.0.0.7": 9, "1.2.0.0.0.0.8": 2,
	})
	statuses := rows(map[string]any{
		"1.2.0.0.0.0.1": 3, "2.2.0.0.0.0.1": 3, "1.2.0.0.0.0.2": 3, "1.2.0.0.0.0.3": 4, "1.1.0.0.0.0.4": 3, "1.2.0.0.0.256.4": 3,
		"1.2.0.0.0.5": 3, "1.2.0.0.0.0.6": 3, "1.2.0.0.0.0.7": 3, "1.2.0.0.0.0.8": 3,
	})
	n := Numbering{Interfaces: map[int]int{1: 101, 2: 102, 3: 103}, Bridge: map[int]int{3: 103, 2: 1}}
	want := []Station{{3, "02:00:00:00:00:01"}, {9, "02:00:00:00:00:07"}} // an aggregate keeps its number, unless it is a port's
	if d := cmp.Diff(want, joinStations(ports, statuses, n)); d != "" {
		t.Error(d)
	}
}

func TestCorrelatePorts(t *testing.T) {
	text := func(s string) []byte { return []byte(s) }
	known := interfaceNames{known: map[int]bool{}}
	known.byName = known.index(rows(map[string]any{"101": text("g1"), "102": text("g2"), "103": text("same"), "104": text("same"), "5": text("vlan5")}))
	known.byDescription = known.index(rows(map[string]any{"101": text("Port 1"), "103": text("Port 3")}))
	known.byMAC = known.index(rows(map[string]any{"101": mac1, "102": mac1, "104": mac2}))
	n := Numbering{Interfaces: map[int]int{}, Labels: map[string]int{}, Bridge: map[int]int{6: 106, 7: 101}}
	n.correlate([]localPort{
		{1, 5, text("g1")},
		{2, 5, text("same")}, // ambiguous
		{3, 7, text("Port 3")},
		{4, portMAC, mac2},
		{5, 5, text("no such name")}, // an ifIndex
		{6, 5, text("nor this")},     // a port of the bridge
		{7, 5, text("taken")},        // a port of the bridge whose interface is port 1
	}, known)
	want := Numbering{
		Interfaces: map[int]int{1: 101, 3: 103, 4: 104, 5: 5, 6: 106}, Bridge: n.Bridge,
		Labels: map[string]int{"g1": 1, "same": 2, "Port 3": 3, "02:00:00:00:00:02": 4, "no such name": 5, "nor this": 6, "taken": 7},
	}
	if d := cmp.Diff(want, n); d != "" {
		t.Error(d)
	}
}

// poeRows are rows of groups of some sizes.
func poeRows(sizes ...int) (list []PoEPort) {
	for group, size := range sizes {
		for port := range size {
			list = append(list, PoEPort{uint32(group + 1), uint32(port + 1)})
		}
	}
	return list
}

func span(first, n int) (list []int) {
	for i := range n {
		list = append(list, first+i)
	}
	return list
}

func TestPoEPortMaps(t *testing.T) {
	gaps := slices.Concat(span(1, 4), span(65, 4))
	tests := []struct {
		name           string
		fast, ethernet []int
		rows           []PoEPort
		want           map[int]string // group.port by some interfaces; nil: no rule applies
	}{
		{"as many", span(1, 3), span(1, 9), poeRows(3), map[int]string{1: ".1.1", 3: ".1.3", 4: ""}},
		{"as many, with gaps", gaps, span(1, 9), poeRows(8), map[int]string{4: ".1.4", 65: ".1.5"}},
		{"PoE ports first", span(1, 10), span(1, 10), poeRows(8), map[int]string{8: ".1.8", 9: ""}},
		{"groups", slices.Concat(span(1, 6), span(65, 5)), gaps, poeRows(4, 4), map[int]string{1: ".1.1", 4: ".1.4", 5: "", 65: ".2.1", 68: ".2.4"}},
		{"groups and short runs", slices.Concat(span(1, 2), span(10, 4), span(20, 3), span(30, 4)), gaps, poeRows(4, 4), map[int]string{1: "", 10: ".1.1", 30: ".2.1"}},
		{"groups of different sizes", span(1, 10), gaps, poeRows(4, 2), nil},
		{"more groups than runs", span(1, 10), gaps, poeRows(4, 4), nil},
		{"nothing", nil, nil, poeRows(2), nil},
		{"no rows", span(1, 3), gaps, nil, nil},
	}
	for _, test := range tests {
		got := correlatePoE(test.fast, test.ethernet, test.rows)
		if (got == nil) != (test.want == nil) {
			t.Errorf("%s: %v", test.name, got)
		}
		for index, want := range test.want {
			if OID(got[index]).String() != want {
				t.Errorf("%s: interface %d is %v, want %s", test.name, index, got[index], want)
			}
		}
	}
}

func TestPortsThatCannotBeCorrelated(t *testing.T) {
	a, err := snmptest.Listen(snmptest.Loopback, "private")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	a.Replace(map[string]any{
		"1.3.6.1.2.1.105.1.1.1.3.1.1": 1, "1.3.6.1.2.1.105.1.1.1.3.1.2": 1,
		"1.3.6.1.2.1.2.2.1.3.1": 6, "1.3.6.1.2.1.2.2.1.3.9": 6,
	}, nil)
	s := session(t, a, 2, "private")
	variant := PoEs()[1]
	ports, err := variant.Rows(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	_, err = variant.Map(t.Context(), s, ports)
	if want := "WalT could not guess how to correlate PoE ports and LLDP ports on switch 127.0.0.1. Sorry."; err == nil || err.Error() != want {
		t.Errorf("error %v", err)
	}
}

func TestOIDs(t *testing.T) {
	for _, bad := range []string{"", ".", "1..2", "1.x", "1.4294967296", "-1", "1.3." + fmt.Sprint(make([]struct{}, 0))} {
		if o, ok := parseOID(bad); ok {
			t.Errorf("%q is %v", bad, o)
		}
	}
	if o, ok := parseOID(".1.3.4294967295"); !ok || o.String() != ".1.3.4294967295" {
		t.Errorf("%v, %v", o, ok)
	}
	long := slices.Repeat([]uint32{1}, maxOID)
	if _, ok := parseOID(OID(long).String()); !ok {
		t.Error("the longest name is refused")
	}
	if _, ok := parseOID(OID(append(long, 1)).String()); ok {
		t.Error("a longer name is accepted")
	}
}

// A column that is there and empty is one; SNMP v1 cannot tell.
func TestEmptyColumns(t *testing.T) {
	sw := newSwitch(t, snmptest.Netgear)
	for version, want := range map[int]error{1: ErrNoSuchObject, 2: nil} {
		s := session(t, sw.Agent, version, "private")
		if _, err := s.Walk(t.Context(), lldpRemChassisID); !errors.Is(err, want) {
			t.Errorf("v%d: empty column: %v", version, err)
		}
		if _, err := s.Walk(t.Context(), oid("1.3.6.1.4.1.99999")); !errors.Is(err, ErrNoSuchObject) {
			t.Errorf("v%d: no column: %v", version, err)
		}
		if found, err := LLDPs()[0].Neighbors(t.Context(), s); err != nil || len(found) > 0 {
			t.Errorf("v%d: no neighbours: %v, %v", version, found, err)
		}
	}
}
