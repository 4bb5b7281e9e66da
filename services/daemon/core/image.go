package core

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/waltos/waltos/services/daemon/core/registry"
	"github.com/waltos/waltos/services/daemon/core/text"
	"github.com/waltos/waltos/services/images"
	"github.com/waltos/waltos/services/wire/pickle"
)

// Labels of images (server-state §3.2).
const preferredNameLabel = "walt.image.preferred-name"

// workUser owns the names that the server gives to images for its own use; users do not
// see them.
const workUser = "walt"

// images lists the names of images, sorted by owner, then name.
func (d *Daemon) images() []*image {
	used := map[string]bool{}
	for _, node := range d.registry.View().Nodes() {
		used[node.Image] = true
	}
	var all []*image
	for _, stored := range d.Images.List() {
		for _, full := range stored.Names {
			if i := newImage(stored, full); i != nil {
				i.InUse = used[full]
				all = append(all, i)
			}
		}
	}
	slices.SortFunc(all, func(a, b *image) int {
		return cmp.Or(cmp.Compare(a.User, b.User), cmp.Compare(a.Name, b.Name))
	})
	return all
}

// newImage describes an image under one of its names; nil if that name is none of a user.
func newImage(stored images.Image, full string) *image {
	owner, name := registry.SplitImageName(full)
	if owner == workUser || name == "" {
		return nil
	}
	return &image{ID: stored.ID, FullName: full, User: owner, Name: name, Models: stored.Models, Created: stored.Created}
}

// userImages lists the images of a user. One who has none is first given clones of the
// default images of the models on the platform.
func (c *call) userImages(user string) ([]*image, error) {
	mine := func() []*image {
		return slices.DeleteFunc(c.images(), func(i *image) bool { return i.User != user })
	}
	if found := mine(); len(found) > 0 {
		return found, nil
	}
	if _, _, err := c.cloneDefaults(user, c.registry.View().Nodes()); err != nil {
		return nil, err
	}
	return mine(), nil
}

// userImage finds an image of the user by what he calls it, or refuses (I1).
func (c *call) userImage(name string) (*image, error) {
	user, err := c.user()
	if err != nil {
		return nil, err
	}
	if _, err := c.userImages(user); err != nil {
		return nil, err
	}
	full := registry.FullImageName(user, name)
	stored, found := c.Images.ByName(full)
	if !found {
		return nil, text.NoSuchImage(name)
	}
	i := newImage(stored, full)
	if i == nil {
		return nil, text.NoSuchImage(name)
	}
	i.InUse = c.imageUsed(full)
	return i, nil
}

func (d *Daemon) imageUsed(full string) bool {
	return slices.ContainsFunc(d.registry.View().Nodes(), func(node *registry.Device) bool { return node.Image == full })
}

// cloneDefaults makes sure that a user has an image for the model of each node: it gives
// him the default images that he lacks. It returns the name, with tag, of the image for
// each node; models without default image have none (CN-39).
func (c *call) cloneDefaults(user string, devices []*registry.Device) (mapping map[string]string, updated bool, err error) {
	var lines []string
	err = c.locked(func() error {
		mapping, lines, err = c.cloneLacking(user, devices)
		return err
	})
	if len(lines) > 0 {
		c.busy("Cloning default images")
		for _, line := range lines {
			c.out(line)
		}
		c.busy("")
	}
	return mapping, len(lines) > 0, err
}

// cloneLacking is cloneDefaults with the lines to print. writing must be held.
func (c *call) cloneLacking(user string, devices []*registry.Device) (mapping map[string]string, lines []string, err error) {
	mapping = map[string]string{}
	forModel := map[string]string{}
	for _, d := range devices {
		if name, covered := forModel[d.Model]; covered {
			mapping[d.Name] = name
			continue
		}
		stored, there := c.Images.ByName(registry.DefaultImage(d.Model))
		if !there {
			continue
		}
		full := registry.FullImageName(user, preferredName(stored, d.Model))
		_, name, _ := strings.Cut(full, "/")
		if _, there := c.Images.ByName(full); !there {
			if err := c.tag(stored.ID, full); err != nil {
				return nil, lines, err
			}
			lines = append(lines, fmt.Sprintf("Cloned %s, a defaut image for %s.\n", name, text.CompactModels(stored.Models)))
		}
		for _, model := range stored.Models {
			if _, covered := forModel[model]; !covered {
				forModel[model] = name
			}
		}
		forModel[d.Model] = name
		mapping[d.Name] = name
	}
	return mapping, lines, nil
}

