package core

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waltos/waltos/hcl"
	remote "github.com/waltos/waltos/services/daemon/blocking/registry"
	"github.com/waltos/waltos/services/images"
	"github.com/waltos/waltos/services/wire/credentials"
)

// shops is Registries by label; those not there cannot be reached.
type shops struct {
	mu      sync.Mutex
	images  map[string][]remote.Image
	did     []string
	broken  string        // the label of a registry that gives no image
	entered chan struct{} // if not nil: searches tell that they have begun, and last as long as their caller
}

func (s *shops) do(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.did = append(s.did, fmt.Sprintf(format, args...))
}

func (s *shops) done() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	did := s.did
	s.did = nil
	slices.Sort(did)
	return did
}

var errDown = errors.New("no route to host")

func (s *shops) Login(_ context.Context, r remote.Registry, a remote.Account) error {
	s.do("login %s %s", r.Label, a.Username)
	if a.Password != "secret" {
		return errors.New("refused")
	}
	return nil
}

func (s *shops) Search(ctx context.Context, r remote.Registry, a remote.Account, q remote.Query, found func(remote.Image) error) error {
	s.do("search %s %s", r.Label, a.Username)
	if s.entered != nil {
		s.entered <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	list, there := s.images[r.Label]
	if !there {
		return errDown
	}
	for _, i := range list {
		if strings.Contains(r.Label+":"+i.Name, q.Keyword) {
			if err := found(i); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *shops) Describe(_ context.Context, r remote.Registry, a remote.Account, name string) (remote.Image, error) {
	s.do("describe %s %s %s", r.Label, name, a.Username)
	list, there := s.images[r.Label]
	if !there {
		return remote.Image{}, errDown
	}
	for _, i := range list {
		if i.Name == name {
			return i, nil
		}
	}
	return remote.Image{}, nil
}

func (s *shops) Announce(_ context.Context, r remote.Registry, a remote.Account, user string) error {
	s.do("announce %s %s %s", r.Label, a.Username, user)
	if _, there := s.images[r.Label]; !there {
		return errDown
	}
	return nil
}

func (s *shops) Contents(_ context.Context, r remote.Registry, a remote.Account, name string) (remote.Contents, error) {
	s.do("contents %s %s %s", r.Label, name, a.Username)
	if contains(strings.Fields(s.broken), r.Label) {
		return remote.Contents{}, errDown
	}
	return remote.Contents{Layers: []remote.Layer{{Digest: r.Label, Size: 1}}}, nil
}

func (s *shops) ReadLayer(_ context.Context, r remote.Registry, _ remote.Account, _ string, layer remote.Layer, to io.Writer) error {
	if layer.Digest != r.Label {
		return errors.New("no such layer")
	}
	_, err := io.WriteString(to, strings.Repeat("d", 64))
	return err
}

// person is the user of a client, who has accounts, or types them when he is prompted.
type person struct {
	t        *testing.T
	accounts map[string]string // label to password
	types    map[string]string // what he types when he is prompted
	tty      bool
	prompted []string
}

func (p *person) answer(path string, args []any) any {
	switch path {
	case "has_hook":
		return false
	case "stdout.isatty":
		return p.tty
	case "get_registry_username":
		if _, there := p.accounts[args[0].(string)]; there {
			return "al"
		}
		return nil
	case "prompt_missing_registry_credentials":
		label := args[0].(string)
		if _, there := p.accounts[label]; there {
			return nil // there is a user name
		}
		p.prompted = append(p.prompted, label)
		if password, there := p.types[label]; there {
			p.accounts[label] = password
		}
		return nil
	case "get_registry_encrypted_credentials":
		password := p.accounts[args[0].(string)]
		if password == "" {
			return nil
		}
		sealed, err := credentials.Seal(args[1].(*big.Int), "al", password)
		if err != nil {
			p.t.Error(err)
		}
		return sealed
	}
	p.t.Errorf("callback %s%v", path, args)
	return nil
}

// market starts a platform with registries and a user.
func market(t *testing.T, registries []string, s *shops, more ...func(*Config)) (*platform, *user, *person) {
	p := start(t, func(c *Config) {
		c.Registries = s
		c.Site.Registries = nil
		for _, label := range registries {
			r := &hcl.Registry{Label: label, API: "docker-registry-v2", Host: label + ".example", Port: 443, Protocol: "https", Auth: "basic"}
			switch label {
			case "hub":
				r = &hcl.Registry{Label: label, API: "docker-hub"}
			case "open":
				r.Auth = "none"
			}
			c.Site.Registries = append(c.Site.Registries, r)
		}
		for _, change := range more {
			change(c)
		}
	})
	who := &person{t: t, accounts: map[string]string{}, types: map[string]string{}}
	u := newUser("alice")
	u.hooks = who.answer
	return p, u, who
}

func ofModel(name, models string) remote.Image {
	return remote.Image{Name: name, Labels: map[string]string{remote.ModelsLabel: models}}
}

func (p *platform) expectCall(t *testing.T, u *user, result, said, name string, args ...any) {
	t.Helper()
	got, err := p.do(t, u, name, args...)
	if err != nil || show(got) != result {
		t.Errorf("%s%v: %s, %v, want %s", name, args, show(got), err, result)
	}
	if text := u.said(); text != said {
		t.Errorf("%s%v says\n%s\nwant\n%s", name, args, text, said)
	}
}

func expectList(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

func TestSearchImages(t *testing.T) {
	newer := ofModel("dave/new:latest", "rpi-b")
	newer.Labels[remote.MinVersionLabel] = "11"
	fitting := ofModel("dave/old:latest", "rpi-b")
	fitting.Labels[remote.MinVersionLabel] = "10"
	odd := ofModel("dave/odd:latest", "rpi-b")
	odd.Labels[remote.MinVersionLabel] = "next"
	s := &shops{images: map[string][]remote.Image{
		"hub":  {newer, ofModel("carol/tool:v2", "pc-x86-64, pc-x86-32")},
		"open": {fitting, odd},
	}}
	p, u, who := market(t, []string{"open", "hub", "down"}, s)
	who.accounts = map[string]string{"hub": "secret", "down": "secret"}
	p.shelf.images = append(p.shelf.images, images.Image{ID: strings.Repeat("c", 64), Names: []string{"alice/own:latest", "walt/work:latest"}, Models: []string{"rpi-b"}})
	const ignored = "err:Ignoring down registry because of a communication failure.\n"
	const table = `out:User          Image name         Location           Compatibility   Clonable link                      
------------  -----------------  -----------------  --------------  -----------------------------------
bob           tool:v2            walt (other user)  rpi-b[-plus]    walt:bob/tool:v2                   
waltplatform  pc-x86-64-default  walt (other user)  pc-x86-64       walt:waltplatform/pc-x86-64-default
waltplatform  rpi-b-default      walt (other user)  rpi-b[-plus]    walt:waltplatform/rpi-b-default    
dave          odd                custom registry    rpi-b           open:dave/odd                      
dave          old                custom registry    rpi-b           open:dave/old                      
carol         tool:v2            docker hub         pc-x86-[64|32]  hub:carol/tool:v2                  
dave          new                docker hub         rpi-b           [Need server upgrade, version>=11] 
`
	p.expectCall(t, u, "true", ignored+table, "search_images", nil)
	expectList(t, "work", s.done(), "login hub al", "search down al", "search hub al", "search open ")
	p.expectCall(t, u, "true", ignored+"err:Sorry, no image could match your request.\n", "search_images", "nothing like that")

	// In a terminal, each is counted.
	who.tty = true
	p.do(t, u, "search_images", "dave")
	if text := u.said(); !strings.Contains(strings.ReplaceAll(text, ignored, ""), "out:1 matches\rout:2 matches\rout:3 matches\r") {
		t.Errorf("in a terminal it says %q", text)
	}
	s.done()

	// An account that is refused is not used.
	who.tty, who.accounts["hub"] = false, "wrong"
	p.do(t, u, "search_images", "carol", false)
	if text := u.said(); !strings.Contains(text, "out:Sorry, hub registry login FAILED.\n") || !strings.Contains(text, "hub:carol/tool:v2") {
		t.Errorf("with a wrong password it says %q", text)
	}
	expectList(t, "work", s.done(), "login hub al", "search down al", "search hub ", "search open ")
}

func TestCN28MissingAccounts(t *testing.T) {
	s := &shops{images: map[string][]remote.Image{"hub": {ofModel("carol/tool:latest", "rpi-b")}, "own": {}}}
	p, u, who := market(t, []string{"hub", "own"}, s)
	for _, c := range []struct {
		name     string
		accounts map[string]string
		types    map[string]string
		result   string
		said     string // begins with
		prompted []string
	}{
		{"all there", map[string]string{"hub": "secret", "own": "secret"}, nil, "true", "out:User ", nil},
		{"typed", map[string]string{}, map[string]string{"hub": "secret", "own": "secret"}, "true", "out:User ", []string{"hub", "own"}},
		{"nothing typed", map[string]string{}, nil, "false", "out:Sorry, hub registry login FAILED.\n", []string{"hub"}},
		{"only the password is missing", map[string]string{"hub": ""}, nil, "false", "out:Sorry, hub registry login FAILED.\n", nil},
		{"typed for one", map[string]string{}, map[string]string{"hub": "secret"}, "false", "out:Sorry, own registry login FAILED.\n", []string{"hub", "own"}},
	} {
		who.accounts, who.types, who.prompted = c.accounts, c.types, nil
		result, err := p.do(t, u, "search_images", "carol")
		said := u.said()
		if err != nil || show(result) != c.result || !strings.HasPrefix(said, c.said) || !slices.Equal(who.prompted, c.prompted) {
			t.Errorf("%s: %v, %v, %q, prompted for %q", c.name, result, err, said, who.prompted)
		}
	}
}

// TestSearchEndsWithItsClient: nobody goes on searching for one who has left.
func TestSearchEndsWithItsClient(t *testing.T) {
	s := &shops{entered: make(chan struct{}, 2)}
	p, u, _ := market(t, []string{"open"}, s)
	u.hooks = func(string, []any) any { return false }
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-s.entered
		cancel()
	}()
	result, err := p.serve(ctx, &call{client: u, api: "CSAPI"}, "search_images", nil, nil)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, %v", result, err)
	}
}

func TestUpdateHubMetadata(t *testing.T) {
	s := &shops{images: map[string][]remote.Image{"hub": nil}}
	p, u, who := market(t, []string{"hub"}, s)
	who.types["hub"] = "secret"
	p.expectCall(t, u, "true", "", "update_hub_metadata", false)
	expectList(t, "prompts", who.prompted, "hub")
	expectList(t, "work", s.done(), "announce hub al al", "login hub al")
	p.expectCall(t, u, "true", "", "update_hub_metadata", true)
	expectList(t, "work", s.done(), "announce hub al waltplatform", "login hub al")
	who.accounts["hub"] = "wrong"
	p.expectCall(t, u, "false", "out:Sorry, hub registry login FAILED.\n", "update_hub_metadata", true)
	who.accounts["hub"] = ""
	p.expectCall(t, u, "false", "out:Sorry, hub registry login FAILED.\n", "update_hub_metadata", false)
	who.accounts, who.types = map[string]string{}, nil
	p.expectCall(t, u, "None", "", "update_hub_metadata", false) // he has left the prompt
	s.done()
	who.accounts = map[string]string{"hub": "secret"}
	delete(s.images, "hub")
	p.expectCall(t, u, "false", "err:Failed to communicate with hub registry. Aborted.\n", "update_hub_metadata", false)
	p, u, _ = market(t, []string{"open"}, s)
	p.expectCall(t, u, "false", "err:Failed to communicate with hub registry. Aborted.\n", "update_hub_metadata", true)
}

func TestUpdateDefaultImages(t *testing.T) {
	const pc, rpi = "waltplatform/pc-x86-64-default:latest", "waltplatform/rpi-b-default:latest"
	at := func(name string, year int) remote.Image {
		i := ofModel(name, "pc-x86-64")
		i.Created = time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC)
		return i
	}
	s := &shops{images: map[string][]remote.Image{"hub": {at(pc, 2030), at(rpi, 2000)}, "own": {at(pc, 2031)}}}
	p, u, who := market(t, []string{"hub", "own", "down"}, s)
	p.populate(t)
	who.types = map[string]string{"own": "secret", "down": "secret"}
	const begin = "out:Checking remote registries...\nerr:Ignoring down registry because of a communication failure.\n"

	// The newest cannot be had, the next can; the node that boots it is rebooted.
	s.broken = "own"
	p.expectCall(t, u, "None", begin+"out:Updating "+pc+" using a newer version from own...\n"+
		"out:Updating "+pc+" using a newer version from hub...\n"+
		"out:Trying to reboot node pc using this image...\n"+
		"err:Node pc: failed soft-reboot (no such node) and poe-reboot (unknown lldp network position)\n", "update_default_images")
	expectList(t, "prompts", who.prompted, "own", "down")
	if i, _ := p.shelf.ByName(pc); i.ID != strings.Repeat("d", 64) {
		t.Errorf("the image is %+v", i)
	}
	if !p.store.images[pc] {
		t.Error("the database does not know the image")
	}

	// Nobody can give it.
	s.images["hub"] = nil
	p.expectCall(t, u, "None", begin+"out:Updating "+pc+" using a newer version from own...\n"+
		"err:Failed to download "+pc+" from registry 'own'.\n", "update_default_images")

	// Nothing is newer.
	s.images["own"] = []remote.Image{at(pc, 2020), {}}
	p.expectCall(t, u, "None", begin+"out:No updates available.\n", "update_default_images")

	// No account.
	who.accounts, who.types = map[string]string{}, nil
	p.expectCall(t, u, "None", "out:Sorry, own registry login FAILED.\n", "update_default_images")
}
