package core

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/waltos/waltos/services/daemon/core/registry"
	"github.com/waltos/waltos/services/daemon/core/settings"
	"github.com/waltos/waltos/services/daemon/core/text"
	"github.com/waltos/waltos/services/daemon/db"
)

// completionTimeout is less than the 4 s after which the helper of shells gives up.
const completionTimeout = 3500 * time.Millisecond

// shellAutocomplete completes a command line (client-api §2.13). It never prints on the
// output of the client, which is the answer itself, and what cannot be known in time is
// left out (CN-15).
func (c *call) shellAutocomplete() (any, error) {
	argv := c.texts("argv")
	if len(argv) < 2 {
		return "", nil
	}
	within, cancel := context.WithTimeout(c.Context, completionTimeout)
	defer cancel()
	c.Context, c.quiet = within, true
	partial := argv[len(argv)-1]
	candidates, err := c.candidates(argv[0], argv[1:len(argv)-1], partial)
	var refusal *text.Refusal
	switch {
	case errors.As(err, &refusal):
		return c.fail(err, "")
	case err != nil:
		return "", nil // it is only a help
	}
	return filterCandidates(argv[0], partial, candidates), nil
}

// candidates lists what may complete an argument of a type; words are those before it.
func (c *call) candidates(kind string, words []string, partial string) ([]string, error) {
	v := c.registry.View()
	user := c.text("username")
	names := func(types ...string) []string {
		var list []string
		for _, d := range v.Devices() {
			if len(types) == 0 || contains(types, d.Type) {
				list = append(list, d.Name)
			}
		}
		return list
	}
	switch kind {
	case "NODE":
		return nodeNames(v, user, true), nil
	case "DEVICE":
		return names(), nil
	case "SWITCH":
		return names(registry.Switch), nil
	case "SET_OF_NODES":
		return commaSet(partial, append(nodeNames(v, user, true), "my-nodes", "all-nodes", "free-nodes")), nil
	case "SET_OF_DEVICES":
		return commaSet(partial, append(names(), "all-devices", "all-switches", "explorable-switches", "my-nodes", "all-nodes", "free-nodes")), nil
	case "RESCAN_SET_OF_DEVICES":
		return commaSet(partial, append(names(registry.Switch), "explorable-switches", "server")), nil
	case "SET_OF_ISSUERS":
		return commaSet(partial, append(names(registry.Node, registry.Server), "my-nodes", "all-nodes", "free-nodes", "server")), nil
	case "IMAGE", "IMAGE_OR_DEFAULT":
		return c.imageCandidates(kind, user), nil
	case "IMAGE_CLONE_URL":
		return c.linkCandidates(user, partial), nil
	case "NODE_CONFIG_PARAM", "DEVICE_CONFIG_PARAM":
		return c.settingCandidates(v, words, partial)
	case "PORT_CONFIG_PARAM":
		if strings.Contains(partial, "=") {
			return nil, nil
		}
		return []string{"name="}, nil
	case "REGISTRY":
		return append(c.registryLabels(), "auto"), nil
	case "LOG_CHECKPOINT":
		return c.checkpointNames()
	case "HISTORY_RANGE":
		checkpoints, err := c.checkpointNames()
		return historyCandidates(partial, checkpoints), err
	case "NODE_CP_DST", "IMAGE_CP_DST":
		if len(words) > 0 && strings.Contains(words[len(words)-1], ":") {
			return append(c.clientFiles(partial), "booted-image"), nil
		}
		return c.operands(kind, user, partial), nil
	case "NODE_CP_SRC", "IMAGE_CP_SRC":
		return append(c.clientFiles(partial), c.operands(kind, user, partial)...), nil
	}
	return nil, nil
}

// commaSet completes the last element of a comma-separated set. An element that is alone
// to match may also be followed by another one.
func commaSet(partial string, items []string) []string {
	at := strings.LastIndexByte(partial, ',') + 1
	before, last := partial[:at], partial[at:]
	var matching []string
	for _, item := range items {
		if strings.HasPrefix(item, last) {
			matching = append(matching, before+item)
		}
	}
	if len(matching) == 1 {
		matching = append(matching, matching[0]+",")
	}
	return matching
}

func (c *call) imageCandidates(kind, user string) []string {
	var names []string
	if kind == "IMAGE_OR_DEFAULT" {
		names = append(names, "default")
	}
	images, err := c.userImages(user)
	if err != nil {
		return names // completion is only a help
	}
	for _, i := range images {
		names = append(names, i.Name)
		if !strings.Contains(i.Name, ":") {
			names = append(names, i.Name+":latest")
		}
	}
	return names
}