// preferredName is how users call the default image of a model.
func preferredName(stored images.Image, model string) string {
	if name := stored.Labels[preferredNameLabel]; registry.CheckImageName(name) == nil {
		return name
	}
	return model + "-default"
}

// tag gives an image a name, in the store and in the database. writing must be held.
func (c *call) tag(id, full string) error {
	if err := c.Images.Tag(context.WithoutCancel(c), id, full); err != nil {
		return err
	}
	return c.saveImage(full)
}

// saveImage records a name in the database, which nodes refer to.
func (c *call) saveImage(full string) error {
	return c.stored(c, func(ctx context.Context) error { return c.Store.SaveImage(ctx, full) })
}

func (c *call) showImages() (any, error) {
	user := c.text("username")
	if user == "" {
		return "", nil
	}
	if err := c.refresh(); err != nil {
		return nil, err
	}
	mine, err := c.userImages(user)
	if err != nil {
		return nil, err
	}
	if !c.flag("names_only") {
		return listImages(c.images(), user, c.flag("show_all")), nil
	}
	names := make([]string, len(mine))
	for i, image := range mine {
		names[i] = image.Name
	}
	return strings.Join(names, "\n"), nil
}

// refresh reads the stores again if the client wants it.
func (c *call) refresh() error {
	if !c.flag("refresh") {
		return nil
	}
	return c.Images.Refresh(c)
}

func (c *call) hasImage() (any, error) {
	name := c.text("image_name")
	if name == "default" && c.flag("default_allowed") {
		return true, nil
	}
	if _, err := c.userImage(name); err != nil {
		return c.fail(err, false)
	}
	return true, nil
}

// imageFields are the values that get_images_tabular_data can give (client-api §2.10.5).
var imageFields = map[string]func(*image) any{
	"id":                    func(i *image) any { return i.ID },
	"name":                  func(i *image) any { return i.Name },
	"user":                  func(i *image) any { return i.User },
	"fullname":              func(i *image) any { return i.FullName },
	"in_use":                func(i *image) any { return i.InUse },
	"created":               func(i *image) any { return i.created() },
	"compatibility:compact": func(i *image) any { return text.CompactModels(i.Models) },
	"compatibility:tuple":   func(i *image) any { return tuple(i.Models) },
	"clonable_link":         func(i *image) any { return i.link() },
}

// defaultImageFields are those that clients ask for (CN-13).
var defaultImageFields = []string{"id", "name", "fullname", "in_use", "created", "compatibility:tuple"}

func (c *call) getImagesTabularData() (any, error) {
	user := c.text("username")
	if user == "" {
		return pickle.NewList(), nil
	}
	fields := c.texts("fields")
	if fields == nil {
		fields = defaultImageFields
	}
	for _, field := range fields {
		if imageFields[field] == nil {
			return nil, fmt.Errorf("images have no field %q", field)
		}
	}
	if err := c.refresh(); err != nil {
		return nil, err
	}
	mine, err := c.userImages(user)
	if err != nil {
		return nil, err
	}
	rows := pickle.NewList()
	for _, i := range mine {
		row := make(pickle.Tuple, len(fields))
		for n, field := range fields {
			row[n] = imageFields[field](i)
		}
		rows.Items = append(rows.Items, row)
	}
	return rows, nil
}

func (c *call) getClonesOfDefaultImages() (any, error) {
	invalid := pickle.Tuple{false, false, pickle.NewDict()}
	set := c.text("node_set")
	var devices []*registry.Device
	if set != "" {
		var err error
		if devices, err = c.nodes("node_set"); err != nil && !text.IsEmptySet(err) {
			return c.fail(err, invalid)
		}
	}
	user, err := c.user()
	if err != nil {
		return c.fail(err, invalid)
	}
	mapping, updated, err := c.cloneDefaults(user, devices)
	if err != nil {
		return nil, err
	}
	names := pickle.NewDict()
	for _, node := range sortedKeys(mapping) {
		names.Set(node, mapping[node])
	}
	return pickle.Tuple{true, updated, names}, nil
}

