package core

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/services/daemon/connector"
	"github.com/waltos/waltos/services/daemon/core/nodes"
	"github.com/waltos/waltos/services/daemon/core/registry"
	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/images"
	"github.com/waltos/waltos/services/state"
	"github.com/waltos/waltos/services/wire/pickle"
)

// memory is a Store that forgets with the test. It fails while broken.
type memory struct {
	mu          sync.Mutex
	all         map[string]db.Device
	images      map[string]bool
	checkpoints []db.Checkpoint
	topology    []db.Topology
	poeOff      []db.PoEOff
	broken      error
}

func (m *memory) lock() (unlock func(), err error) {
	m.mu.Lock()
	return m.mu.Unlock, m.broken
}

func (m *memory) FixServer(_ context.Context, mac, ip string) error {
	return m.SaveDevice(context.Background(), db.Device{MAC: mac, IP: ip, Name: "walt-server", Type: "server"})
}

func (m *memory) LoadAll(context.Context) (db.Everything, error) {
	unlock, err := m.lock()
	defer unlock()
	return db.Everything{
		Devices: slices.Collect(maps.Values(m.all)), Images: slices.Collect(maps.Keys(m.images)),
		Topology: slices.Clone(m.topology), PoEOff: slices.Clone(m.poeOff),
	}, err
}

func (m *memory) SaveDevice(_ context.Context, d db.Device) error {
	unlock, err := m.lock()
	defer unlock()
	if err != nil {
		return err
	}
	if d.Image != "" && !m.images[d.Image] {
		return errors.New("violates foreign key constraint")
	}
	m.all[d.MAC] = d
	return nil
}

func (m *memory) DeleteDevice(_ context.Context, mac string) error {
	unlock, err := m.lock()
	defer unlock()
	delete(m.all, mac)
	return err
}

func (m *memory) SaveImage(_ context.Context, name string) error {
	unlock, err := m.lock()
	defer unlock()
	m.images[name] = true
	return err
}

func (m *memory) DeleteImage(_ context.Context, name string) error {
	unlock, err := m.lock()
	defer unlock()
	delete(m.images, name)
	return err
}

func (m *memory) SaveSwitchPort(context.Context, db.SwitchPort) error { return nil }

func (m *memory) SetTopology(_ context.Context, links []db.Topology) error {
	unlock, err := m.lock()
	defer unlock()
	m.topology = slices.Clone(links)
	return err
}

func (m *memory) SavePoEOff(_ context.Context, p db.PoEOff) error {
	unlock, err := m.lock()
	defer unlock()
	m.poeOff = append(m.poeOff, p)
	return err
}

// ports and links are what is stored.
func (m *memory) ports() []db.PoEOff {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.poeOff)
}

func (m *memory) links() []db.Topology {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.topology)
}

func (m *memory) DeletePoEOff(_ context.Context, mac string, port int) error {
	unlock, err := m.lock()
	defer unlock()
	m.poeOff = slices.DeleteFunc(m.poeOff, func(p db.PoEOff) bool { return p.MAC == mac && p.Port == port })
	return err
}

func (m *memory) Checkpoints(_ context.Context, user string) ([]db.Checkpoint, error) {
	unlock, err := m.lock()
	defer unlock()
	return slices.DeleteFunc(slices.Clone(m.checkpoints), func(cp db.Checkpoint) bool { return cp.User != user }), err
}

func (m *memory) SaveCheckpoint(ctx context.Context, cp db.Checkpoint) (bool, error) {
	if deleted, _ := m.find(cp.User, cp.Name, false); deleted {
		return false, nil
	}
	m.checkpoints = append(m.checkpoints, cp)
	return true, nil
}

func (m *memory) SQLAccess(context.Context) (db.SQLAccess, error) {
	return db.SQLAccess{DSN: "host=/nonexistent"}, nil
}

func (m *memory) DeleteCheckpoint(_ context.Context, user, name string) (bool, error) {
	return m.find(user, name, true)
}

func (m *memory) find(user, name string, remove bool) (bool, error) {
	for i, cp := range m.checkpoints {
		if cp.User == user && cp.Name == name {
			if remove {
				m.checkpoints = slices.Delete(m.checkpoints, i, i+1)
			}
			return true, nil
		}
	}
	return false, nil
}

func (m *memory) QueryCountedLogs(_ context.Context, f db.LogFilter, counted func(int64) error, block func([]db.Record) error) error {
	if err := counted(1); err != nil {
		return err
	}
	return block([]db.Record{{Time: time.Unix(5, 0), Line: f.StreamsRegexp, Issuer: f.Issuers[0], Stream: "s"}})
}

// lines is a Logs that keeps the lines of the server.
type lines struct {
	mu   sync.Mutex
	list []string
}

func (l *lines) Emit(stream, line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, stream+": "+line)
}

