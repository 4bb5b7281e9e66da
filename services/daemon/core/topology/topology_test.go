package topology

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// kinds tells kinds by the first letter of names: s(witch), n(ode), w(alt-server), o(ther).
func kinds(mac string) Kind {
	switch mac[:1] {
	case "s":
		return Switch
	case "n":
		return Node
	case "w":
		return Server
	case "o":
		return Other
	}
	return None
}

var (
	t0 = time.Unix(1000, 0)
	t1 = time.Unix(2000, 0)
	t2 = time.Unix(3000, 0)
)

// link reads "a:1-b:2", with "?" after it if unconfirmed.
func link(text string, seen time.Time) Link {
	confirmed := !strings.HasSuffix(text, "?")
	var ends [2]struct {
		mac  string
		port int
	}
	for i, end := range strings.Split(strings.TrimSuffix(text, "?"), "-") {
		mac, port, _ := strings.Cut(end, ":")
		ends[i].mac = mac
		fmt.Sscan(port, &ends[i].port)
	}
	l := NewLink(ends[0].mac, ends[0].port, ends[1].mac, ends[1].port)
	l.Confirmed, l.LastSeen = confirmed, seen
	return l
}

func update(stored []Link, scans []Scan, kind func(mac string) Kind, now time.Time) []Link {
	return Discover(scans, kind).Update(stored, kind, now)
}

func texts(links []Link) []string {
	list := make([]string, len(links))
	for i, l := range links {
		end := func(mac string, port int) string {
			if port == 0 {
				return mac
			}
			return fmt.Sprint(mac, ":", port)
		}
		list[i] = end(l.MAC1, l.Port1) + "-" + end(l.MAC2, l.Port2)
		if !l.Confirmed {
			list[i] += "?"
		}
	}
	slices.Sort(list)
	return list
}

func sightings(text string) (list []Sighting) {
	for _, part := range strings.Fields(text) {
		port, macs, _ := strings.Cut(part, ":")
		n := 0
		fmt.Sscan(port, &n)
		for mac := range strings.SplitSeq(macs, ",") {
			list = append(list, Sighting{n, mac})
		}
	}
	return list
}

func scan(mac, neighbors, stations string) Scan {
	return Scan{MAC: mac, Neighbors: sightings(neighbors), Stations: sightings(stations)}
}

