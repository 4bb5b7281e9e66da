package settings

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/waltos/waltos/services/daemon/core/registry"
	"github.com/waltos/waltos/services/daemon/core/text"
	"github.com/waltos/waltos/services/internal/items"
	"github.com/waltos/waltos/services/internal/pattern"
	"github.com/waltos/waltos/services/vnode"
)

// valueText is how a value is shown.
func valueText(name string, value any) string {
	switch v := value.(type) {
	case nil:
		if name == "boot.timeout" {
			return "none"
		}
		return "<unspecified>"
	case bool:
		return strconv.FormatBool(v)
	}
	if name == "netsetup" {
		return NetSetup(value)
	}
	return fmt.Sprint(value)
}

// NetSetup is the name of a stored netsetup.
func NetSetup(value any) string {
	if n, _ := registry.ConfInt(map[string]any{"netsetup": value}, "netsetup"); n == 1 {
		return "NAT"
	}
	return "LAN"
}

const moreInfo = "\n        Check 'walt help show device-config' for more info.\n"

func parseNetSetup(_ *request, value string) (any, error) {
	switch strings.ToUpper(value) {
	case "LAN":
		return int64(0), nil
	case "NAT":
		return int64(1), nil
	}
	return nil, text.Refuse("Failed: netsetup value should be 'NAT' or 'LAN'.\n")
}

func parseBool(r *request, value string) (any, error) {
	switch strings.ToLower(value) {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return nil, text.Refuse("Failed: setting '%s' only allows values 'true' or 'false'.\n", r.setting)
}

// natural reads a non-negative integer, with what Python's int() tolerates around it.
func natural(value string) (int64, bool) {
	n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 32)
	return n, err == nil && n >= 0
}

// runnable has walt-virtual-node judge a value that upstream accepts, under the name that the
// setting has there: a node that has one of no use would never start again.
func runnable(attribute string, parse func(*request, string) (any, error)) func(*request, string) (any, error) {
	return func(r *request, value string) (any, error) {
		parsed, err := parse(r, value)
		if err != nil {
			return nil, err
		}
		if err := vnode.CheckSetting(attribute, fmt.Sprint(parsed)); err != nil {
			return nil, text.Refuse("Failed: %v.%s", err, moreInfo)
		}
		return parsed, nil
	}
}

var ram = pattern.Lazy(`^[0-9]+[MG]$`)

func parseRAM(_ *request, value string) (any, error) {
	if !ram().MatchString(value) {
		return nil, text.Refuse("Failed: '%s' is not a valid value for ram (expecting for instance 512M or 1G).\n", value)
	}
	return value, nil
}

func parseCores(_ *request, value string) (any, error) {
	if n, ok := natural(value); ok {
		return n, nil
	}
	return nil, text.Refuse("Failed: '%s' is not a valid value for cpu.cores (expecting for instance 1 or 4).\n", value)
}

func parseBootDelay(_ *request, value string) (any, error) {
	if _, ok := natural(value); ok || value == "random" {
		return value, nil
	}
	return nil, text.Refuse("Failed: '%s' is not a valid value for option 'boot.delay'.\n        Use for example '2' for 2s, '0' to disable, 'random' for a random delay between 1 and 10s.\n", value)
}

func parseBootRetries(_ *request, value string) (any, error) {
	if n, ok := natural(value); ok {
		return n, nil
	}
	return nil, text.Refuse("Failed: '%s' is not a valid value for option 'boot.retries'.\n        Use for example '2' for retrying twice after a failed boot, '0' to disable.\n", value)
}

func parseBootTimeout(_ *request, value string) (any, error) {
	if value == "none" {
		return nil, nil
	}
	n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 32)
	switch {
	case err != nil || n < 0:
		return nil, text.Refuse("Failed: '%s' is not a valid value for option 'boot.timeout'.\n        Use for example '180' for waiting 3 minutes before considering the node is stuck and force-rebooting it, or 'none' to disable.\n", value)
	case n < 60:
		return nil, text.Refuse("Failed: A boot timeout of %ds is probably too small for some OS images.\n        Only \"none\" and values higher than 60 are allowed for this setting.\n", n)
	}
	return n, nil
}

var (
	disk          = pattern.Lazy(`^[0-9]+[GT](?:\[[^\[\]]*\])?$`)
	network       = pattern.Lazy(`^([a-z][a-z-]*)(?:\[[^\[\]]*\])?$`)
	restriction   = pattern.Lazy(`^(?i:lat=[0-9]+(?:ms|us)|bw=[0-9]+(?:Gbps|Mbps))$`)
	diskTemplates = []string{"none", "ext4", "fat32", "hybrid-boot-v", "hybrid-boot-p"}
)

