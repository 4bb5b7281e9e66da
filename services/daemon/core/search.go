package core

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/waltos/waltos/hcl"
	remote "github.com/waltos/waltos/services/daemon/blocking/registry"
	"github.com/waltos/waltos/services/daemon/core/registry"
	"github.com/waltos/waltos/services/daemon/core/text"
)

// serverVersion is the version of WalT that the labels of images refer to.
const serverVersion = 10

// searchTitles are those of the table that a search ends with.
var searchTitles = []string{"User", "Image name", "Location", "Compatibility", "Clonable link"}

// searchImages lists the images that are not the user's, on this server and at the
// registries (client-api §2.10.6). The server has no Docker daemon, hence none of its
// images.
//
// All registries are searched at the same time. What 10.0 prints in the order of arrival
// is sorted here: by place, then by name.
func (c *call) searchImages() (any, error) {
	user, err := c.user()
	if err != nil {
		return c.fail(err, false)
	}
	counting, asked := c.value("tty_mode").(bool)
	if !asked {
		answer, err := c.client.Callback(c, "stdout.isatty")
		if err != nil {
			return nil, err
		}
		counting, _ = answer.(bool)
	}
	accounts, done, err := c.accountsAt(needsAccount)
	if !done {
		return false, err
	}
	s := &search{call: c, counting: counting, keyword: c.text("keyword")}
	s.here(user)
	if err := s.everywhere(accounts); err != nil {
		return nil, err
	}
	rows := s.rows()
	if len(rows) == 0 {
		return c.fail(&text.Refusal{Text: text.NoImageMatches}, true)
	}
	c.out(text.List(searchTitles, rows) + "\n")
	return true, nil
}

// search is a search that goes on.
type search struct {
	*call
	keyword  string
	counting bool // tell the client how many are found

	mu    sync.Mutex // also for the output of the client
	found []foundImage
}

// foundImage is a row of the table.
type foundImage struct {
	place int // of the location among all
	name  string
	cells []any
}

// here finds the images of other users on this server.
func (s *search) here(user string) {
	for _, stored := range s.Images.List() {
		for _, full := range stored.Names {
			i := newImage(stored, full)
			if i != nil && i.User != user && strings.Contains(i.link(), s.keyword) {
				s.add(-1, "walt", remote.Image{Name: full, Labels: stored.Labels}, i.Models)
			}
		}
	}
}

// everywhere searches all registries. The error is that of the call.
func (s *search) everywhere(accounts map[string]remote.Account) error {
	var all sync.WaitGroup
	for place, r := range s.Site.Registries {
		all.Go(func() {
			if err := s.at(place, r, accounts[r.Label]); err != nil && s.Err() == nil {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.ignored(r.Label, err)
			}
		})
	}
	all.Wait()
	return s.Err()
}

// at searches one registry. At the hub a login only helps against the limits that those
// who have none are under.
func (s *search) at(place int, r *hcl.Registry, account remote.Account) error {
	if r.Label == hubLabel {
		if err := s.Registries.Login(s, remote.Of(r), account); err != nil {
			if s.Err() != nil {
				return err
			}
			s.mu.Lock()
			s.loginFailed(r.Label, err)
			s.mu.Unlock()
			account = remote.Account{}
		}
	}
	return s.Registries.Search(s, remote.Of(r), account, remote.Query{Keyword: s.keyword}, func(i remote.Image) error {
		s.add(place, r.Label, i, models(i.Labels[remote.ModelsLabel]))
		return context.Cause(s)
	})
}

// models splits the label that names them.
func models(label string) []string {
	list := strings.Split(label, ",")
	for i := range list {
		list[i] = strings.TrimSpace(list[i])
	}
	return slices.DeleteFunc(list, func(model string) bool { return model == "" })
}

// ignored is R6.
func (c *call) ignored(label string, err error) {
	c.Print("registry %s: %v", label, err)
	c.err(fmt.Sprintf("Ignoring %s registry because of a communication failure.\n", label))
}

// add adds a row.
func (s *search) add(place int, location string, i remote.Image, models []string) {
	user, name := registry.SplitImageName(i.Name)
	row := []any{user, name, locationText(location), text.CompactModels(models), clonable(location, user, name, i.Labels)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.found = append(s.found, foundImage{place, i.Name, row})
	if s.counting {
		s.out(fmt.Sprintf("%d matches\r", len(s.found)))
	}
}

func (s *search) rows() (rows [][]any) {
	slices.SortFunc(s.found, func(a, b foundImage) int {
		if a.place != b.place {
			return a.place - b.place
		}
		return strings.Compare(a.name, b.name)
	})
	for _, f := range s.found {
		rows = append(rows, f.cells)
	}
	return rows
}

func locationText(location string) string {
	switch location {
	case "walt":
		return "walt (other user)"
	case hubLabel:
		return "docker hub"
	}
	return "custom registry"
}

// clonable is the link that an image can be cloned by, or why it cannot.
func clonable(location, user, name string, labels map[string]string) string {
	if needed, err := strconv.Atoi(strings.TrimSpace(labels[remote.MinVersionLabel])); err == nil && needed > serverVersion {
		return fmt.Sprintf("[Need server upgrade, version>=%d]", needed)
	}
	return location + ":" + user + "/" + name
}
