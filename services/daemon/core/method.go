package core

import (
	"fmt"
	"math/big"
	"slices"
	"strconv"

	"github.com/waltos/waltos/services/wire/pickle"
)

// kind is the type of a parameter of a method.
type kind string

const (
	textKind   kind = "a str"
	userKind   kind = "a user name" // an int if the user wrote a bare number (CN-33)
	flagKind   kind = "a bool"
	numberKind kind = "an int"
	timeKind   kind = "a float"
	bytesKind  kind = "bytes"
	textsKind  kind = "a sequence of str"
	anyKind    kind = "anything"
)

// param is one parameter of a method. An optional one may be absent or None, and then has
// the value absent.
type param struct {
	name     string
	kind     kind
	optional bool
	absent   any
}

func need(name string, k kind) param            { return param{name: name, kind: k} }
func may(name string, k kind, absent any) param { return param{name, k, true, absent} }
func all(names ...string) (params []param)      { return texts(textKind, names) }
func texts(k kind, names []string) (params []param) {
	for _, name := range names {
		params = append(params, need(name, k))
	}
	return params
}

// method is one method of an API.
type method struct {
	params []param
	// keywords accepts keyword arguments that are no parameter, and ignores them.
	keywords bool
	serve    func(c *call) (any, error)
}

// bind gives each parameter its value, positional or by keyword, as Python does. The
// errors are those of Python.
func (m *method) bind(name string, args pickle.Tuple, kwargs *pickle.Dict) ([]any, error) {
	if len(args) > len(m.params) {
		return nil, fmt.Errorf("%s() takes %d positional arguments but %d were given", name, len(m.params), len(args))
	}
	values := make([]any, len(m.params))
	given := make([]bool, len(m.params))
	for i, value := range args {
		values[i], given[i] = value, true
	}
	for _, entry := range kwargs.Entries() {
		key, _ := entry.Key.(string)
		i := slices.IndexFunc(m.params, func(p param) bool { return p.name == key })
		switch {
		case i < 0 && m.keywords:
			continue
		case i < 0:
			return nil, fmt.Errorf("%s() got an unexpected keyword argument '%v'", name, entry.Key)
		case given[i]:
			return nil, fmt.Errorf("%s() got multiple values for argument '%s'", name, key)
		}
		values[i], given[i] = entry.Value, true
	}
	for i, p := range m.params {
		if !given[i] && !p.optional {
			return nil, fmt.Errorf("%s() missing 1 required positional argument: '%s'", name, p.name)
		}
		if p.optional && values[i] == nil {
			values[i] = p.absent
			continue
		}
		value, ok := convert(p.kind, values[i])
		if !ok {
			return nil, fmt.Errorf("%s() argument '%s' must be %s", name, p.name, p.kind)
		}
		values[i] = value
	}
	return values, nil
}

// convert gives a value the Go type of a kind: string, bool, int64, float64, []byte,
// []string.
func convert(k kind, value any) (any, bool) {
	switch k {
	case anyKind:
		return value, true
	case userKind:
		return userName(value), true
	case textKind:
		s, ok := value.(string)
		return s, ok
	case flagKind:
		switch v := value.(type) {
		case bool:
			return v, true
		case int64:
			return v != 0, true
		case nil:
			return false, true
		}
	case numberKind:
		n, ok := value.(int64)
		return n, ok
	case timeKind:
		switch v := value.(type) {
		case float64:
			return v, true
		case int64:
			return float64(v), true
		}
	case bytesKind:
		b, ok := value.([]byte)
		return b, ok
	case textsKind:
		return sequence(value)
	}
	return nil, false
}

// sequence reads a tuple, list or set of str.
func sequence(value any) ([]string, bool) {
	var items []any
	switch v := value.(type) {
	case pickle.Tuple:
		items = v
	case *pickle.List:
		items = v.Items
	case *pickle.Set:
		items = v.Items
	default:
		return nil, false
	}
	list := make([]string, len(items))
	for i, item := range items {
		s, ok := item.(string)
		if !ok {
			return nil, false
		}
		list[i] = s
	}
	return list, true
}

// userName returns a user name as text; "" stands for all that is false in Python.
func userName(value any) string {
	switch v := value.(type) {
	case string:
		return v
	case int64:
		if v != 0 {
			return strconv.FormatInt(v, 10)
		}
	case *big.Int:
		return v.String()
	}
	return ""
}