func TestUpdate(t *testing.T) {
	tests := []struct {
		name   string
		stored []Link
		scans  []Scan
		want   []string
	}{
		{"two switches by LLDP, nodes by their forwarding tables", nil, []Scan{
			scan("s1", "1:w 2:s2", "1:w 2:s2,n3,n4 3:n1 4:n2"),
			scan("s2", "5:s1", "5:s1,w,n1,n2 6:n3 7:n4"),
		}, []string{"n1-s1:3", "n2-s1:4", "n3-s2:6", "n4-s2:7", "s1:1-w", "s1:2-s2:5"}},
		{"the same without LLDP", nil, []Scan{
			scan("s1", "", "1:w 2:s2,n3,n4 3:n1 4:n2"),
			scan("s2", "", "5:s1,w,n1,n2 6:n3 7:n4"),
		}, []string{"n1-s1:3", "n2-s1:4", "n3-s2:6", "n4-s2:7", "s1:1-w", "s1:2-s2:5"}},
		{"the server tells where the first switch is", nil, []Scan{
			scan("w", "2:s1", ""), scan("s1", "", "1:w,s9 3:n1"),
		}, []string{"n1-s1:3", "s1:1-w:2"}},
		{"a switch that is not asked has its devices behind it", nil, []Scan{
			scan("s1", "", "1:w 2:s2,n1,n2"),
		}, []string{"s1:1-w", "s1:2-s2"}},
		{"several devices behind something unmanaged are nowhere", nil, []Scan{
			scan("s1", "1:w", "2:n1,n2 3:x"),
		}, []string{"s1:1-w"}},
		{"LLDP wins over a forwarding table that is late", nil, []Scan{
			scan("s1", "2:s2 3:n1", ""), scan("s2", "1:s1", "4:n1"),
		}, []string{"n1-s1:3", "s1:2-s2:1"}},
		{"a device that is not seen any more is not confirmed", []Link{link("s1:3-n1", t0), link("s1:1-w", t0), link("s2:1-n2", t0)}, []Scan{
			scan("s1", "1:w", ""),
		}, []string{"n1-s1:3?", "n2-s2:1", "s1:1-w"}},
		{"a device that has moved", []Link{link("s1:3-n1", t0)}, []Scan{
			scan("s1", "", "1:s2 4:n1"),
		}, []string{"n1-s1:4", "s1:1-s2"}},
		{"a port where another device is now", []Link{link("s1:3-n1", t0)}, []Scan{
			scan("s1", "", "3:n2"),
		}, []string{"n2-s1:3"}},
		{"a port known from before", []Link{link("s1:3-s2:7", t0)}, []Scan{
			scan("s1", "3:s2", ""),
		}, []string{"s1:3-s2:7"}},
		{"a port known from before that has another device", []Link{link("s1:3-s2:7", t0)}, []Scan{
			scan("s1", "3:s2", ""), scan("s2", "", "7:n1"),
		}, []string{"n1-s2:7", "s1:3-s2"}},
		{"what is no device, and the device itself", []Link{link("s1:3-x", t0)}, []Scan{
			scan("s1", "1:x 2:s1", "3:s1 4:x 5:n1"),
		}, []string{"n1-s1:5"}},
		{"other addresses of a switch", nil, []Scan{
			{MAC: "s1", Stations: sightings("2:alias2")},
			{MAC: "s2", Neighbors: sightings("1:alias1"), Addresses: []string{"s2", "alias2", "both"}},
			{MAC: "s3", Stations: sightings("1:both"), Addresses: []string{"s1", "both"}},
			{MAC: "s1", Addresses: []string{"alias1"}},
		}, []string{"s1:2-s2:1"}},
		{"nothing scanned, nothing changes", []Link{link("s1:3-n1", t0), link("s1:4-n2?", t0)}, nil, []string{"n1-s1:3", "n2-s1:4?"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := update(test.stored, test.scans, kinds, t1)
			if d := gocmp.Diff(test.want, texts(got)); d != "" {
				t.Error(d)
			}
			slices.Reverse(test.scans)
			slices.Reverse(test.stored)
			if again := update(test.stored, test.scans, kinds, t1); !slices.Equal(got, again) {
				t.Errorf("in another order: %q", texts(again))
			}
		})
	}
}

func TestClean(t *testing.T) {
	tests := []struct {
		name  string
		links []Link
		want  []string
	}{
		{"nodes side by side", []Link{link("n1-n2", t0)}, nil},
		{"a node keeps its best link", []Link{link("n1-s1:1", t0), link("n1-s2:1", t1), link("n1-s3:1?", t2)}, []string{"n1-s2:1"}},
		{"a loop loses its oldest link", []Link{link("s1:1-s2:1", t1), link("s2:2-s3:1", t0), link("s1:2-s3:2", t2)},
			[]string{"s1:1-s2:1", "s1:2-s3:2"}},
		{"unconfirmed links close no loop", []Link{link("s1:1-s2:1", t0), link("s2:2-s3:1", t0), link("s1:2-s3:2?", t2), link("s3:3-s4?", t0)},
			[]string{"s1:1-s2:1", "s2:2-s3:1", "s3:3-s4?"}},
		{"a port leads to one device", []Link{link("s1:1-s2", t0), link("s1:1-s3", t1)}, []string{"s1:1-s3"}},
		{"unknown ports are not the same port", []Link{link("s1-s2", t0), link("s1-s3", t1)}, []string{"s1-s2", "s1-s3"}},
	}
	for _, test := range tests {
		if d := gocmp.Diff(test.want, texts(clean(test.links, kinds)), cmpEmpty); d != "" {
			t.Errorf("%s: %s", test.name, d)
		}
	}
}

var cmpEmpty = gocmp.Transformer("empty", func(list []string) []string { return append([]string{}, list...) })

// In 10.0 a link stored without a time, by the report of a node, makes the next scan fail.
func TestDefectS6LinkWithoutTime(t *testing.T) {
	stored := []Link{link("s1:3-n1", time.Time{}), link("s2:1-n2", time.Time{})}
	for _, l := range update(stored, []Scan{scan("s1", "", "3:n1")}, kinds, t1) {
		if l.LastSeen.IsZero() {
			t.Errorf("%+v has no time", l)
		}
	}
	got := update(stored, []Scan{scan("s1", "", "3:n3")}, kinds, t1)
	if d := gocmp.Diff([]string{"n2-s2:1", "n3-s1:3"}, texts(got)); d != "" {
		t.Error(d)
	}
}