func (c *call) linkCandidates(user, partial string) []string {
	if !strings.HasPrefix(partial, "walt:") {
		return c.cloneLocations()
	}
	var links []string
	for _, i := range c.images() {
		if i.User != user {
			links = append(links, "walt:"+i.FullName)
		}
	}
	return links
}

// cloneLocations are what the link of an image to be cloned begins with.
func (c *call) cloneLocations() []string {
	return append([]string{"docker", "walt"}, c.registryLabels()...)
}

func (c *call) registryLabels() []string {
	var labels []string
	for _, r := range c.Site.Registries {
		labels = append(labels, r.Label)
	}
	return labels
}

// settingCandidates completes with the settings that all devices of the set have; the set
// is the nearest word before that is no setting.
func (c *call) settingCandidates(v *registry.View, words []string, partial string) ([]string, error) {
	if strings.Contains(partial, "=") {
		return nil, nil
	}
	for i := len(words) - 1; i >= 0; i-- {
		if strings.Contains(words[i], "=") {
			continue
		}
		devices, err := v.Resolve(words[i], c.user)
		if err != nil {
			return nil, err
		}
		names := settings.Common(v, devices)
		for n := range names {
			names[n] += "="
		}
		return names, nil
	}
	return nil, nil
}

func (c *call) checkpointNames() ([]string, error) {
	user := c.text("username")
	found, err := asked(c, func(ctx context.Context) ([]db.Checkpoint, error) { return c.Store.Checkpoints(ctx, user) })
	if err != nil {
		return nil, err
	}
	names := make([]string, len(found))
	for i, cp := range found {
		names[i] = cp.Name
	}
	return names, nil
}

// historyCandidates completes a range of history "start:end".
func historyCandidates(partial string, checkpoints []string) []string {
	start, end, second := strings.Cut(partial, ":")
	if !second {
		if strings.HasPrefix(start, "-") {
			return nil
		}
		list := []string{"full", "none", "-<relative-time>:", ":"}
		for _, name := range checkpoints {
			list = append(list, name+":")
		}
		return list
	}
	if strings.HasPrefix(end, "-") {
		return nil
	}
	list := []string{start + ":-<relative-time>", start + ":"}
	for _, name := range checkpoints {
		list = append(list, start+":"+name)
	}
	return list
}

// clientFiles completes a path on the machine of the client.
func (c *call) clientFiles(partial string) []string {
	if strings.Contains(partial, ":") {
		return nil
	}
	answer, err := c.client.Callback(c, "filesystem.get_completions", partial)
	if err != nil {
		return nil // completion is only a help
	}
	files, _ := sequence(answer)
	return files
}

// operands lists what a copy can be made from or to, besides files of the client: the
// files of a node once it is named, else the names. Paths in images are not completed.
func (c *call) operands(kind, user, partial string) []string {
	v := c.registry.View()
	names := nodeNames(v, user, true)
	if strings.HasPrefix(kind, "IMAGE") {
		names = c.imageCandidates("IMAGE", user)
	}
	var list []string
	for _, name := range names {
		path, named := strings.CutPrefix(partial, name+":")
		switch {
		case !named:
			list = append(list, name+":")
		case strings.HasPrefix(kind, "NODE") && !strings.Contains(path, ":"):
			for _, completion := range c.SSH.Completions(c, v.ByName(name).IP, path) {
				list = append(list, name+":"+completion)
			}
		}
	}
	return list
}

// filterCandidates keeps the candidates that begin as the partial word. A single one to
// which more can be added is given twice, so that the shell adds no blank.
func filterCandidates(kind, partial string, candidates []string) string {
	var kept []string
	for _, candidate := range candidates {
		if strings.HasPrefix(candidate, partial) {
			kept = append(kept, candidate)
		}
	}
	switch {
	case len(kept) == 1:
		only := kept[0]
		if strings.HasPrefix(kind, "IMAGE_CP") && strings.HasSuffix(partial, ":") && only == partial+"latest:" {
			return ""
		}
		if strings.HasSuffix(only, "/") || strings.HasSuffix(only, ":") || strings.HasSuffix(only, "=") {
			if only == partial {
				return ""
			}
			return only + "a " + only + "b"
		}
	case len(kept) == 2 && (kind == "IMAGE" || kind == "IMAGE_OR_DEFAULT") && kept[1] == kept[0]+":latest":
		kept = kept[:1]
	}
	return strings.Join(kept, " ")
}
