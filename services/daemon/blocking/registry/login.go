package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// A registry that cannot be reached is tried again to log in.
const (
	tries      = 3
	retryPause = time.Second
)

// errRefused is what a registry says to a wrong account.
var errRefused = errors.New("the registry does not accept the user name or the password")

// Login tries an account at a registry. A registry that cannot be reached is tried again.
func (c *Client) Login(ctx context.Context, r Registry, a Account) error {
	transport := c.transport(r)
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: boundRedirects}
	var err error
	for try := range tries {
		if try > 0 {
			select {
			case <-time.After(retryPause):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err = r.login(ctx, client, a); err == nil || errors.Is(err, errRefused) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("cannot log in at %s: %w", r.base(), err)
	}
	return nil
}

func (r Registry) login(ctx context.Context, client *http.Client, a Account) error {
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
	account := func(request *http.Request) { request.SetBasicAuth(a.Username, a.Password) }
	scheme, parameters := parseChallenge(challenge)
	switch scheme {
	case "basic":
	case "bearer":
		if root, err = tokenURL(parameters, r.base(), a.Username); err != nil {
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
	body, err := io.ReadAll(answer.Body)
	switch {
	case err != nil:
		return 0, "", err
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