// In 10.0 links that are not seen any more stay confirmed.
func TestDefectN10Unconfirm(t *testing.T) {
	stored := []Link{link("s1:3-n1", t0), link("s1:4-s2:1", t0), link("s2:5-n2", t0)}
	got := update(stored, []Scan{scan("s1", "", "9:n9")}, kinds, t1)
	if d := gocmp.Diff([]string{"n1-s1:3?", "n2-s2:5", "n9-s1:9", "s1:4-s2:1?"}, texts(got)); d != "" {
		t.Error(d)
	}
}

// 10.0 stops to reduce candidates after the first pass that has changed something.
func TestDefectN10ReductionUntilStable(t *testing.T) {
	const n = 12
	name := func(i int) string { return fmt.Sprintf("s%02d", i) }
	var scans []Scan // of a chain: port 1 to the left, port 2 to the right
	var want []string
	for i := range n {
		s := Scan{MAC: name(i)}
		for j := range n {
			switch {
			case j < i:
				s.Stations = append(s.Stations, Sighting{1, name(j)})
			case j > i:
				s.Stations = append(s.Stations, Sighting{2, name(j)})
			}
		}
		scans = append(scans, s)
		if i > 0 {
			want = append(want, fmt.Sprintf("%s:2-%s:1", name(i-1), name(i)))
		}
	}
	if d := gocmp.Diff(want, texts(update(nil, scans, kinds, t1))); d != "" {
		t.Error(d)
	}
}

// network is a tree of devices that is scanned.
type network struct {
	links []Link
	scans []Scan
}

// drawNetwork makes a tree of switches with nodes, and what its switches would say, as
// far as they are asked and have LLDP.
func drawNetwork(t *rapid.T) network {
	var n network
	ports := map[string]int{}
	port := func(mac string) int { ports[mac]++; return ports[mac] }
	neighbors := map[string][]port2{}
	connect := func(a, b string) {
		pa, pb := port(a), port(b)
		if kinds(b) != Switch {
			pb = 0
		}
		if kinds(a) != Switch {
			pa = 0
		}
		n.links = append(n.links, NewLink(a, pa, b, pb))
		neighbors[a] = append(neighbors[a], port2{pa, b})
		neighbors[b] = append(neighbors[b], port2{pb, a})
	}
	switches := rapid.IntRange(1, 12).Draw(t, "switches")
	connect("s0", "w")
	for i := 1; i < switches; i++ {
		connect(fmt.Sprint("s", rapid.IntRange(0, i-1).Draw(t, "parent")), fmt.Sprint("s", i))
	}
	for i := range rapid.IntRange(0, 20).Draw(t, "nodes") {
		connect(fmt.Sprint("s", rapid.IntRange(0, switches-1).Draw(t, "switch")), fmt.Sprint("n", i))
	}
	var behind func(from, mac string) []string
	behind = func(from, mac string) []string {
		all := []string{mac}
		for _, next := range neighbors[mac] {
			if next.mac != from {
				all = append(all, behind(mac, next.mac)...)
			}
		}
		return all
	}
	for i := range switches {
		s := Scan{MAC: fmt.Sprint("s", i)}
		lldp := rapid.Bool().Draw(t, "lldp")
		for _, next := range neighbors[s.MAC] {
			if lldp && kinds(next.mac) != Node {
				s.Neighbors = append(s.Neighbors, Sighting{next.port, next.mac})
			}
			for _, mac := range behind(s.MAC, next.mac) {
				s.Stations = append(s.Stations, Sighting{next.port, mac})
			}
		}
		n.scans = append(n.scans, s)
	}
	return n
}

type port2 struct {
	port int
	mac  string
}

// All switches asked, their tables complete: the tree is found as it is.
func TestTreesAreFound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := drawNetwork(t)
		want := make([]Link, len(n.links))
		for i, l := range n.links {
			l.Confirmed, l.LastSeen = true, t1
			want[i] = l
		}
		slices.SortFunc(want, compare)
		if d := gocmp.Diff(texts(want), texts(update(nil, n.scans, kinds, t1))); d != "" {
			t.Fatal(d)
		}
	})
}

var names = []string{"s1", "s2", "s3", "s4", "w0", "n1", "n2", "n3", "o1", "x1"}

