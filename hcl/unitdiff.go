package hcl

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
)

// Difference is one attribute or block that two definitions of a unit do not share.
type Difference struct {
	Path string `json:"path"` // as "limits.memory"
	Old  string `json:"old"`  // JSON of the value; empty: not given
	New  string `json:"new"`
	Live bool   `json:"live"` // it can change without a restart of the unit
}

// Differences compares two definitions of a unit, attribute by attribute, in the order of the
// schema. Where they are in their files makes no difference.
func Differences(old, new *Unit) []Difference {
	return compare("", reflect.ValueOf(*old), reflect.ValueOf(*new))
}

// compare compares two structs of the schema.
func compare(prefix string, old, new reflect.Value) []Difference {
	var list []Difference
	for i := range old.NumField() {
		field := old.Type().Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("hcl"), ",")
		a, b := old.Field(i), new.Field(i)
		if name == "" || same(a, b) {
			continue
		}
		path, live := prefix+name, field.Tag.Get("plan") == "live"
		if !live && a.Kind() == reflect.Pointer && !a.IsNil() && !b.IsNil() {
			list = append(list, compare(path+".", a.Elem(), b.Elem())...)
			continue
		}
		list = append(list, Difference{Path: path, Old: written(a), New: written(b), Live: live})
	}
	return list
}

// same tells whether two values of the schema mean the same.
func same(a, b reflect.Value) bool {
	switch a.Kind() {
	case reflect.Pointer:
		return a.IsNil() == b.IsNil() && (a.IsNil() || same(a.Elem(), b.Elem()))
	case reflect.Slice:
		if a.Len() != b.Len() {
			return false
		}
		for i := range a.Len() {
			if !same(a.Index(i), b.Index(i)) {
				return false
			}
		}
		return true
	case reflect.Struct:
		for i := range a.NumField() {
			// What has no name in the schema is a place in the file.
			if name, _, _ := strings.Cut(a.Type().Field(i).Tag.Get("hcl"), ","); name != "" && !same(a.Field(i), b.Field(i)) {
				return false
			}
		}
		return true
	case reflect.Map:
		return a.Len() == b.Len() && reflect.DeepEqual(a.Interface(), b.Interface())
	default:
		return a.Equal(b)
	}
}

// written shows a value to people.
func written(v reflect.Value) string {
	switch v.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		if v.IsNil() {
			return ""
		}
	}
	text, err := json.Marshal(plain(v))
	if err != nil {
		return fmt.Sprint(v.Interface())
	}
	return string(text)
}

// plain turns a value of the schema into maps by the names of the schema, without what is not
// given.
func plain(v reflect.Value) any {
	switch v.Kind() {
	case reflect.Pointer:
		return plain(v.Elem())
	case reflect.Slice:
		list := make([]any, v.Len())
		for i := range v.Len() {
			list[i] = plain(v.Index(i))
		}
		return list
	case reflect.Struct:
		fields := map[string]any{}
		for i := range v.NumField() {
			if name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("hcl"), ","); name != "" && !v.Field(i).IsZero() {
				fields[name] = plain(v.Field(i))
			}
		}
		return fields
	}
	return v.Interface()
}