func (l *lines) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.list
	l.list = nil
	return list
}

func (l *lines) EmitChunk(_ context.Context, mac, stream string, _ time.Time, data []byte) error {
	l.Emit(stream, fmt.Sprintf("%s %q", mac, data))
	return nil
}

func (l *lines) Count(_ context.Context, f db.LogFilter) (int, error) {
	return len(f.Issuers) + int(*f.Start), nil
}
func (l *lines) Flush(context.Context) error                                  { return nil }
func (l *lines) Forget(context.Context, string) error                         { return nil }
func (l *lines) ServeIncoming(_ context.Context, c net.Conn, _ *bufio.Reader) { c.Close() }
func (l *lines) ServeDump(_ context.Context, c net.Conn, _ *bufio.Reader)     { c.Close() }

// shelf is an Images of names only.
type shelf struct {
	NoImages
	mu     sync.Mutex
	images []images.Image
}

func (s *shelf) List() []images.Image {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := slices.Clone(s.images)
	for i := range list {
		list[i].Names = slices.Clone(list[i].Names)
	}
	return list
}

func (s *shelf) ByName(name string) (images.Image, bool) {
	for _, i := range s.List() {
		if slices.Contains(i.Names, name) {
			return i, true
		}
	}
	return images.Image{}, false
}

func (s *shelf) Tag(_ context.Context, id, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.images {
		if s.images[i].ID == id {
			s.images[i].Names = append(s.images[i].Names, name)
		}
	}
	return nil
}

// Add takes the names of the layers for the ID of the image.
func (s *shelf) Add(ctx context.Context, name string, source images.Source) error {
	archive, err := source.Layer(ctx, 0)
	if err != nil {
		return err
	}
	defer archive.Close()
	content, err := io.ReadAll(archive)
	if err != nil {
		return err
	}
	if err := s.Untag(ctx, name); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.images = append(s.images, images.Image{ID: string(content), Names: []string{name}, Models: []string{"pc-x86-64"}, Created: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)})
	return nil
}

func (s *shelf) Untag(_ context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.images {
		s.images[i].Names = slices.DeleteFunc(s.images[i].Names, func(n string) bool { return n == name })
	}
	return nil
}

// user is the client of a call.
type user struct {
	name     any
	mu       sync.Mutex
	printed  strings.Builder // "out:" and "err:" before each text
	attached map[any]any
	hooks    func(path string, args []any) any
}

func (u *user) Callback(_ context.Context, path string, args ...any) (any, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch path {
	case "get_username":
		return u.name, nil
	case "stdout.write":
		u.printed.WriteString("out:" + args[0].(string))
	case "stderr.write":
		u.printed.WriteString("err:" + args[0].(string))
	case "set_busy_label":
		u.printed.WriteString("busy:" + args[0].(string) + "\n")
	case "set_default_busy_label":
	case "stdout.get_encoding":
		return "utf-8", nil
	default:
		if u.hooks == nil {
			return nil, nil
		}
		return u.hooks(path, args), nil
	}
	return nil, nil
}

func (u *user) Attach(key, value any) { u.attached[key] = value }
func (u *user) Attached(key any) any  { return u.attached[key] }
func (u *user) said() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	said := u.printed.String()
	u.printed.Reset()
	return said
}

func newUser(name any) *user { return &user{name: name, attached: map[any]any{}} }

// platform is a running daemon with what it works with.
type platform struct {
	*Daemon
	store     *memory
	lines     *lines
	shelf     *shelf
	snapshots chan state.Snapshot
}

const siteText = `
network "walt-net" { ip = "192.168.152.1/24" }
`

func start(t testing.TB, change func(*Config)) *platform {
	site, err := hcl.ParseSite([]byte(siteText), "walt.hcl")
	if err != nil {
		t.Fatal(err)
	}
	created := time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)
	p := &platform{
		store: &memory{all: map[string]db.Device{}, images: map[string]bool{}},
		lines: &lines{},
		shelf: &shelf{images: []images.Image{
			{ID: strings.Repeat("a", 64), Names: []string{"waltplatform/pc-x86-64-default:latest"}, Models: []string{"pc-x86-64"}, Created: created},
			{ID: strings.Repeat("b", 64), Names: []string{"bob/tool:v2", "waltplatform/rpi-b-default:latest"}, Models: []string{"rpi-b", "rpi-b-plus"}, Created: created},
		}},
		snapshots: make(chan state.Snapshot, 1000),
	}
	config := Config{
		Site: site, ServerMAC: "02:00:00:00:00:01", Registry: registry.New(site.Server()), Store: p.store, Logs: p.lines, Images: p.shelf,
		Publish: func(s state.Snapshot) error { p.snapshots <- s; return nil },
		Print:   func(string, ...any) {},
		Control: nodes.Control{Pause: time.Millisecond, Dial: func(context.Context, string, string) (net.Conn, error) {
			return nil, errors.New("no such node")
		}},
	}
	if change != nil {
		change(&config)
	}
	p.Daemon = New(config)
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan bool), make(chan bool)
	go func() { p.Run(ctx, func() { close(ready) }); close(ended) }()
	t.Cleanup(func() { cancel(); <-ended })
	<-ready
	return p
}