func drawLinks(t *rapid.T) []Link {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Link {
		l := NewLink(
			rapid.SampledFrom(names).Draw(t, "one"), rapid.IntRange(0, 4).Draw(t, "port"),
			rapid.SampledFrom(names).Draw(t, "other"), rapid.IntRange(0, 4).Draw(t, "port"))
		l.Confirmed = rapid.Bool().Draw(t, "confirmed")
		l.LastSeen = rapid.SampledFrom([]time.Time{{}, t0, t1, t2}).Draw(t, "seen")
		return l
	}), 0, 25).Draw(t, "links")
}

func drawScans(t *rapid.T) []Scan {
	sighting := rapid.Custom(func(t *rapid.T) Sighting {
		return Sighting{rapid.IntRange(0, 4).Draw(t, "port"), rapid.SampledFrom(names).Draw(t, "mac")}
	})
	scans := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Scan {
		return Scan{
			MAC:       rapid.SampledFrom([]string{"s1", "s2", "s3", "s4", "w0"}).Draw(t, "mac"),
			Neighbors: rapid.SliceOfN(sighting, 0, 8).Draw(t, "neighbors"),
			Stations:  rapid.SliceOfN(sighting, 0, 12).Draw(t, "stations"),
			Addresses: rapid.SliceOfN(rapid.SampledFrom(names), 0, 3).Draw(t, "addresses"),
		}
	}), 0, 5).Draw(t, "scans")
	slices.SortFunc(scans, func(a, b Scan) int { return cmp.Compare(a.MAC, b.MAC) })
	return slices.CompactFunc(scans, func(a, b Scan) bool { return a.MAC == b.MAC })
}

// Whatever is stored and said, links make a forest with one link for a node and one device
// on a port; the order of what is said does not matter, nor does saying it twice.
func TestUpdateIsConsistent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		stored, scans := drawLinks(t), drawScans(t)
		got := update(stored, scans, kinds, t2)
		joined, nodes, ports := groups{}, map[string]bool{}, map[port]bool{}
		for _, l := range got {
			if l.MAC1 >= l.MAC2 || kinds(l.MAC1) == None || kinds(l.MAC2) == None || l.LastSeen.IsZero() || l.LastSeen.After(t2) {
				t.Fatalf("%+v is no link", l)
			}
			if !joined.join(l.MAC1, l.MAC2) {
				t.Fatalf("%q has a loop", texts(got))
			}
			for _, mac := range []string{l.MAC1, l.MAC2} {
				if kinds(mac) == Node && nodes[mac] {
					t.Fatalf("%q: %s has two links", texts(got), mac)
				}
				nodes[mac] = true
			}
			for _, end := range l.ends() {
				if ports[end] {
					t.Fatalf("%q: %v leads to two devices", texts(got), end)
				}
				ports[end] = true
			}
		}
		slices.Reverse(stored)
		slices.Reverse(scans)
		if again := update(stored, scans, kinds, t2); !slices.Equal(got, again) {
			t.Fatalf("%q in another order: %q", texts(got), texts(again))
		}
		if again := clean(got, kinds); !slices.Equal(got, again) {
			t.Fatalf("%q cleaned again: %q", texts(got), texts(again))
		}
		if again := update(got, scans, kinds, t2); !slices.Equal(got, again) {
			t.Fatalf("%q scanned again: %q", texts(got), texts(again))
		}
	})
}

func BenchmarkUpdate(b *testing.B) {
	const switches, nodes = 100, 5000
	var scans []Scan
	for i := range switches { // a star of switches around s000
		s := Scan{MAC: fmt.Sprintf("s%03d", i)}
		for j := range switches {
			if port := j + 100; i == 0 && j > 0 {
				s.Stations = append(s.Stations, Sighting{port, fmt.Sprintf("s%03d", j)})
			} else if j != i {
				s.Stations = append(s.Stations, Sighting{1, fmt.Sprintf("s%03d", j)})
			}
		}
		for n := range nodes {
			port := 1
			switch at := n % switches; {
			case at == i:
				port = 200 + n
			case i == 0:
				port = at + 100
			}
			s.Stations = append(s.Stations, Sighting{port, fmt.Sprintf("n%04d", n)})
		}
		scans = append(scans, s)
	}
	for b.Loop() {
		if got := update(nil, scans, kinds, t1); len(got) != nodes+switches-1 {
			b.Fatalf("%d links", len(got))
		}
	}
}
