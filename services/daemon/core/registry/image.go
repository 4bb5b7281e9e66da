package registry

import (
	"strings"

	"github.com/waltos/waltos/services/daemon/core/text"
	"github.com/waltos/waltos/services/internal/pattern"
)

// DefaultImage is the full name of the image that free nodes of a model boot.
func DefaultImage(model string) string {
	return FreeOwner + "/" + model + "-default:latest"
}

// FullImageName returns "user/repository:tag" from what a user calls one of his images.
func FullImageName(user, name string) string {
	if !strings.Contains(name, ":") {
		name += ":latest"
	}
	return user + "/" + name
}

// SplitImageName cuts a full name into its owner and what that user calls it, which shows
// no tag "latest".
func SplitImageName(fullName string) (owner, name string) {
	owner, name, _ = strings.Cut(fullName, "/")
	return owner, strings.TrimSuffix(name, ":latest")
}

// What 10.0 accepts in the two parts of an image name, and image stores do, too.
var (
	imageRepository = pattern.Lazy(`^[a-z0-9]+(-+[a-z0-9]+)*$`)
	imageTag        = pattern.Lazy(`^[a-z0-9][a-z0-9-]*$`)
)

// maxImageName bounds both parts: a reference has 255 characters at most, and its tag 128.
const maxImageName = 128

// CheckImageName refuses what cannot name an image (I4, I5). Unlike 10.0 it also refuses
// what makes a reference that is not valid, an empty part among others (CN-30).
func CheckImageName(name string) error {
	if name == "default" {
		return &text.Refusal{Text: text.DefaultReserved}
	}
	repository, tag, tagged := strings.Cut(name, ":")
	if len(repository) > maxImageName || len(tag) > maxImageName ||
		!imageRepository().MatchString(repository) || tagged && !imageTag().MatchString(tag) {
		return &text.Refusal{Text: text.BadImageName}
	}
	return nil
}
