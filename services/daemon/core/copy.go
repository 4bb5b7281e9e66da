package core

import (
	"strings"

	"github.com/waltos/waltos/services/daemon/core/registry"
	"github.com/waltos/waltos/services/daemon/core/remote"
	"github.com/waltos/waltos/services/daemon/core/text"
	"github.com/waltos/waltos/services/wire/pickle"
)

// bootedImage is the keyword for the image that the source node has booted.
const bootedImage = "booted-image"

// operand is the source or the destination of a copy (client-api §2.11).
type operand struct {
	remote bool   // on a node or in an image, not at the client
	entity string // the node or image
	path   string // absolute, or beginning by "./"
}

// parseOperand reads an operand that is no keyword. What precedes its last colon is a node
// or an image.
func parseOperand(word string) operand {
	if at := strings.LastIndexByte(word, ':'); at >= 0 {
		return operand{true, word[:at], copyPath(word[at+1:])}
	}
	return operand{path: copyPath(word)}
}

// copyPath gives a path the form of results: without "/" at its end, and relative to the
// home of root or to the folder of the client unless absolute (CN-24).
func copyPath(path string) string {
	trimmed := strings.TrimRight(path, "/")
	switch {
	case trimmed == "" && path != "":
		return "/"
	case strings.HasPrefix(trimmed, "/"):
		return trimmed
	}
	return "./" + trimmed
}

// splitPath returns the folder and the last part of a path, as Python does.
func splitPath(path string) (dir, base string) {
	at := strings.LastIndexByte(path, '/') + 1
	dir, base = path[:at], path[at:]
	if trimmed := strings.TrimRight(dir, "/"); trimmed != "" {
		dir = trimmed
	}
	return dir, base
}

// validateNodeCp checks a copy between the client and a node, and tells how to do it.
func (c *call) validateNodeCp() (any, error) {
	result, err := c.nodeCopy(c.text("src"), c.text("dst"))
	if err != nil {
		return c.fail(err, failedCopy())
	}
	return result, nil
}

func failedCopy() *pickle.Dict { return pickle.NewDict("status", "FAILED") }

func (c *call) nodeCopy(srcWord, dstWord string) (*pickle.Dict, error) {
	if srcWord == bootedImage {
		return nil, &text.Refusal{Text: text.KeywordAsSource}
	}
	v := c.registry.View()
	src, dst := parseOperand(srcWord), parseOperand(dstWord)
	var node *registry.Device
	var err error
	if src.remote {
		if node, err = v.NodeNamed(src.entity); err != nil {
			return nil, err
		}
	}
	if dstWord == bootedImage {
		return nil, c.copyToBooted(node)
	}
	if dst.remote {
		other, err := v.NodeNamed(dst.entity)
		if err != nil {
			return nil, err
		}
		if node != nil {
			return nil, &text.Refusal{Text: text.NodeCopyUsage}
		}
		node = other
	}
	if node == nil {
		return nil, &text.Refusal{Text: text.NodeCopyUsage}
	}
	user, err := c.user()
	if err != nil {
		return nil, err
	}
	files, err := c.inspect(node, src, dst)
	if err != nil {
		return nil, err
	}
	dir, name, err := files.target(src.path, dst.path)
	if err != nil {
		return nil, err
	}
	client := 0
	if src.remote {
		client = 1
	}
	return pickle.NewDict(
		"client_operand_index", client,
		"node_name", node.Name, "node_ip", orNone(node.IP), "node_image", orNone(node.Image), "node_ownership", ownership(node, user),
		"status", "OK", "valid", true, "dst_dir", dir, "dst_name", name, "src_path", src.path,
	), nil
}

func ownership(node *registry.Device, user string) string {
	switch {
	case node.Owner() == user:
		return "owned"
	case node.Free():
		return "free"
	}
	return "not_owned"
}

// copyToBooted refuses a copy from a node to the image that it has booted.
func (c *call) copyToBooted(node *registry.Device) error {
	if node == nil {
		return &text.Refusal{Text: text.NodeCopyUsage}
	}
	user, err := c.user()
	if err != nil {
		return err
	}
	if node.Owner() != user {
		return &text.Refusal{Text: text.BootedNotOwned}
	}
	return notYetError("copying to images is")
}

// copyTypes are the types of the files of a copy.
type copyTypes struct{ src, dst, parent remote.Type }

// inspect asks the node and the client for the types of the files of a copy; the type of
// the parent folder is that of a missing destination.
func (c *call) inspect(node *registry.Device, src, dst operand) (t copyTypes, err error) {
	for _, path := range []string{src.path, dst.path} {
		if strings.ContainsRune(path, 0) {
			return t, text.NoSuchFile(path)
		}
	}
	parent, _ := splitPath(dst.path)
	paths := []string{src.path}
	if dst.remote {
		paths = []string{dst.path, parent}
	}
	onNode, err := c.SSH.Types(c, node.IP, paths...)
	if err != nil {
		c.Print("%v", err)
		return t, &text.Refusal{Text: text.NodeUnreachable}
	}
	if dst.remote {
		t.dst, t.parent = onNode[0], onNode[1]
		t.src, err = c.clientType(src.path)
		return t, err
	}
	t.src, t.parent = onNode[0], remote.Missing
	if t.dst, err = c.clientType(dst.path); err == nil && t.dst == remote.Missing {
		t.parent, err = c.clientType(parent)
	}
	return t, err
}

// clientType asks the client for the type of one of its files.
func (c *call) clientType(path string) (remote.Type, error) {
	answer, err := c.client.Callback(c, "filesystem.get_file_type", path)
	if err != nil {
		return remote.Missing, errSilent
	}
	switch answer {
	case "f", "d", "o":
		return remote.Type(answer.(string)), nil
	}
	return remote.Missing, nil
}

// target decides where the copy goes: into which folder, and by which name.
func (t copyTypes) target(src, dst string) (dir, name string, err error) {
	dir, name = splitPath(dst)
	_, base := splitPath(src)
	switch {
	case t.src == remote.Missing:
		return "", "", text.NoSuchFile(src)
	case t.dst == remote.Missing && t.parent != remote.Folder:
		return "", "", text.NoSuchFile(dst)
	case t.dst == remote.Missing:
		return dir, name, nil
	case t.dst == remote.Regular && t.src == remote.Folder:
		return "", "", text.FileOverFolder(dst, src)
	case t.dst == remote.Regular:
		return dir, name, nil
	case base != "" && base != "." && base != "..":
		return dst, base, nil
	case name != "" && name != "..":
		return dir, name, nil // the content of the source goes with that of the destination
	}
	return dst, ".", nil // the same, by the name that such a folder has
}

// validateImageCp checks a copy between the client and an image as far as that needs no
// look into the image.
func (c *call) validateImageCp() (any, error) {
	return c.fail(c.imageCopy(c.text("src"), c.text("dst")), failedCopy())
}

func (c *call) imageCopy(words ...string) error {
	var remotes []bool
	for _, word := range words {
		if word == bootedImage {
			return &text.Refusal{Text: text.KeywordOfNodes}
		}
		o := parseOperand(word)
		remotes = append(remotes, o.remote)
		if !o.remote {
			continue
		}
		if _, err := c.userImage(o.entity); err != nil {
			return err
		}
	}
	switch src, dst := remotes[0], remotes[1]; {
	case src == dst:
		return &text.Refusal{Text: text.ImageCopyUsage}
	case dst:
		return notYetError("copying to images is")
	}
	return notYetError("copying from images is")
}