func parseDisks(_ *request, value string) (any, error) {
	refuse := func(format string, args ...any) (any, error) {
		return nil, text.Refuse("Failed: %s%s", fmt.Sprintf(format, args...), moreInfo)
	}
	if value == "none" {
		return value, nil
	}
	for _, item := range items.Split(value) {
		if !disk().MatchString(item) {
			return refuse("Could not parse disks value '%s'.", value)
		}
		for _, option := range options(item) {
			template, isTemplate := strings.CutPrefix(option, "template=")
			if !isTemplate || template == "" {
				return refuse("'%s' is not a valid disk option.", option)
			}
			if !slices.Contains(diskTemplates, template) {
				return refuse("Disk template must be one of: %s", strings.Join(diskTemplates, " "))
			}
		}
	}
	return value, nil
}

func parseNetworks(_ *request, value string) (any, error) {
	refuse := func(format string, args ...any) (any, error) {
		return nil, text.Refuse("Failed: %s%s", fmt.Sprintf(format, args...), moreInfo)
	}
	var names []string
	for _, item := range items.Split(value) {
		found := network().FindStringSubmatch(item)
		if found == nil {
			return refuse("Could not parse networks value '%s'.", value)
		}
		for _, option := range options(item) {
			if !restriction().MatchString(option) {
				return refuse("'%s' is not a valid network resource restriction.", option)
			}
		}
		names = append(names, found[1])
	}
	if !slices.Contains(names, "walt-net") {
		return refuse("Mandatory network 'walt-net' is missing from specified networks.")
	}
	slices.Sort(names)
	if len(slices.Compact(names)) != len(names) {
		return refuse("Specifying twice the same network name is not allowed.")
	}
	return value, nil
}

// options splits what an item has in brackets, which may be empty.
func options(item string) []string {
	_, inside, found := strings.Cut(item, "[")
	if !found {
		return nil
	}
	return strings.Split(strings.TrimSuffix(inside, "]"), ",")
}

// A Redirect is one pair of setting expose.
type Redirect struct{ DevicePort, ServerPort uint16 }

// ParseExpose reads a value of setting expose.
func ParseExpose(value string) ([]Redirect, error) {
	if value == "none" {
		return nil, nil
	}
	var redirects []Redirect
	for pair := range strings.SplitSeq(value, ",") {
		left, right, _ := strings.Cut(pair, ":")
		device, err1 := strconv.ParseUint(left, 10, 16)
		server, err2 := strconv.ParseUint(right, 10, 16)
		if err1 != nil || err2 != nil || device == 0 || server == 0 {
			return nil, text.Refuse("Failed: '%s' is not a valid value for option 'expose'.\n        Use for example '80:8088' (device port 80 <-> server port 8088), or 'none'.\n        Several redirects are possible, e.g., '80:8088,443:8443'.\n", value)
		}
		redirects = append(redirects, Redirect{uint16(device), uint16(server)})
	}
	return redirects, nil
}

func parseExpose(r *request, value string) (any, error) {
	redirects, err := ParseExpose(value)
	if err != nil {
		return nil, err
	}
	if len(redirects) > 0 && len(r.devices) > 1 {
		return nil, text.Refuse("Failed: cannot expose the same server port for several devices.\n")
	}
	devicePorts, serverPorts := map[uint16]bool{}, map[uint16]bool{}
	for _, redirect := range redirects {
		if devicePorts[redirect.DevicePort] {
			return nil, text.Refuse("Failed: cannot use several times the same device port number.\n")
		}
		if serverPorts[redirect.ServerPort] {
			return nil, text.Refuse("Failed: cannot use several times the same server port number.\n")
		}
		devicePorts[redirect.DevicePort], serverPorts[redirect.ServerPort] = true, true
	}
	for _, other := range r.view.Devices() {
		if slices.Contains(r.devices, other) {
			continue
		}
		stored, _ := other.Conf["expose"].(string)
		taken, err := ParseExpose(stored)
		if err != nil {
			continue // nothing can be redirected by a value that is not one
		}
		for _, redirect := range taken {
			if serverPorts[redirect.ServerPort] {
				return nil, text.Refuse("Failed: server port '%d' is already used for another redirect.\n", redirect.ServerPort)
			}
		}
	}
	return value, nil
}

func parseSNMPVersion(_ *request, value string) (any, error) {
	switch value {
	case "1":
		return int64(1), nil
	case "2":
		return int64(2), nil
	}
	return nil, text.Refuse("Failed: value of setting 'snmp.version' should be '1' or '2'.\n")
}

func parseType(_ *request, value string) (any, error) {
	if value != registry.Switch {
		return nil, text.Refuse("Failed: setting 'type' only allows value 'switch'.\n")
	}
	return value, nil
}

func parseExplore(r *request, value string) (any, error) {
	explore, err := parseBool(r, value)
	if err == nil && explore == true && !(r.everywhere("snmp.version") && r.everywhere("snmp.community")) {
		return nil, text.Refuse("Failed: cannot set 'lldp.explore' to true unless 'snmp.version' and 'snmp.community' are defined too.\n")
	}
	return explore, err
}

func parsePoE(r *request, value string) (any, error) {
	reboots, err := parseBool(r, value)
	if err == nil && reboots == true && !r.enabled("lldp.explore") {
		return nil, text.Refuse("Failed: cannot set 'poe.reboots' to true unless 'lldp.explore' is set to true too.\n")
	}
	return reboots, err
}
