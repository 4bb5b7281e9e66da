package core

import (
	"errors"
	"testing"

	"github.com/waltos/waltos/services/wire/pickle"
)

func TestCompletion(t *testing.T) {
	p := start(t, nil)
	p.populate(t)
	u := newUser("alice")
	u.hooks = func(path string, args []any) any {
		if path == "filesystem.get_completions" && args[0] == "/et" {
			return pickle.Tuple{"/etc/"}
		}
		return pickle.Tuple{}
	}
	if _, err := p.do(t, u, "add_checkpoint", "cp-a", 5.0); err != nil {
		t.Fatal(err)
	}
	if _, err := p.do(t, u, "show_images", "alice", false, false, false); err != nil {
		t.Fatal(err)
	}
	u.said()
	tests := []struct {
		argv []any
		want string
	}{
		{[]any{"NODE", "walt", "node", "shell", ""}, "pc rpi"},
		{[]any{"NODE", "walt", "node", "shell", "r"}, "rpi"},
		{[]any{"SET_OF_NODES", "walt", "node", "boot", "my-n"}, "my-nodes my-nodes,"},
		{[]any{"SET_OF_NODES", "walt", "node", "boot", "pc,r"}, "pc,rpi pc,rpi,"},
		{[]any{"SET_OF_NODES", "walt", "node", "boot", ""}, "pc rpi my-nodes all-nodes free-nodes"},
		{[]any{"DEVICE", "walt", "device", "ping", "s"}, "sw"},
		{[]any{"SWITCH", "walt", "device", "port-config", ""}, "sw"},
		{[]any{"RESCAN_SET_OF_DEVICES", "walt", "device", "rescan", "s"}, "sw server"},
		{[]any{"SET_OF_ISSUERS", "walt", "log", "show", "--issuers", "walt"}, "walt-server walt-server,"},
		{[]any{"IMAGE", "walt", "image", "shell", "pc"}, "pc-x86-64-default"},
		{[]any{"IMAGE_OR_DEFAULT", "walt", "node", "boot", "pc", "d"}, "default"},
		{[]any{"NODE_CONFIG_PARAM", "walt", "node", "config", "pc", "ram=4G", "netset"}, "netsetup=a netsetup=b"},
		{[]any{"NODE_CONFIG_PARAM", "walt", "node", "config", "pc", "netsetup="}, ""},
		{[]any{"PORT_CONFIG_PARAM", "walt", "device", "port-config", "sw", "1", ""}, "name=a name=b"},
		{[]any{"HISTORY_RANGE", "walt", "log", "show", "--history", ""}, "full none -<relative-time>: : cp-a:"},
		{[]any{"HISTORY_RANGE", "walt", "log", "show", "--history", "cp-a:"}, "cp-a:-<relative-time> cp-a: cp-a:cp-a"},
		{[]any{"LOG_CHECKPOINT", "walt", "log", "remove-checkpoint", ""}, "cp-a"},
		{[]any{"IMAGE_CLONE_URL", "walt", "image", "clone", ""}, "docker walt hub"},
		{[]any{"IMAGE_CLONE_URL", "walt", "image", "clone", "walt:bo"}, "walt:bob/tool:v2"},
		{[]any{"REGISTRY", "walt", "image", "publish", "--registry", ""}, "hub auto"},
		{[]any{"NODE_CP_SRC", "walt", "node", "cp", "pc"}, "pc:a pc:b"},
		{[]any{"NODE_CP_SRC", "walt", "node", "cp", "/et"}, "/etc/a /etc/b"},
		{[]any{"NODE_CP_DST", "walt", "node", "cp", "pc:/x", "boo"}, "booted-image"},
		{[]any{"NODE_CP_DST", "walt", "node", "cp", "/x", "boo"}, ""},
		{[]any{"IMAGE_CP_SRC", "walt", "image", "cp", "rpi-b-default:"}, ""}, // CN-15
		{[]any{"HELP_TOPIC", "walt", "help", "show", ""}, ""},
		{[]any{"NODE"}, ""},
	}
	for _, test := range tests {
		got, err := p.do(t, u, "shell_autocomplete", "alice", pickle.Tuple(test.argv))
		if err != nil || got != test.want {
			t.Errorf("%v: %q, %v, want %q", test.argv, got, err, test.want)
		}
		if said := u.said(); said != "" {
			t.Errorf("%v says %q", test.argv, said)
		}
	}
}