// do calls a method and returns its result as Python would write it, roughly.
func (p *platform) do(t *testing.T, u *user, name string, args ...any) (any, error) {
	t.Helper()
	return p.serve(t.Context(), &call{client: u, api: "CSAPI"}, name, pickle.Tuple(args), nil)
}

func (p *platform) register(t testing.TB, s registry.Sighting) {
	t.Helper()
	if _, err := p.Daemon.register(t.Context(), s); err != nil {
		t.Fatal(err)
	}
}

// nodes registers a node of each model, a switch and an unknown device.
func (p *platform) populate(t testing.TB) {
	p.register(t, registry.Sighting{UCI: "walt.node.pc-x86-64", IP: "192.168.152.10", MAC: "02:00:00:00:00:10", Name: "pc"})
	p.register(t, registry.Sighting{VCI: "walt.node.rpi-b", IP: "192.168.152.11", MAC: "02:00:00:00:00:11", Name: "rpi"})
	p.register(t, registry.Sighting{IP: "192.168.152.12", MAC: "6c:b0:ce:00:00:12", Name: "sw"})
	p.register(t, registry.Sighting{MAC: "02:00:00:00:00:13"})
}

func show(v any) string {
	switch v := v.(type) {
	case pickle.Tuple:
		parts := make([]string, len(v))
		for i := range v {
			parts[i] = show(v[i])
		}
		return "(" + strings.Join(parts, ", ") + ")"
	case *pickle.List:
		items := show(pickle.Tuple(v.Items))
		return "[" + items[1:len(items)-1] + "]"
	case *pickle.Dict:
		var parts []string
		for _, e := range v.Entries() {
			parts = append(parts, fmt.Sprint(e.Key, ": ", show(e.Value)))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case nil:
		return "None"
	}
	return fmt.Sprint(v)
}

func TestMethods(t *testing.T) {
	p := start(t, nil)
	p.populate(t)
	u := newUser("alice")
	tests := []struct {
		name string
		args []any
		want string // result
		said string
	}{
		{"get_device_info", []any{"pc"}, "{mac: 02:00:00:00:00:10, ip: 192.168.152.10, name: pc, type: node, virtual: false, conf: {}, image: waltplatform/pc-x86-64-default:latest, model: pc-x86-64, booted: false, gateway: , netmask: 255.255.255.0, netsetup: 0, in_walt_net: true}", ""},
		{"get_device_info", []any{"sw"}, "{mac: 6c:b0:ce:00:00:12, ip: 192.168.152.12, name: sw, type: switch, conf: {}, model: netgear, in_walt_net: true}", ""},
		{"get_device_info", []any{"unknown-000013"}, "{mac: 02:00:00:00:00:13, ip: None, name: unknown-000013, type: unknown, conf: {}, in_walt_net: None}", ""},
		{"get_device_info", []any{"x"}, "None", "err:No device with name 'x' found.\n"},
		{"get_device_ip", []any{"unknown-000013"}, "None", "err:Sorry, IP address of unknown-000013 in unknown.\n"},
		{"get_device_ip", []any{"sw"}, "192.168.152.12", ""},
		{"get_node_ip", []any{"sw"}, "None", "err:sw is not a node, it is a switch.\n"},
		{"get_nodes_ip", []any{"all-nodes"}, "(192.168.152.10, 192.168.152.11)", ""},
		{"get_nodes_ip", []any{"my-nodes"}, "()", "err:No matching devices found! (tip: walt help show node-ownership)\n"},
		{"develop_node_set", []any{"rpi,pc"}, "pc,rpi", ""},
		{"develop_node_set", []any{"rpi,sw"}, "None", "err:sw is not a node, it is a switch.\n"},
		{"develop_device_set", []any{"all-switches,server"}, "sw,walt-server", ""},
		{"parse_set_of_devices", []any{"sw", "server,all-nodes"}, "None", "err:Invalid value 'sw'; allowed devices belong to 'server,all-nodes'\n"},
		{"parse_set_of_devices", []any{"server,rpi", "server,all-nodes"}, "(rpi, walt-server)", ""},
		{"filter_ownership", []any{"all-devices"}, "((), (pc, rpi), (), (sw, unknown-000013, walt-server))", ""},
		{"filter_ownership", []any{"x"}, "((), (), (), ())", "err:No device with name 'x' found.\n"},
		{"has_image", []any{"default", true}, "true", ""},
		{"has_image", []any{"nope", true}, "false", "busy:Cloning default images\nout:Cloned pc-x86-64-default:latest, a defaut image for pc-x86-64.\nout:Cloned rpi-b-default:latest, a defaut image for rpi-b[-plus].\nerr:Error: No such image 'nope'. (tip: walt image show)\n"},
		{"has_image", []any{"pc-x86-64-default", false}, "true", ""},
		{"set_image", []any{"all-nodes", "pc-x86-64-default"}, "false", "err:Sorry, this image is not compatible with node model rpi-b.\n"},
		{"set_image", []any{"pc", "pc-x86-64-default:latest"}, "true", "out:Node pc will now boot pc-x86-64-default:latest.\n"},
		{"set_image", []any{"pc", "pc-x86-64-default"}, "true", "out:Node pc: ignored, it is already using this image.\n"},
		{"filter_ownership", []any{"all-nodes"}, "((pc), (rpi), (), ())", ""},
		{"remove_image", []any{"pc-x86-64-default"}, "false", "err:Sorry, cannot proceed because the image is in use.\n"},
		{"set_image", []any{"all-nodes", "default"}, "true", "out:Node pc will now boot its default image (other users will see it is 'free').\nout:Node rpi: ignored, it is already using this image.\n"},
		{"duplicate_image", []any{"pc-x86-64-default", "copy:v1"}, "true", ""},
		{"duplicate_image", []any{"pc-x86-64-default", "copy:v1"}, "false", "err:Error: Image 'copy:v1' already exists.\n"},
		{"rename_image", []any{"copy:v1", "Bad"}, "false", "err:Bad name: expected format is <name> or <name>:<tag>.\nOnly lowercase letters, digits and dash(-) characters are allowed in <name> and <tag>.\n"},
		{"rename_image", []any{"copy:v1", "other"}, "true", ""},
		{"get_images_tabular_data", []any{"alice", false, pickle.Tuple{"name", "in_use", "compatibility:tuple"}}, "[(other, false, (pc-x86-64)), (pc-x86-64-default, false, (pc-x86-64)), (rpi-b-default, false, (rpi-b, rpi-b-plus))]", ""},
		{"remove_image", []any{"other"}, "true", ""},
		{"show_images", []any{"alice", false, true, false}, "pc-x86-64-default\nrpi-b-default", ""},
		{"get_clones_of_default_images", []any{"pc,rpi"}, "(true, false, {pc: pc-x86-64-default:latest, rpi: rpi-b-default:latest})", ""},
		{"get_clones_of_default_images", []any{"sw"}, "(false, false, {})", "err:sw is not a node, it is a switch.\n"},
		{"rename", []any{"pc", "rpi"}, "false", "err:Failed: a device with name 'rpi' already exists.\n"},
		{"rename", []any{"pc", "pc-1"}, "true", ""},
		{"show_nodes", []any{"alice", true, true}, "pc-1\nrpi", ""},
		{"rename", []any{"pc-1", "pc"}, "true", ""},
		{"blink", []any{"pc", true}, "false", "err:Blink request to pc failed: no such node\n"},
		{"reboot_nodes", []any{"pc,rpi", true}, "FAILED", "err:Nodes pc and rpi: failed poe-reboot (unknown lldp network position)\n"},
		{"reboot_nodes", []any{"rpi"}, "FAILED", "err:Node rpi: failed soft-reboot (no such node) and poe-reboot (unknown lldp network position)\n"},
		{"reboot_nodes", []any{"x"}, "None", "err:No device with name 'x' found.\n"},
		{"wait_for_nodes", []any{"x"}, "false", "err:No device with name 'x' found.\n"},
		{"set_device_config", []any{"pc", pickle.Tuple{"netsetup=NAT"}}, "None", "out:Done. Reboot node(s) to see new settings in effect.\n"},
		{"get_device_config_data", []any{"pc"}, "({name: pc, settings: {boot.retries: 9, boot.timeout: 180, expose: none, kexec.allow: true, mount.persist: true, netsetup: 1}, main_category: nodes})", ""},
		{"set_device_config", []any{"unknown-000013", pickle.Tuple{"type=switch"}}, "None", "out:Renaming unknown-000013 to switch-000013 for clarity.\nout:Done.\n"},
		{"get_port_config", []any{"pc", nil}, "None", "err:Failed: pc is not a switch.\n"},
		{"get_port_config", []any{"sw", nil}, "None", "err:Failed: cannot detect switch ports of sw because \"lldp.explore\" config option is not enabled.\nSee: walt help show device-config\n"},
		{"set_device_config", []any{"sw", pickle.Tuple{"lldp.explore=true", "snmp.version=2", "snmp.community=public"}}, "None", "out:Done.\n"},
		{"get_port_config", []any{"sw", nil}, "None", "out:WalT did not detect traffic going through this switch yet.\nout:Use 'walt device rescan' to probe again.\n"},
		{"set_port_config", []any{"sw", int64(3), pickle.Tuple{"name=4"}}, "None", "err:Failed: to avoid confusion, the only integer allowed for this port name is \"3\", the ID of the port in the switch.\n"},
		{"set_port_config", []any{"sw", int64(3), pickle.Tuple{"name=up"}}, "None", "out:Done.\n"},
		{"get_port_config", []any{"sw", int64(3)}, "None", "out:Port 3 of sw has the following config:\nout:3: name=\"up\" poe=unavailable peer=unknown\nout:PoE status is unavailable because the switch has its \"poe.reboots\" config option disabled (see: walt help show device-config).\n"},
		{"device_tree", []any{false}, "Sorry, topology is unknown. Ensure a switch is connected to server (on walt-net interface) and run \"walt device rescan\".\n", ""},
		{"list_checkpoints", nil, "None", "out:You own no checkpoints.\n"},
		{"add_checkpoint", []any{"cp", 1767323045.0}, "None", "out:New checkpoint cp recorded at server time: " + time.Unix(1767323045, 0).Format(time.DateTime) + ".\n"},
		{"add_checkpoint", []any{"cp", nil}, "None", "err:Failed: a checkpoint with this name already exists.\n"},
		{"get_checkpoint_time", []any{"cp"}, "1.767323045e+09", ""},
		{"list_checkpoints", nil, "None", "out:timestamp            name\n-------------------  ----\n" + time.Unix(1767323045, 0).Format(time.DateTime) + "  cp  \n"},
		{"get_checkpoint_time", []any{"no"}, "None", "err:Failed: no checkpoint with this name 'no'.\n"},
		{"remove_checkpoint", []any{"cp"}, "None", "out:Done.\n"},
		{"get_registries", nil, "((hub, Public registry at hub.docker.com))", ""},
		{"remove_vnode", []any{"pc"}, "false", "err:FAILED: pc is a real node (not virtual).\n"},
		{"forget", []any{"walt-server"}, "false", "err:Failed: walt-server is the WALT server itself.\n"},
		{"forget", []any{"rpi"}, "true", ""},
		{"forget", []any{"rpi"}, "false", "err:No device with name 'rpi' found.\n"},
	}
	for _, test := range tests {
		result, err := p.do(t, u, test.name, test.args...)
		if err != nil {
			t.Errorf("%s%v: %v", test.name, test.args, err)
			continue
		}
		if got := show(result); got != test.want {
			t.Errorf("%s%v = %s\nwant %s", test.name, test.args, got, test.want)
		}
		if got := u.said(); got != test.said {
			t.Errorf("%s%v says %q\nwant %q", test.name, test.args, got, test.said)
		}
	}
}

func TestCountLogs(t *testing.T) {
	p := start(t, nil)
	kwargs := pickle.NewDict("history", pickle.Tuple{5.0, nil}, "issuers", &pickle.Set{Items: []any{"a", "b"}}, "exclude_consoles", true, "other", 1)
	result, err := p.serve(t.Context(), &call{client: newUser("alice"), api: "CSAPI"}, "count_logs", nil, kwargs)
	if err != nil || result != int64(7) {
		t.Errorf("count_logs = %v, %v", result, err)
	}
}

func TestRefusedCalls(t *testing.T) {
	p := start(t, nil)
	tests := []struct {
		api, name string
		args      pickle.Tuple
		kwargs    *pickle.Dict
		want      string
	}{
		{"CSAPI", "finalize_image_build_session", pickle.Tuple{int64(0)}, nil, "there is no session with this number"},
		{"CSAPI", "__class__", nil, nil, `API CSAPI has no method named "__class__"`},
		{"NSAPI", "show_nodes", nil, nil, `API NSAPI has no method named "show_nodes"`},
		{"XX", "show_nodes", nil, nil, `there is no API named "XX"`},
		{"CSAPI", "show_nodes", nil, nil, "show_nodes() missing 1 required positional argument: 'username'"},
		{"CSAPI", "get_time", pickle.Tuple{int64(1)}, nil, "get_time() takes 0 positional arguments but 1 were given"},
		{"CSAPI", "rename", pickle.Tuple{"a"}, pickle.NewDict("old_name", "b"), "rename() got multiple values for argument 'old_name'"},
		{"CSAPI", "rename", pickle.Tuple{"a"}, pickle.NewDict("x", "b"), "rename() got an unexpected keyword argument 'x'"},
		{"CSAPI", "rename", pickle.Tuple{"a", int64(1)}, nil, "rename() argument 'new_name' must be a str"},
		{"CSAPI", "count_logs", nil, pickle.NewDict("history", "x"), "count_logs() argument 'history' must be a pair"},
		{"CSAPI", "get_images_tabular_data", pickle.Tuple{"a", false, pickle.Tuple{"x"}}, nil, `images have no field "x"`},
	}
	for _, test := range tests {
		_, err := p.serve(t.Context(), &call{client: newUser("alice"), api: test.api}, test.name, test.args, test.kwargs)
		if err == nil || err.Error() != test.want {
			t.Errorf("%s %s%v: %v, want %s", test.api, test.name, test.args, err, test.want)
		}
	}
}

// TestCN03OnlyMethodsAreCalled: each API has its methods, and nothing else has a name.
func TestCN03OnlyMethodsAreCalled(t *testing.T) {
	p := start(t, nil)
	for api, count := range map[string]int{"CSAPI": 61, "NSAPI": 2, "VSAPI": 2, "SSAPI": 1} { // client-api §6.3
		if n := len(apis[api]); n != count {
			t.Errorf("%s has %d methods, want %d", api, n, count)
		}
		for _, name := range []string{"__class__", "__init__", "server", "devices.get_device_info", "Get_time", "get_time ", ""} {
			result, err := p.serve(t.Context(), &call{client: newUser("alice"), api: api}, name, nil, nil)
			if result != nil || err == nil {
				t.Errorf("%s %q = %v, %v", api, name, result, err)
			}
		}
	}
	if _, err := p.serve(t.Context(), &call{client: newUser(nil), api: "NSAPI"}, "device_show", nil, nil); err == nil {
		t.Error("a node calls a method of users")
	}
}

func TestUserNames(t *testing.T) {
	p := start(t, nil)
	p.populate(t)
	for _, test := range []struct {
		name any
		want string
	}{
		{int64(12), "err:No matching devices found! (tip: walt help show node-ownership)\n"}, // CN-33
		{"", ""}, {nil, ""}, {false, ""}, {int64(0), ""},
	} {
		u := newUser(test.name)
		result, err := p.do(t, u, "develop_node_set", "my-nodes")
		if said := u.said(); result != nil || err != nil || said != test.want {
			t.Errorf("user %v: %v, %v, %q", test.name, result, err, said)
		}
	}
	if got, _ := p.do(t, newUser("x"), "show_nodes", int64(12), false); !strings.HasPrefix(got.(string), "You currently do not own any nodes.") {
		t.Errorf("show_nodes(12) = %v", got)
	}
	if got, err := p.do(t, newUser("x"), "show_nodes", "", false); got != "" || err != nil {
		t.Errorf("show_nodes('') = %v, %v", got, err)
	}
}

func TestRegistrationIsPublishedAndLogged(t *testing.T) {
	p := start(t, nil)
	p.lines.take()
	if err := p.Register(t.Context(), state.Registration{UCI: "walt.node.pc-x86-64", IP: "192.168.152.10", MAC: "02:00:00:00:00:10", Name: "pc"}); err != nil {
		t.Fatal(err)
	}
	var last state.Snapshot
	for len(p.snapshots) > 0 {
		last = <-p.snapshots
	}
	if d, found := last.ByName("pc"); !found || d.Config["netsetup"] != "LAN" || d.Model != "pc-x86-64" {
		t.Errorf("published %+v", last.Devices)
	}
	if got := p.store.all["02:00:00:00:00:10"]; got.Name != "pc" || got.Type != "node" {
		t.Errorf("stored %+v", got)
	}
	want := []string{"platform.devices: new node name=pc model=pc-x86-64 mac=02:00:00:00:00:10 ip=192.168.152.10"}
	if got := p.lines.take(); !slices.Equal(got, want) {
		t.Errorf("logged %q", got)
	}
	if err := p.Register(t.Context(), state.Registration{UCI: "walt.node.odd", IP: "192.168.152.11", MAC: "02:00:00:00:00:11"}); err != nil {
		t.Fatal(err)
	}
	if d := p.registry.View().ByMAC("02:00:00:00:00:11"); d == nil || d.Type != registry.Unknown {
		t.Errorf("a node without image is %+v", d)
	}
	if err := p.fetches.settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	want = []string{
		"platform.devices: new device name=unknown-000011 type=unknown mac=02:00:00:00:00:11 ip=192.168.152.11",
		"platform.devices: Device unknown-000011 is a walt node of type 'odd'.",
		"platform.devices: Trying to download a default image for 'odd' nodes: waltplatform/odd-default:latest...",
		"platform.devices: failed to download waltplatform/odd-default:latest from registry 'hub'.",
		"platform.devices: New odd nodes will be seen as devices of type 'unknown' until this is solved.",
	}
	if got := p.lines.take(); !slices.Equal(got, want) {
		t.Errorf("logged %q", got)
	}
}

func TestBootsAndWait(t *testing.T) {
	p := start(t, nil)
	p.populate(t)
	p.lines.take()
	u := newUser("alice")
	type outcome struct {
		value any
		err   error
	}
	over := make(chan outcome)
	go func() {
		value, err := p.serve(t.Context(), &call{client: u, api: "CSAPI"}, "wait_for_nodes", pickle.Tuple{"all-nodes"}, nil)
		over <- outcome{value, err}
	}()
	for !strings.Contains(u.said(), "busy:Waiting for bootup of nodes pc and rpi\n") {
		time.Sleep(time.Millisecond)
	}
	p.bootChanged("192.168.152.10", true, false)
	for !strings.Contains(u.said(), "busy:Waiting for bootup of node rpi\n") {
		time.Sleep(time.Millisecond)
	}
	p.bootChanged("192.168.152.10", true, false)
	p.bootChanged("192.168.152.99", true, false)
	p.bootChanged("192.168.152.11", true, true)
	if got := <-over; got.value != int64(0) || got.err != nil {
		t.Errorf("wait_for_nodes = %v, %v", got.value, got.err)
	}
	if value, _ := p.do(t, u, "wait_for_nodes", "pc"); value != true {
		t.Errorf("wait_for_nodes for a booted node = %v", value)
	}
	p.bootChanged("192.168.152.10", false, false)
	want := []string{
		"platform.nodes: node pc is booted",
		"platform.nodes: node pc is down (cause: unknown, note: server-detected disconnection)",
	}
	if got := p.lines.take(); !slices.Equal(got, want) {
		t.Errorf("logged %q\nwant %q", got, want)
	}
}

// controlled makes every node answer its control requests.
func controlled(reply string) func(*Config) {
	return func(c *Config) {
		c.Control.Dial = func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() {
				defer theirs.Close()
				r := bufio.NewReader(theirs)
				r.ReadString('\n')
				r.ReadString('\n')
				fmt.Fprintln(theirs, reply)
			}()
			return ours, nil
		}
	}
}

