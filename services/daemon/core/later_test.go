package core

import (
	"strings"
	"testing"

	"github.com/waltos/waltos/services/daemon/core/registry"
	"github.com/waltos/waltos/services/daemon/core/text"
	"github.com/waltos/waltos/services/images"
	"github.com/waltos/waltos/services/wire/pickle"
)

// step is a call with what it gives and says.
type step struct {
	name string
	args []any
	want string // result
	said string
}

func (p *platform) expectSteps(t *testing.T, u *user, steps []step) {
	t.Helper()
	for _, s := range steps {
		result, err := p.do(t, u, s.name, s.args...)
		if err != nil {
			t.Errorf("%s%v: %v", s.name, s.args, err)
			continue
		}
		if got := show(result); got != s.want {
			t.Errorf("%s%v = %s\nwant %s", s.name, s.args, got, s.want)
		}
		if got := u.said(); got != s.said {
			t.Errorf("%s%v says %q\nwant %q", s.name, s.args, got, s.said)
		}
	}
}

// TestLaterMethods: what is later work is refused in words, with the failure value of its
// method, after the checks that need none of that work.
func TestLaterMethods(t *testing.T) {
	p := start(t, nil)
	p.populate(t)
	const noDevice = "err:No device with name 'x' found.\n"
	const badName = "err:" + text.BadImageName
	const noImage = "err:Error: No such image 'x'. (tip: walt image show)\n"
	u := newUser("alice")
	p.do(t, u, "show_images", "alice", false, true, false) // gives alice her clones
	u.said()
	p.expectSteps(t, u, []step{
		{"node_cp_to_booted_image", []any{"x"}, "None", noDevice},
		{"node_cp_to_booted_image", []any{"sw"}, "None", "err:sw is not a node, it is a switch.\n"},
		{"node_cp_to_booted_image", []any{"pc"}, "None", "err:Sorry, copying to images is not available on this server yet.\n"},
		{"create_image_shell_session", []any{"x", "shell session"}, "None", noImage},
		{"create_image_shell_session", []any{"rpi-b-default", "shell session"}, "None", "err:Sorry, opening images is not available on this server yet.\n"},
		{"squash_image", []any{"x", false}, "FAILED", noImage},
		{"squash_image", []any{"rpi-b-default", false}, "FAILED", "err:Sorry, squashing images is not available on this server yet.\n"},
		{"create_image_build_session", []any{"default"}, "None", "err:Sorry 'default' is a reserved keyword.\n"},
		{"create_image_build_session", []any{"A"}, "None", badName},
		{"create_image_build_session", []any{"a"}, "None", "err:Sorry, building images is not available on this server yet.\n"},
		{"publish_image", []any{"hub", "x"}, "(false)", noImage},
		{"publish_image", []any{"hub", "rpi-b-default"}, "(false)", "err:Sorry, publishing images is not available on this server yet.\n"},
	})
	for _, name := range []string{"run_image_build_from_url", "run_image_build_from_node_diff", "finalize_image_build_session"} {
		if _, err := p.do(t, u, name, int64(0)); err != errNoSession {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := p.do(t, u, "image_shell_session_save", "alice", int64(0), "a", false); err != errNoSession {
		t.Errorf("image_shell_session_save: %v", err)
	}
}

func TestCN10FailedCloneIsADict(t *testing.T) {
	p := start(t, nil)
	const failed = "{status: FAILED}"
	const format = "err:Invalid clonable image link. Format must be:\n[docker|walt|hub]:<user>/<image_name>[:<tag>]\n(tip: walt image search [<keyword>])\n"
	p.expectSteps(t, newUser("alice"), []step{
		{"clone_image", []any{"x"}, failed, format},
		{"clone_image", []any{"other:bob/tool"}, failed, format},
		{"clone_image", []any{"hub:bob"}, failed, format},
		{"clone_image", []any{"hub:bob/a:b:c"}, failed, format},
		{"clone_image", []any{"walt:bob/tool", false, "default"}, failed, "err:Sorry 'default' is a reserved keyword.\n"},
		{"clone_image", []any{"walt:bob/tool", false, "A"}, failed, "err:" + text.BadImageName},
		{"clone_image", []any{"walt:bob/tool:v2"}, failed, "err:Sorry, cloning images is not available on this server yet.\n"},
	})
}

func TestCN38LoginToAnUnknownRegistryFails(t *testing.T) {
	p := start(t, nil)
	p.expectSteps(t, newUser("alice"), []step{
		{"registry_login", []any{"nowhere"}, "false", "out:Sorry, nowhere registry login FAILED.\n"},
		{"registry_login", []any{"hub"}, "false", "out:Sorry, hub registry login FAILED.\n"},
	})
}

func TestCN14OwnerOfImages(t *testing.T) {
	p := start(t, nil)
	p.populate(t)
	p.shelf.images = append(p.shelf.images, images.Image{
		ID: strings.Repeat("c", 64), Names: []string{"bob/one:latest", "carol/busy:latest", "dave/mine:v1", "alice/mine:v1", "walt/work:latest"}, Models: []string{"rpi-b"},
	})
	d := p.registry.View().ByName("rpi").Device
	d.Image = "carol/busy:latest"
	p.store.images[d.Image] = true
	if err := p.locked(func() error { return p.saveDevices(t.Context(), d) }); err != nil {
		t.Fatal(err)
	}
	p.expectSteps(t, newUser("alice"), []step{
		{"fix_image_owner", []any{"alice"}, "None", "err:Invalid username. According to your walt.conf file, you are 'alice'!\n"},
		{"fix_image_owner", []any{"carol"}, "None", "err:Cannot proceed because some images of carol are in use:\nbusy\n"},
		{"fix_image_owner", []any{"dave"}, "None", "err:Cannot proceed because the following images of dave would overwrite\nthose with the same name in your working set:\nmine:v1\n"},
		{"fix_image_owner", []any{"nobody"}, "None", "err:Connot find any images belonging to a user with name 'nobody'.\nMake sure you typed it correctly.\n"},
		{"fix_image_owner", []any{"walt"}, "None", "err:Connot find any images belonging to a user with name 'walt'.\nMake sure you typed it correctly.\n"},
		{"fix_image_owner", []any{"bob"}, "None", "out:Image one now belongs to you.\nout:Image tool:v2 now belongs to you.\n"},
	})
	for name, want := range map[string]bool{"alice/one:latest": true, "alice/tool:v2": true, "bob/one:latest": false, "bob/tool:v2": false} {
		if _, there := p.shelf.ByName(name); there != want || p.store.images[name] != want {
			t.Errorf("image %s: in the store %v, in the database %v", name, there, p.store.images[name])
		}
	}
}

func TestCN39ModelWithoutDefaultImage(t *testing.T) {
	p := start(t, nil)
	p.populate(t)
	d := p.registry.View().ByName("rpi").Device
	d.Model = "odd"
	p.store.images[d.Image] = true
	if err := p.locked(func() error { return p.saveDevices(t.Context(), d) }); err != nil {
		t.Fatal(err)
	}
	p.expectSteps(t, newUser("alice"), []step{
		{"get_clones_of_default_images", []any{"pc,rpi"}, "(true, true, {pc: pc-x86-64-default:latest})",
			"busy:Cloning default images\nout:Cloned pc-x86-64-default:latest, a defaut image for pc-x86-64.\n"},
		{"get_clones_of_default_images", []any{""}, "(true, false, {})", ""},
		{"get_clones_of_default_images", []any{"my-nodes"}, "(true, false, {})", ""},
		{"get_clones_of_default_images", []any{"x"}, "(false, false, {})", "err:No device with name 'x' found.\n"},
	})
}

func TestCN13FieldsOfImages(t *testing.T) {
	p := start(t, nil)
	p.populate(t)
	u := newUser("alice")
	p.do(t, u, "show_images", "alice", false, true, false)
	result, err := p.do(t, u, "get_images_tabular_data", "alice")
	if err != nil {
		t.Fatal(err)
	}
	row := result.(*pickle.List).Items[0].(pickle.Tuple)
	want := "(" + strings.Repeat("a", 64) + ", pc-x86-64-default, alice/pc-x86-64-default:latest, false, 2026-01-02 03:04:05, (pc-x86-64))"
	if got := show(row); got != want {
		t.Errorf("row %s, want %s", got, want)
	}
}

// TestCN11EmptyWorkingSet: there is an answer although no image is known.
func TestCN11EmptyWorkingSet(t *testing.T) {
	p := start(t, func(c *Config) { c.Images = NoImages{} })
	p.expectSteps(t, newUser("alice"), []step{
		{"show_images", []any{"alice", false, true, false}, "", ""},
		{"get_images_tabular_data", []any{"alice"}, "[]", ""},
		{"update_default_images", nil, "None", ""},
	})
}

func TestCN12DataOfAnInvalidSet(t *testing.T) {
	p := start(t, nil)
	p.expectSteps(t, newUser("alice"), []step{
		{"get_device_config_data", []any{"x"}, "()", "err:No device with name 'x' found.\n"},
		{"get_device_config_data", []any{"my-nodes"}, "()", "err:" + text.NoMatchingDevice},
	})
}

func TestCN30ImageNames(t *testing.T) {
	p := start(t, nil)
	u := newUser("alice")
	for _, name := range []string{"a:", ":a", "a:b:c", "a_b", "", "-a", "a-", "a:-b", strings.Repeat("a", 129), "a:" + strings.Repeat("b", 129)} {
		p.expectSteps(t, u, []step{{"duplicate_image", []any{"x", name}, "false", "err:" + text.BadImageName}})
	}
}

// TestNobodyIsToldNothing: a client that has left, or that has no user name, gets the
// failure value and no word.
func TestNobodyIsToldNothing(t *testing.T) {
	p := start(t, nil)
	p.populate(t)
	for _, nobody := range []any{nil, "", false, int64(0)} {
		p.expectSteps(t, newUser(nobody), []step{
			{"develop_node_set", []any{"my-nodes"}, "None", ""},
			{"develop_device_set", []any{"my-nodes"}, "None", ""},
			{"parse_set_of_nodes", []any{"my-nodes"}, "None", ""},
			{"parse_set_of_devices", []any{"my-nodes"}, "None", ""},
			{"get_nodes_ip", []any{"my-nodes"}, "()", ""},
			{"get_nodes_info", []any{"my-nodes"}, "()", ""},
			{"filter_ownership", []any{"my-nodes"}, "((), (), (), ())", ""},
			{"filter_ownership", []any{"pc"}, "((), (), (), ())", ""},
			{"reboot_nodes", []any{"my-nodes"}, "None", ""},
			{"wait_for_nodes", []any{"my-nodes"}, "false", ""},
			{"set_device_config", []any{"my-nodes", pickle.Tuple{"netsetup=NAT"}}, "None", ""},
			{"get_device_config", []any{"my-nodes"}, "None", ""},
			{"get_device_config_data", []any{"my-nodes"}, "()", ""},
			{"has_image", []any{"x", false}, "false", ""},
			{"set_image", []any{"pc", "x"}, "false", ""},
			{"remove_image", []any{"x"}, "false", ""},
			{"rename_image", []any{"x", "y"}, "false", ""},
			{"duplicate_image", []any{"x", "y"}, "false", ""},
			{"get_clones_of_default_images", []any{"pc"}, "(false, false, {})", ""},
			{"fix_image_owner", []any{"bob"}, "None", ""},
			{"publish_image", []any{"hub", "x"}, "(false)", ""},
			{"squash_image", []any{"x", true}, "FAILED", ""},
			{"create_image_shell_session", []any{"x", "y"}, "None", ""},
			{"add_checkpoint", []any{"x"}, "None", ""},
			{"remove_checkpoint", []any{"x"}, "None", ""},
			{"list_checkpoints", nil, "None", ""},
			{"get_checkpoint_time", []any{"x"}, "None", ""},
			{"show_images", []any{nobody, false, false, false}, "", ""},
			{"get_images_tabular_data", []any{nobody}, "[]", ""},
			{"show_nodes", []any{nobody, true}, "", ""},
		})
	}
	if d := p.registry.View().ByName("pc"); d.NAT() || d.Image != registry.DefaultImage("pc-x86-64") {
		t.Errorf("a device was changed for nobody: %+v", d)
	}
}

// TestBinding: each parameter can be given by its position and by its name.
func TestBinding(t *testing.T) {
	for api, methods := range apis {
		for name, m := range methods {
			values := map[kind]any{
				textKind: "t", userKind: "u", flagKind: true, numberKind: int64(1), timeKind: 1.5, bytesKind: []byte("b"), textsKind: pickle.Tuple{"x"}, anyKind: nil,
			}
			args, kwargs := pickle.Tuple{}, pickle.NewDict()
			for _, p := range m.params {
				args = append(args, values[p.kind])
				kwargs.Set(p.name, values[p.kind])
			}
			byPosition, err := m.bind(name, args, nil)
			if err != nil {
				t.Errorf("%s %s: %v", api, name, err)
			}
			byName, err := m.bind(name, nil, kwargs)
			if err != nil || show(pickle.Tuple(byName)) != show(pickle.Tuple(byPosition)) {
				t.Errorf("%s %s by name: %v, %v, by position: %v", api, name, byName, err, byPosition)
			}
			if _, err := m.bind(name, append(args, nil), nil); err == nil {
				t.Errorf("%s %s accepts too many arguments", api, name)
			}
		}
	}
}