// Paths on a node are completed by the node, in time or not at all.
func TestCompletionOnNodes(t *testing.T) {
	_, change := withNode(t)
	p := start(t, change)
	p.populate(t)
	u := newUser("alice")
	u.hooks = func(path string, args []any) any { return pickle.Tuple{"folio"} }
	for _, test := range []struct {
		argv []any
		want string
	}{
		{[]any{"NODE_CP_SRC", "walt", "node", "cp", "pc:"}, "pc:file pc:folder/"}, // not the one with a blank
		{[]any{"NODE_CP_SRC", "walt", "node", "cp", "pc:fi"}, "pc:file"},
		{[]any{"NODE_CP_SRC", "walt", "node", "cp", "pc:fo"}, "pc:folder/a pc:folder/b"},
		{[]any{"NODE_CP_SRC", "walt", "node", "cp", "pc:folder/"}, "pc:folder/sub/a pc:folder/sub/b"},
		{[]any{"NODE_CP_SRC", "walt", "node", "cp", "pc:/bi"}, "pc:/bin/a pc:/bin/b"},
		{[]any{"NODE_CP_SRC", "walt", "node", "cp", "pc:a:b"}, ""},
		{[]any{"NODE_CP_SRC", "walt", "node", "cp", "rpi:"}, ""}, // it does not answer
		{[]any{"NODE_CP_SRC", "walt", "node", "cp", "sw:"}, ""},
		{[]any{"NODE_CP_DST", "walt", "node", "cp", "file", "pc:fi"}, "pc:file"},
		{[]any{"NODE_CP_DST", "walt", "node", "cp", "file", "r"}, "rpi:a rpi:b"},
		{[]any{"NODE_CP_DST", "walt", "node", "cp", "pc:file", "fo"}, "folio"},
		{[]any{"NODE_CP_DST", "walt", "node", "cp", "pc:file", ""}, "folio booted-image"},
	} {
		got, err := p.do(t, u, "shell_autocomplete", "alice", pickle.Tuple(test.argv))
		if err != nil || got != test.want {
			t.Errorf("%v: %q, %v, want %q", test.argv, got, err, test.want)
		}
	}
}

// CN-15: the two cases that 10.0 never answers, and clones that are not told of.
func TestCN15CompletionIsAnswered(t *testing.T) {
	p := start(t, nil)
	p.populate(t)
	u := newUser("alice")
	p.do(t, u, "show_images", "alice", false, true, false)
	u.said()
	for _, argv := range [][]any{
		{"IMAGE_CP_SRC", "walt", "image", "cp", "rpi-b-default:"},
		{"NODE_CONFIG_PARAM", "walt", "node", "config", "pc", "netsetup="},
	} {
		if got, err := p.do(t, u, "shell_autocomplete", "alice", pickle.Tuple(argv)); got != "" || err != nil {
			t.Errorf("%v: %q, %v", argv, got, err)
		}
	}
	bob := newUser("robert") // who has no image yet
	got, err := p.do(t, bob, "shell_autocomplete", "robert", pickle.Tuple{"IMAGE", "walt", "image", "shell", "rpi"})
	if said := bob.said(); got != "rpi-b-default" || err != nil || said != "" {
		t.Errorf("%q, %v, printed %q", got, err, said)
	}
	// The database is away.
	p.store.mu.Lock()
	p.store.broken = errors.New("no database")
	p.store.mu.Unlock()
	if got, err := p.do(t, u, "shell_autocomplete", "alice", pickle.Tuple{"LOG_CHECKPOINT", "walt", "log", "remove-checkpoint", ""}); got != "" || err != nil {
		t.Errorf("without database: %q, %v", got, err)
	}
}

func TestCN40IssuersAfterComma(t *testing.T) {
	p := start(t, nil)
	p.populate(t)
	got, err := p.do(t, newUser("alice"), "shell_autocomplete", "alice", pickle.Tuple{"SET_OF_ISSUERS", "walt", "log", "show", "--issuers", "pc,r"})
	if got != "pc,rpi pc,rpi," || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}