func TestSoftReboot(t *testing.T) {
	p := start(t, controlled("OK"))
	p.populate(t)
	p.bootChanged("192.168.152.10", true, false)
	p.lines.take()
	u := newUser("alice")
	result, err := p.do(t, u, "reboot_nodes", "all-nodes", false, "image change")
	if said := u.said(); result != "OK" || err != nil || said != "out:Nodes pc and rpi: rebooted ok.\n" {
		t.Errorf("reboot_nodes = %v, %v, %q", result, err, said)
	}
	want := []string{"platform.nodes: node pc is down (cause: image change, method: soft-reboot)"}
	if got := p.lines.take(); !slices.Equal(got, want) {
		t.Errorf("logged %q", got)
	}
}

func TestHardRebootByTheClient(t *testing.T) {
	p := start(t, controlled("KO busy"))
	p.populate(t)
	u := newUser("alice")
	u.hooks = func(path string, args []any) any {
		switch path {
		case "has_hook":
			return args[0] == "client_hard_reboot"
		case "get_hard_reboot_method_name":
			return "kareboot3"
		case "hard_reboot_nodes":
			return pickle.Tuple{pickle.NewList("02:00:00:00:00:10"), pickle.NewDict("02:00:00:00:00:11", "no power")}
		}
		return nil
	}
	result, err := p.do(t, u, "reboot_nodes", "all-nodes")
	want := "out:Node pc: rebooted ok.\nerr:Node rpi: failed soft-reboot (busy) and kareboot3 (no power)\n"
	if said := u.said(); result != "FAILED" || err != nil || said != want {
		t.Errorf("reboot_nodes = %v, %v, %q", result, err, said)
	}
}

