package core

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// CN-03: only the methods of the API can be called, whatever else this server is made of.
func TestCN03OnlyMethodsOfTheAPI(t *testing.T) {
	p := start(t, nil)
	p.populate(t)
	for _, name := range []string{
		"__class__", "__init__", "", "Call", "serve", "showNodes", "show_nodes ", "Show_nodes", "get_time.real", "wait_info", "server",
		"session_objects", "requester", "do_sync", "register_device", "sync_clock",
	} {
		if result, err := p.do(t, newUser("alice"), name); err == nil {
			t.Errorf("%q can be called, and returns %v", name, result)
		}
	}
	names := len(apis["CSAPI"])
	if names != 61 {
		t.Errorf("the API of clients has %d methods: %q", names, slices.Sorted(maps.Keys(apis["CSAPI"])))
	}
}

// Guarantee 4 of server-state 5.5: who is answered that something is changed, and whoever
// asks after him, sees it.
func TestChangesAreSeenOnceAnswered(t *testing.T) {
	p := start(t, nil)
	p.populate(t)
	alice, bob := newUser("alice"), newUser("bob")
	name := "pc"
	for _, next := range []string{"pc-a", "pc-b", "pc-c"} {
		if result, err := p.do(t, alice, "rename", name, next); result != true || err != nil {
			t.Fatalf("rename: %v, %v", result, err)
		}
		for _, u := range []*user{alice, bob} {
			if info, err := p.do(t, u, "get_device_info", next); info == nil || err != nil {
				t.Errorf("%s is unknown after its renaming: %v", next, err)
			}
			if result, err := p.do(t, u, "develop_device_set", "all-nodes"); err != nil || !slices.Contains(strings.Split(result.(string), ","), next) {
				t.Errorf("%s is not of all nodes: %v, %v", next, result, err)
			}
		}
		name = next
	}
}
