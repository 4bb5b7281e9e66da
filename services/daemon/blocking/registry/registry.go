// Package registry speaks with registries of container images, by the HTTP API that the
// Docker Hub and all others have (OCI distribution specification 1.1; Docker Registry v2
// authentication), and by the pages of the Docker Hub that list users and their images.
// It is used by server-blocking: registries are strangers, which may be slow, gone or
// hostile, so that all that they say is bounded, in size and time (see guard).
//
// It tries accounts, searches WalT images, describes one, reads its parts, and writes
// the image by which a user of the Docker Hub announces his images. Names and labels that
// are none of a WalT image are left out. It publishes no other image.
package registry

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/waltos/waltos/hcl"
)

// Registry is one registry of the site file, which is complete.
type Registry struct {
	Label, API, Host, Protocol string
	Port                       int
	Repository                 string // of API "jfrog-artifactory"
}

// Of returns a registry as the site file describes it.
func Of(r *hcl.Registry) Registry {
	return Registry{Label: r.Label, API: r.API, Host: r.Host, Protocol: r.Protocol, Port: r.Port, Repository: r.Repository}
}

// Hosts of the Docker Hub.
const (
	hubHost  = "registry-1.docker.io"
	hubIndex = "https://index.docker.io" // search
	hubPages = "https://hub.docker.com"  // repositories of users
)

// Hub is the Docker Hub.
func (r Registry) isHub() bool { return r.API == "docker-hub" }

// host is the name of the registry in references to images, with its port.
func (r Registry) host() string {
	if r.isHub() {
		return hubHost
	}
	return net.JoinHostPort(r.Host, strconv.Itoa(r.Port))
}

func (r Registry) scheme() string {
	if !r.isHub() && r.Protocol == "http" {
		return "http"
	}
	return "https"
}

// base is the address of the API, without a path.
func (r Registry) base() string { return r.scheme() + "://" + r.host() }

// Account is that of a user at a registry; the zero value is nobody's.
type Account struct{ Username, Password string }

// Image is what a registry says of an image.
type Image struct {
	Name    string            // user/repository:tag
	Labels  map[string]string // those of WalT
	Created time.Time         // zero if it was not asked
}

// Client reaches registries. The zero value is ready.
type Client struct {
	Proxy func(*http.Request) (*url.URL, error) // nil: those of the environment
	Roots *x509.CertPool                        // nil: those of the system
	// Timeout bounds a request with its answer, and the silence within a layer; default 10 s.
	Timeout time.Duration
}

const maxRedirects = 5

// transport makes requests as a registry wants them.
func (c *Client) transport(r Registry) *guard {
	t := http.DefaultTransport.(*http.Transport).Clone()
	if c.Proxy != nil {
		t.Proxy = c.Proxy
	}
	t.TLSClientConfig = &tls.Config{
		RootCAs:            c.Roots,
		InsecureSkipVerify: !r.isHub() && r.Protocol == "https-no-verify", // the site file asks for it
	}
	t.MaxConnsPerHost = maxParallel
	return &guard{transport: t, host: r.host(), scheme: r.scheme(), timeout: cmp.Or(c.Timeout, requestTimeout)}
}

func boundRedirects(_ *http.Request, before []*http.Request) error {
	if len(before) > maxRedirects {
		return errors.New("cannot follow a redirection: there are too many")
	}
	return nil
}

// isFullName tells whether a text is a name of an image as WalT knows them: user,
// repository, tag (the grammar of the distribution specification, with one level).
func isFullName(full string) bool {
	user, rest, hasUser := strings.Cut(full, "/")
	repository, tag, hasTag := strings.Cut(rest, ":")
	const lower = "abcdefghijklmnopqrstuvwxyz0123456789"
	return hasUser && hasTag && isPart(user, lower, "._-") && isPart(repository, lower, "._-") &&
		isPart(tag, lower+"ABCDEFGHIJKLMNOPQRSTUVWXYZ_", ".-")
}

// isPart tells whether a part of a name begins with one of some characters, and has only
// these and some others.
func isPart(part, first, others string) bool {
	const longest = 128
	return part != "" && len(part) <= longest && strings.Contains(first, part[:1]) && strings.Trim(part, first+others) == ""
}

// Labels of WalT images (server-state §3.2).
const (
	ModelsLabel     = "walt.node.models"
	MinVersionLabel = "walt.server.minversion"
)

// maxLabels bounds the labels of one image, names and values.
const maxLabels = 4 << 10

func isPlain(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' })
}

// waltLabels returns the labels of an image that concern WalT, nil if they are not those
// of a WalT image. What is not plain text is none: they are printed on terminals.
func waltLabels(labels map[string]string) map[string]string {
	if labels[ModelsLabel] == "" {
		return nil
	}
	kept, size := map[string]string{}, 0
	for name, value := range labels {
		if !strings.HasPrefix(name, "walt.") {
			continue
		}
		if size += len(name) + len(value); size > maxLabels || !isPlain(name+value) {
			return nil
		}
		kept[name] = value
	}
	return kept
}