func TestBootTimeout(t *testing.T) {
	p := start(t, nil)
	p.populate(t)
	p.lines.take()
	p.bootExpired(t.Context(), "02:00:00:00:00:10", 0)
	want := []string{
		"platform.nodes: pc: boot timeout reached, trying hard-reboot (last try).",
		"platform.nodes: Node pc: failed poe-reboot (unknown lldp network position)",
	}
	if got := p.lines.take(); !slices.Equal(got, want) {
		t.Errorf("logged %q", got)
	}
}

func TestDatabaseRefuses(t *testing.T) {
	p := start(t, nil)
	p.populate(t)
	p.store.mu.Lock()
	p.store.broken = errors.New("disk full")
	p.store.mu.Unlock()
	if _, err := p.do(t, newUser("alice"), "rename", "pc", "other"); err == nil || err.Error() != "disk full" {
		t.Errorf("rename: %v", err)
	}
	if p.registry.View().ByName("pc") == nil {
		t.Error("the registry has changed although the database has not")
	}
	if _, err := p.do(t, newUser("alice"), "show_nodes", "alice", true); err != nil {
		t.Errorf("reading fails while the database is away: %v", err)
	}
	p.store.mu.Lock()
	p.store.broken = nil
	p.store.mu.Unlock()
	if result, err := p.do(t, newUser("alice"), "rename", "pc", "other"); result != true || err != nil {
		t.Errorf("rename after the database came back: %v, %v", result, err)
	}
}

