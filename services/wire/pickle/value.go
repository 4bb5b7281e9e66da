// Package pickle reads and writes the subset of Python's pickle format that WalT
// 10.0 puts on the wire (client-api 1.8): plain data only.
//
// Python values have these Go forms:
//
//	None      nil            tuple        Tuple
//	bool      bool           list         *List
//	int       int64, or      dict         *Dict (ordered)
//	          *big.Int       set          *Set
//	float     float64        array('h')   Int16s
//	str       string         datetime     time.Time (naive; see Limits.Datetime)
//	bytes     []byte
//
// A str holding lone surrogates is kept as Python's "surrogatepass" UTF-8.
//
// The format is documented in CPython's Lib/pickletools.py. The decoder builds no
// object, calls nothing, and refuses every opcode, class and function that a WalT
// program has no reason to send. It bounds the size, depth and number of values,
// both as sent and as written out without sharing, so that what it returns can be
// walked, printed and sent on without further care. It never reads beyond STOP.
package pickle

import (
	"fmt"
	"math"
	"math/big"
)

// Tuple is a Python tuple.
type Tuple []any

// List is a Python list; a list that a message refers to twice is one *List.
type List struct{ Items []any }

// Int16s is an array.array of type code 'h'.
type Int16s []int16

// Set is a Python set, in the order in which its items came.
type Set struct {
	Items []any
	seen  Dict // the items as keys, while a Decoder fills the set
}

// Entry is one association of a Dict.
type Entry struct{ Key, Value any }

// Dict is a Python dict: it keeps the order of insertion. Keys are None, bool,
// numbers, str or bytes. The zero value is an empty dict.
type Dict struct {
	entries []Entry
	index   map[any]int // only when there are more than smallDict entries
}

// smallDict is the size up to which a linear search beats a map.
const smallDict = 8

// NewDict returns a dict of the given keys and values, alternating.
func NewDict(keysAndValues ...any) *Dict {
	d := &Dict{}
	for i := 0; i+1 < len(keysAndValues); i += 2 {
		d.Set(keysAndValues[i], keysAndValues[i+1])
	}
	return d
}

// NewList returns a list of the given items.
func NewList(items ...any) *List { return &List{Items: items} }

// Len returns the number of entries; that of a nil Dict is 0.
func (d *Dict) Len() int {
	if d == nil {
		return 0
	}
	return len(d.entries)
}

// Entries returns the entries in order of insertion; they must not be modified.
func (d *Dict) Entries() []Entry {
	if d == nil {
		return nil
	}
	return d.entries
}

// Get returns the value of a str key.
func (d *Dict) Get(key string) (any, bool) {
	if d == nil {
		return nil, false
	}
	if i := d.find(key); i >= 0 {
		return d.entries[i].Value, true
	}
	return nil, false
}

// Set associates a value to a key. It panics on a key that no dict can have.
func (d *Dict) Set(key, value any) {
	if err := d.set(key, value); err != nil {
		panic("pickle: " + err.Error())
	}
}

func (d *Dict) set(key, value any) error {
	norm, err := normalKey(key)
	if err != nil {
		return err
	}
	if i := d.find(norm); i >= 0 {
		d.entries[i].Value = value // as in Python, the first key stays
		return nil
	}
	d.entries = append(d.entries, Entry{key, value})
	switch {
	case d.index != nil:
		d.index[norm] = len(d.entries) - 1
	case len(d.entries) > smallDict:
		d.index = make(map[any]int, 2*len(d.entries))
		for i, e := range d.entries {
			norm, _ := normalKey(e.Key)
			d.index[norm] = i
		}
	}
	return nil
}

// find returns the position of a normal key, or -1.
func (d *Dict) find(norm any) int {
	if d.index != nil {
		if i, ok := d.index[norm]; ok {
			return i
		}
		return -1
	}
	for i, e := range d.entries {
		if n, _ := normalKey(e.Key); n == norm {
			return i
		}
	}
	return -1
}

// These make keys of different Python types differ as Go map keys.
type (
	bytesKey string
	bigKey   string
)

// normalKey returns a comparable value that is equal for keys that are equal in
// Python, where 1 == 1.0 == True.
func normalKey(key any) (any, error) {
	switch k := key.(type) {
	case string, int64, nil:
		return k, nil
	case bool:
		if k {
			return int64(1), nil
		}
		return int64(0), nil
	case int:
		return int64(k), nil
	case float64:
		if k == math.Trunc(k) && math.Abs(k) < 1<<62 {
			return int64(k), nil
		}
		return k, nil
	case []byte:
		return bytesKey(k), nil
	case *big.Int:
		if k.IsInt64() {
			return k.Int64(), nil
		}
		return bigKey(k.Text(16)), nil
	}
	return nil, fmt.Errorf("a value of type %s cannot be a key", typeName(key))
}

// typeName names the Python type of a value.
func typeName(v any) string {
	switch v.(type) {
	case nil:
		return "None"
	case string:
		return "str"
	case []byte:
		return "bytes"
	case bool:
		return "bool"
	case int64, int, *big.Int:
		return "int"
	case float64:
		return "float"
	case Tuple:
		return "tuple"
	case *List:
		return "list"
	case *Dict:
		return "dict"
	case *Set:
		return "set"
	case Int16s:
		return "array"
	}
	return fmt.Sprintf("%T", v)
}
