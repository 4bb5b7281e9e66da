// Package registry speaks with registries of container images, by the HTTP API that the
// Docker Hub and all others have (OCI distribution specification 1.1; Docker Registry v2
// authentication). It is used by server-blocking: registries are strangers, which may be
// slow, gone or hostile, so that all that they say is bounded, in size and time.
//
// What it does so far is to try an account.
package registry

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/waltos/waltos/hcl"
)

const (
	requestTimeout = 10 * time.Second
	tries          = 3
	retryPause     = time.Second
	maxAnswer      = 1 << 20
	maxRedirects   = 5
)

// dockerHub is the address of the API of the Docker Hub.
const dockerHub = "https://registry-1.docker.io"

// Registry is one registry of the site file, which is complete.
type Registry struct {
	API, Host, Protocol string
	Port                int
}

// Of returns a registry as the site file describes it.
func Of(r *hcl.Registry) Registry {
	return Registry{API: r.API, Host: r.Host, Protocol: r.Protocol, Port: r.Port}
}

// base is the address of the API, without a path.
func (r Registry) base() string {
	if r.API == "docker-hub" {
		return dockerHub
	}
	scheme := "https"
	if r.Protocol == "http" {
		scheme = "http"
	}
	return scheme + "://" + net.JoinHostPort(r.Host, strconv.Itoa(r.Port))
}

// client makes requests as the registry wants them. A password goes to no other scheme
// than that of the registry.
func (r Registry) client() (*http.Client, func()) {
	transport := http.DefaultTransport.(*http.Transport).Clone() // with the proxies of the environment
	if r.Protocol == "https-no-verify" {
		transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} // the site file asks for it
	}
	return &http.Client{
		Transport: transport,
		Timeout:   requestTimeout,
		CheckRedirect: func(next *http.Request, before []*http.Request) error {
			if len(before) > maxRedirects || next.URL.Scheme != before[0].URL.Scheme {
				return errors.New("cannot follow a redirection: there are too many, or it changes the scheme")
			}
			return nil
		},
	}, transport.CloseIdleConnections
}

// errRefused is what a registry says to a wrong account.
var errRefused = errors.New("the registry does not accept the user name or the password")

// Login tries an account at a registry. A registry that cannot be reached is tried again.
func Login(ctx context.Context, r Registry, username, password string) error {
	client, end := r.client()
	defer end()
	var err error
	for try := range tries {
		if try > 0 {
			select {
			case <-time.After(retryPause):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err = r.login(ctx, client, username, password); err == nil || errors.Is(err, errRefused) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("cannot log in at %s: %w", r.base(), err)
	}
	return nil
}

func (r Registry) login(ctx context.Context, client *http.Client, username, password string) error {
	root := r.base() + "/v2/"
	status, challenge, err := get(ctx, client, root, nil)
	switch {
	case err != nil:
		return err
	case status == http.StatusOK:
		return nil // nobody needs an account there
	case status != http.StatusUnauthorized:
		return fmt.Errorf("the registry answers with status %d", status)
	}
	account := func(request *http.Request) { request.SetBasicAuth(username, password) }
	scheme, parameters := parseChallenge(challenge)
	switch scheme {
	case "basic":
	case "bearer":
		if root, err = tokenURL(parameters, r.base(), username); err != nil {
			return err
		}
	default:
		return fmt.Errorf("the registry asks for authentication %.40q, which is not known", scheme)
	}
	status, _, err = get(ctx, client, root, account)
	switch {
	case err != nil:
		return err
	case status == http.StatusOK:
		return nil
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return errRefused
	}
	return fmt.Errorf("the registry answers with status %d", status)
}

// get makes a request and returns its status and its challenge. What else is answered
// must be JSON, as of a registry: a portal that answers everything is none.
func get(ctx context.Context, client *http.Client, address string, with func(*http.Request)) (status int, challenge string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return 0, "", err
	}
	if with != nil {
		with(request)
	}
	answer, err := client.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	switch {
	case err != nil:
		return 0, "", err
	case len(body) > maxAnswer:
		return 0, "", errors.New("the registry answers with more than can be meant")
	case answer.StatusCode == http.StatusOK && len(body) > 0 && !json.Valid(body):
		return 0, "", errors.New("what answers is no registry")
	}
	return answer.StatusCode, answer.Header.Get("WWW-Authenticate"), nil
}

// tokenURL is where a token is given to the account. It must be as safe as the registry.
func tokenURL(parameters map[string]string, base, username string) (string, error) {
	realm, err := url.Parse(parameters["realm"])
	if err != nil || realm.Host == "" || realm.Scheme != "https" && !strings.HasPrefix(base, "http://") {
		return "", fmt.Errorf("the registry sends users to %.100q, which is not safe", parameters["realm"])
	}
	query := realm.Query()
	query.Set("account", username)
	if service := parameters["service"]; service != "" {
		query.Set("service", service)
	}
	realm.RawQuery = query.Encode()
	return realm.String(), nil
}

// parseChallenge reads the header WWW-Authenticate (RFC 9110, section 11.6.1) with one
// challenge; its scheme and names are made lower case.
func parseChallenge(header string) (scheme string, parameters map[string]string) {
	scheme, rest, _ := strings.Cut(strings.TrimSpace(header), " ")
	parameters = map[string]string{}
	for rest = strings.TrimLeft(rest, " ,"); rest != ""; rest = strings.TrimLeft(rest, " ,") {
		name, after, found := strings.Cut(rest, "=")
		if !found {
			break
		}
		var value string
		if quoted, isQuoted := strings.CutPrefix(after, `"`); isQuoted {
			value, rest, _ = strings.Cut(quoted, `"`)
		} else {
			value, rest, _ = strings.Cut(after, ",")
		}
		parameters[strings.ToLower(strings.TrimSpace(name))] = value
	}
	return strings.ToLower(scheme), parameters
}
