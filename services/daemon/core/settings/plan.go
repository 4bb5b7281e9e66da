package settings

import (
	"maps"
	"strings"

	"github.com/waltos/waltos/services/daemon/core/registry"
	"github.com/waltos/waltos/services/daemon/core/text"
)

// request is a set of settings being checked.
type request struct {
	view    *registry.View
	devices []*registry.Device
	names   []string // in the order given
	values  map[string]string
	setting string // the one being checked
}

// Plan is what a request changes.
type Plan struct {
	Conf   map[string]any // to merge into what each device stores
	Switch bool           // the devices become switches
	Answer string         // to print once all is applied
}

// Apply returns the stored settings of a device after the plan.
func (p *Plan) Apply(conf map[string]any) map[string]any {
	merged := maps.Clone(conf)
	if merged == nil {
		merged = map[string]any{}
	}
	maps.Copy(merged, p.Conf)
	return merged
}

// Parse cuts "name=value" arguments; it returns refusal C1.
func Parse(args []string) (names []string, values map[string]string, err error) {
	values = map[string]string{}
	for _, arg := range args {
		name, value, found := strings.Cut(arg, "=")
		if !found {
			return nil, nil, &text.Refusal{Text: text.NeedSettings}
		}
		if _, again := values[name]; !again {
			names = append(names, name)
		}
		values[name] = value
	}
	return names, values, nil
}

// Check plans settings for devices, or refuses them all because of the first that is
// wrong (§2.9.2).
func Check(v *registry.View, devices []*registry.Device, names []string, values map[string]string) (*Plan, error) {
	r := &request{view: v, devices: devices, names: names, values: values}
	plan := &Plan{Conf: map[string]any{}, Answer: text.Done}
	reboots := false
	for _, name := range names {
		s := find(name)
		if s == nil {
			return nil, text.Refuse("Unknown setting '%s'. See: 'walt help show device-config'\n", name)
		}
		r.setting = name
		if err := r.checkCategory(s); err != nil {
			return nil, err
		}
		value, err := s.parse(r, values[name])
		if err != nil {
			return nil, err
		}
		if name == "type" {
			plan.Switch = true
			continue
		}
		plan.Conf[name] = value
		reboots = reboots || s.reboots
	}
	if reboots {
		what := "node(s)"
		if len(r.without(nodes)) > 0 {
			what = "device(s)"
		}
		plan.Answer = "Done. Reboot " + what + " to see new settings in effect.\n"
	}
	return plan, nil
}

// without returns the names of the devices that do not belong to a category.
func (r *request) without(c category) []string {
	var names []string
	for _, d := range r.devices {
		if !c.has(r.view, d) {
			names = append(names, d.Name)
		}
	}
	return names
}

// everywhere tells whether a setting is given, or stored on every device.
func (r *request) everywhere(name string) bool {
	if _, given := r.values[name]; given {
		return true
	}
	for _, d := range r.devices {
		if d.Conf[name] == nil {
			return false
		}
	}
	return true
}

// enabled tells whether a boolean setting is given as true, or stored so on every device.
func (r *request) enabled(name string) bool {
	if value, given := r.values[name]; given {
		return !strings.EqualFold(value, "false") // its own check refuses any other text
	}
	for _, d := range r.devices {
		if !registry.ConfBool(d.Conf, name, false) {
			return false
		}
	}
	return true
}

// lowerDevices is the noun of the texts that name devices in the middle of a sentence.
var lowerDevices = text.Noun{None: "no devices", One: "device", Many: "devices"}

func (r *request) checkCategory(s *setting) error {
	refused := r.without(s.category)
	if len(refused) == 0 {
		return nil
	}
	about := func(template string) error {
		return &text.Refusal{Text: text.About(strings.ReplaceAll(template, "SETTING", s.name), refused, text.Devices, "and")}
	}
	switch s.category {
	case nodes:
		return about("Failed: %s is(are) not a() node(nodes), so it(they) does(do) not support the 'SETTING' setting.\n")
	case switches:
		if r.values["type"] == registry.Switch {
			return nil // "type" itself is refused if they are not all unknown
		}
		return about("Failed: %s is(are) not a() switch(switches), so 'SETTING' setting cannot be applied.\n")
	case unknowns:
		return text.Refuse("Failed: setting '%s' can only be applied to unknown devices.\n", s.name)
	case managed:
		return r.notManaged()
	}
	return r.notVirtual()
}

func (r *request) notManaged() error {
	var outside, servers, reasons []string
	for _, d := range r.devices {
		if d.Type == registry.Server {
			servers = append(servers, d.Name+" is the WALT server")
		} else if !managed.has(r.view, d) {
			outside = append(outside, d.Name)
		}
	}
	if len(outside) > 0 {
		reasons = append(reasons, text.About("%s is(are) not a() device(devices) managed inside walt-net", outside, lowerDevices, "and"))
	}
	return text.Refuse("Failed: %s.\n", strings.Join(append(reasons, servers...), ", and "))
}

func (r *request) notVirtual() error {
	var others, physical, reasons []string
	for _, d := range r.devices {
		if d.Type != registry.Node {
			others = append(others, d.Name)
		} else if !d.Virtual {
			physical = append(physical, d.Name)
		}
	}
	if len(others) > 0 {
		reasons = append(reasons, text.About("%s is(are) not a() node(nodes)", others, lowerDevices, "and"))
	}
	if len(physical) > 0 {
		reason := text.Sentence("%s is(are) not virtual", physical)
		if len(reasons) > 0 {
			reason = text.Decapitalize(reason)
		}
		reasons = append(reasons, reason)
	}
	return text.Refuse("Failed: %s, so '%s' setting is not supported.\n", strings.Join(reasons, ", and "), r.setting)
}