func TestSyncClock(t *testing.T) {
	p := start(t, nil)
	result, err := p.serve(t.Context(), &call{client: newUser(nil), api: "NSAPI"}, "sync_clock", nil, nil)
	if second, ok := result.(int64); err != nil || !ok || time.Since(time.Unix(second, 0)) > time.Second {
		t.Errorf("sync_clock = %v, %v", result, err)
	}
}

func TestNeighborIsASwitch(t *testing.T) {
	p := start(t, nil)
	p.populate(t)
	p.lines.take()
	c := &call{client: newUser(nil), api: "NSAPI", peer: netip.MustParseAddr("192.168.152.10")}
	if _, err := p.serve(t.Context(), c, "report_lldp_neighbor", pickle.Tuple{"02:00:00:00:00:13", "g1"}, nil); err != nil {
		t.Fatal(err)
	}
	if d := p.registry.View().ByName("switch-000013"); d == nil || d.Type != registry.Switch {
		t.Errorf("the neighbour is not a switch")
	}
	if got := p.lines.take(); len(got) != 3 || got[2] != "platform.devices: Node pc is connected on switch-000013, so switch-000013 is a switch." {
		t.Errorf("logged %q", got)
	}
}

func TestWebAPI(t *testing.T) {
	p := start(t, nil)
	p.populate(t)
	decode := func(request any) func(any) error {
		return func(v any) error {
			data, err := connector.Encode(request)
			if err != nil {
				return err
			}
			return connector.Decode(data, v)
		}
	}
	methods := p.webMethods()
	found, err := methods[state.MethodImages](t.Context(), decode(state.ImagesRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, i := range found.([]state.Image) {
		names = append(names, fmt.Sprint(i.FullName, " ", i.User, " ", i.InUse, " ", i.Compatibility))
	}
	want := []string{
		"bob/tool:v2 bob false [rpi-b rpi-b-plus]",
		"waltplatform/pc-x86-64-default:latest waltplatform true [pc-x86-64]",
		"waltplatform/rpi-b-default:latest waltplatform true [rpi-b rpi-b-plus]",
	}
	if !slices.Equal(names, want) {
		t.Errorf("images %q", names)
	}
	var parts []state.LogsPart
	err = p.webStreams()[state.StreamLogs](t.Context(), decode(state.LogsRequest{From: 1, To: 9, Issuer: "pc", Stream: "a|b"}), func(part any) error {
		parts = append(parts, part.(state.LogsPart))
		return nil
	})
	if err != nil || !reflect.DeepEqual(parts, []state.LogsPart{
		{Count: 1}, {Count: 1, Records: []state.LogRecord{{Timestamp: 5, Line: "^(a|b)$", Issuer: "pc", Stream: "s"}}},
	}) {
		t.Errorf("logs %v, %v", parts, err)
	}
}

func TestExpose(t *testing.T) {
	p := start(t, nil)
	device, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	go func() {
		for {
			conn, err := device.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(conn, "hello")
			conn.Close()
		}
	}()
	free, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := free.Addr().(*net.TCPAddr).Port
	p.register(t, registry.Sighting{IP: "127.0.0.1", MAC: "02:00:00:00:00:77", Name: "here"})
	// Only devices of walt-net can be exposed; this one is not, hence set directly.
	expose := func(value string) {
		d := p.registry.View().ByName("here").Device
		d.Conf = map[string]any{"expose": value}
		if err := p.locked(func() error { return p.saveDevices(t.Context(), d) }); err != nil {
			t.Fatal(err)
		}
		if err := p.exposes.settle(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	value := fmt.Sprintf("%d:%d", device.Addr().(*net.TCPAddr).Port, port)
	if err := p.exposed.checkPorts(value); err == nil || err.Error() != fmt.Sprintf("Failed: cannot use server port '%d': Address already in use.", port) {
		t.Errorf("a port in use: %v", err)
	}
	p.lines.take()
	expose(value)
	if got := p.lines.take(); len(got) != 1 || !strings.HasPrefix(got[0], "platform.expose: cannot redirect server port") {
		t.Errorf("logged %q", got)
	}
	free.Close()
	expose(value)
	conn, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(conn).ReadString('\n'); line != "hello\n" {
		t.Errorf("got %q, %v", line, err)
	}
	expose("none")
	if err := p.exposed.checkPorts(value); err != nil {
		t.Errorf("the port is still in use: %v", err)
	}
}
