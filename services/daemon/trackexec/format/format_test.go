package format

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// anyEvent draws an event that a recorder may give.
func anyEvent(t *rapid.T) Event {
	text := rapid.OneOf(rapid.Just(""), rapid.SampledFrom([]string{"get_time", "CSAPI", "SELECT 1"}), rapid.StringN(0, 50, MaxText))
	return Event{
		ID:        rapid.Uint64().Draw(t, "id"),
		Parent:    rapid.Uint64().Draw(t, "parent"),
		Start:     rapid.Int64().Draw(t, "start"),
		Duration:  rapid.Int64Range(0, 1<<62).Draw(t, "duration"),
		Number:    rapid.Int64().Draw(t, "number"),
		Kind:      Kind(rapid.IntRange(1, 8).Draw(t, "kind")),
		State:     State(rapid.IntRange(0, 3).Draw(t, "state")),
		Announced: rapid.Bool().Draw(t, "announced"),
		Depth:     rapid.Byte().Draw(t, "depth"),
		Name:      text.Draw(t, "name"),
		Detail:    text.Draw(t, "detail"),
		Failure:   text.Draw(t, "failure"),
	}
}

func TestRoundTrip(t *testing.T) {
	var b Block // used again, as the writer does
	rapid.Check(t, func(t *rapid.T) {
		events := rapid.SliceOfN(rapid.Custom(anyEvent), 1, 50).Draw(t, "events")
		for i := range events {
			if events[i].Parent == events[i].ID {
				events[i].Parent = 0
			}
			b.Add(&events[i])
		}
		data, entry := b.Append([]byte("before"), 0)
		data = data[len("before"):]
		if !b.Empty() || int(entry.Size) != len(data) || int(entry.Events) != len(events) {
			t.Fatalf("entry %+v of %d bytes", entry, len(data))
		}
		got, err := Decode(data)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(events, got); diff != "" {
			t.Fatal(diff)
		}
		for i := range got {
			if at := got[i].Time(); at < entry.First || at > entry.Last {
				t.Errorf("time %d is not in %d..%d", at, entry.First, entry.Last)
			}
		}
	})
}

func TestEntryRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		first := rapid.Int64().Draw(t, "first")
		e := Entry{
			Segment: rapid.Uint32().Draw(t, "segment"), Offset: rapid.Uint32().Draw(t, "offset"), Events: rapid.Uint32().Draw(t, "events"),
			Size: rapid.Uint32Range(HeaderSize, HeaderSize+MaxBody).Draw(t, "size"), First: first, Last: rapid.Int64Min(first).Draw(t, "last"),
		}
		data := e.Append(nil)
		if got, err := DecodeEntry(data); got != e || err != nil {
			t.Fatalf("got %+v, %v", got, err)
		}
		data[rapid.IntRange(0, EntrySize-1).Draw(t, "at")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		if _, err := DecodeEntry(data); err == nil {
			t.Error("a damaged entry is accepted")
		}
	})
}

// sample is a block of many events, which is compressed.
func sample() []byte {
	var b Block
	for i := range 100 {
		b.Add(&Event{ID: uint64(1000 + i), Parent: uint64(999 + i), Start: int64(i) * 1e6, Duration: 5e5, Number: int64(i), Kind: Request, State: Done, Name: "show_nodes", Detail: "CSAPI"})
	}
	data, _ := b.Append(nil, 0)
	return data
}

func TestDamagedBlock(t *testing.T) {
	block := sample()
	if len(block) > 100*15 {
		t.Errorf("a block of 100 events has %d bytes", len(block))
	}
	for i := range block {
		damaged := bytes.Clone(block)
		damaged[i] ^= 0x10
		if _, err := Decode(damaged); err == nil {
			t.Errorf("damage at %d is not seen", i)
		}
		if _, err := Decode(block[:i]); err == nil {
			t.Errorf("the first %d bytes are accepted", i)
		}
	}
}

func TestLongTextsAreCut(t *testing.T) {
	var b Block
	b.Add(&Event{ID: 1, Name: strings.Repeat("x", 2*MaxText)})
	data, _ := b.Append(nil, 0)
	events, err := Decode(data)
	if err != nil || len(events[0].Name) != MaxText {
		t.Errorf("got %d bytes, %v", len(events[0].Name), err)
	}
}

// FuzzDecode reads bodies and headers that have the right checksum.
func FuzzDecode(f *testing.F) {
	f.Add(sample())
	var b Block
	b.Add(&Event{ID: 1, Kind: Task, Name: "task"})
	small, _ := b.Append(nil, 0)
	f.Add(small)
	f.Add([]byte("WTX1"))
	f.Fuzz(func(t *testing.T, data []byte) {
		data = bytes.Clone(data)
		if len(data) >= HeaderSize {
			copy(data, magic[:])
			binary.LittleEndian.PutUint32(data[8:], uint32(len(data)-HeaderSize))
			binary.LittleEndian.PutUint32(data[4:], crc32.Checksum(data[8:], table))
		}
		events, err := Decode(data)
		if err != nil {
			return
		}
		var b Block
		for i := range events {
			if len(events[i].Name) > MaxText {
				t.Fatalf("a text of %d bytes", len(events[i].Name))
			}
			b.Add(&events[i])
		}
		if b.Empty() || len(b.body) > MaxBody {
			return
		}
		again, _ := b.Append(nil, 0)
		got, err := Decode(again)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(events, got); diff != "" {
			t.Error(diff)
		}
	})
}
