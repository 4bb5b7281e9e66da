package core

import (
	"errors"

	"github.com/waltos/waltos/services/daemon/core/registry"
	"github.com/waltos/waltos/services/daemon/core/text"
	"github.com/waltos/waltos/services/internal/pattern"
	"github.com/waltos/waltos/services/wire/pickle"
)

// The methods of this file work on images and registries. None of them
// is provided, hence they make the checks of 10.0 that need none of these, then tell the
// client so and return their failure value (client-api §2.7).

// notYet ends a call of later work.
func (c *call) notYet(what string, failure any) (any, error) {
	return c.fail(notYetError(what), failure)
}

func notYetError(what string) error {
	return text.Refuse("Sorry, %s not available on this server yet.\n", what)
}

// errNoSession is the error of the calls that go on with a session that no call opens.
var errNoSession = errors.New("there is no session with this number")

func (c *call) noSession() (any, error) { return nil, errNoSession }

func (c *call) nodeCpToBootedImage() (any, error) {
	if _, err := c.registry.View().NodeNamed(c.text("node_name")); err != nil {
		return c.fail(err, nil)
	}
	return c.notYet("copying to images is", nil)
}

func (c *call) createImageShellSession() (any, error) {
	if _, err := c.userImage(c.text("image_name")); err != nil {
		return c.fail(err, nil)
	}
	return c.notYet("opening images is", nil)
}

func (c *call) squashImage() (any, error) {
	if _, err := c.userImage(c.text("image_name")); err != nil {
		return c.fail(err, "FAILED")
	}
	return c.notYet("squashing images is", "FAILED")
}

func (c *call) createImageBuildSession() (any, error) {
	if err := registry.CheckImageName(c.text("image_name")); err != nil {
		return c.fail(err, nil)
	}
	return c.notYet("building images is", nil)
}

// clonableLink is what images can be cloned from: location, user, name and tag.
var clonableLink = pattern.Lazy(`^([^:/]+):[^:/]+/[^:/]+(:[^:/]+)?$`)

// cloneImage answers a name that is none as any other failure, where the clients of 10.0
// get nothing they understand (CN-10).
func (c *call) cloneImage() (any, error) {
	failed := pickle.NewDict("status", "FAILED")
	locations := c.cloneLocations()
	parts := clonableLink().FindStringSubmatch(c.text("clonable_link"))
	if parts == nil || !contains(locations, parts[1]) {
		return c.fail(text.InvalidLink(locations), failed)
	}
	if name := c.text("image_name"); name != "" {
		if err := registry.CheckImageName(name); err != nil {
			return c.fail(err, failed)
		}
	}
	return c.notYet("cloning images is", failed)
}

func (c *call) publishImage() (any, error) {
	failed := pickle.Tuple{false}
	if _, err := c.userImage(c.text("image_name")); err != nil {
		return c.fail(err, failed)
	}
	return c.notYet("publishing images is", failed)
}