func (c *call) removeImage() (any, error) {
	i, err := c.unusedImage(c.text("image_name"))
	if err != nil {
		return c.fail(err, false)
	}
	err = c.locked(func() error {
		if c.imageUsed(i.FullName) { // since it was found
			return &text.Refusal{Text: text.ImageInUse}
		}
		return c.untag(i.FullName)
	})
	if err != nil {
		return c.fail(err, false)
	}
	return true, nil
}

// untag takes a name from an image, in the database and in the store. writing must be held.
func (c *call) untag(full string) error {
	if err := c.stored(c, func(ctx context.Context) error { return c.Store.DeleteImage(ctx, full) }); err != nil {
		return err
	}
	return c.Images.Untag(context.WithoutCancel(c), full)
}

// unusedImage finds an image that no node uses, or refuses (I1, I3).
func (c *call) unusedImage(name string) (*image, error) {
	i, err := c.userImage(name)
	if err == nil && i.InUse {
		err = &text.Refusal{Text: text.ImageInUse}
	}
	return i, err
}

func (c *call) renameImage() (any, error) {
	return c.copyImage(c.unusedImage, func(i *image, full string) error {
		if c.imageUsed(i.FullName) { // since it was found
			return &text.Refusal{Text: text.ImageInUse}
		}
		return c.move(i, full)
	})
}

// move gives an image another name instead of its own. writing must be held.
func (c *call) move(i *image, full string) error {
	if err := c.tag(i.ID, full); err != nil {
		return err
	}
	return c.untag(i.FullName)
}

func (c *call) duplicateImage() (any, error) {
	return c.copyImage(c.userImage, func(i *image, full string) error { return c.tag(i.ID, full) })
}

// copyImage gives an image another name.
func (c *call) copyImage(find func(string) (*image, error), record func(i *image, full string) error) (any, error) {
	name := c.text("new_name")
	if err := registry.CheckImageName(name); err != nil {
		return c.fail(err, false)
	}
	i, err := find(c.text("image_name"))
	if err != nil {
		return c.fail(err, false)
	}
	err = c.locked(func() error {
		full := registry.FullImageName(i.User, name)
		if _, taken := c.Images.ByName(full); taken {
			return text.ImageExists(name)
		}
		return record(i, full)
	})
	if err != nil {
		return c.fail(err, false)
	}
	return true, nil
}

// fixImageOwner makes all images of another user those of the user. 10.0 forgets a slash
// in the new names and fails (CN-14).
func (c *call) fixImageOwner() (any, error) {
	user, err := c.user()
	if err != nil {
		return c.fail(err, nil)
	}
	var given []string
	err = c.locked(func() error {
		theirs, err := c.takeable(c.text("other_user"), user)
		if err != nil {
			return err
		}
		for _, i := range theirs {
			_, tagged, _ := strings.Cut(i.FullName, "/")
			if err := c.move(i, registry.FullImageName(user, tagged)); err != nil {
				return err
			}
			given = append(given, i.Name)
		}
		return nil
	})
	for _, name := range given {
		c.out(fmt.Sprintf("Image %s now belongs to you.\n", name))
	}
	return c.fail(err, nil)
}

// takeable returns the images of another user if the user can have them, or refuses (I20
// to I23).
func (c *call) takeable(other, user string) ([]*image, error) {
	if other == user {
		return nil, text.OwnUserName(user)
	}
	theirs := slices.DeleteFunc(c.images(), func(i *image) bool { return i.User != other })
	var used, taken []string
	for _, i := range theirs {
		if i.InUse {
			used = append(used, i.Name)
		}
		if _, there := c.Images.ByName(registry.FullImageName(user, i.Name)); there {
			taken = append(taken, i.Name)
		}
	}
	switch {
	case len(used) > 0:
		return nil, text.ImagesInUse(other, used)
	case len(taken) > 0:
		return nil, text.ImagesTaken(other, taken)
	case len(theirs) == 0:
		return nil, text.NoImagesOf(other)
	}
	return theirs, nil
}

func (c *call) getRegistries() (any, error) {
	list := pickle.Tuple{}
	for _, r := range c.Site.Registries {
		list = append(list, pickle.Tuple{r.Label, r.Description})
	}
	return list, nil
}
