package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/waltos/waltos/services/wire/client"
	"github.com/waltos/waltos/services/wire/pickle"
	"github.com/waltos/waltos/tests/native"
)

// user is one session of the protocol, with what it was told.
type user struct {
	*client.Session
	name string
	said strings.Builder
}

func (p *platform) user(ctx context.Context, name string) (*user, error) {
	u := &user{name: name}
	var err error
	u.Session, err = client.Dial(ctx, native.API, client.Options{Handler: (&client.User{Name: name, Out: &u.said, Err: &u.said}).Serve})
	return u, err
}

// ask makes a call, and returns its result and what it printed.
func (u *user) ask(ctx context.Context, method string, args ...any) (result any, printed string, err error) {
	u.said.Reset()
	result, err = u.Call(ctx, method, args...)
	if err != nil {
		err = fmt.Errorf("%s, %s%q: %w", u.name, method, args, err)
	}
	return result, u.said.String(), err
}

// oneOf checks that a text is one of those that may be.
func oneOf(what, got string, allowed ...string) error {
	if slices.Contains(allowed, got) {
		return nil
	}
	return fmt.Errorf("%s: %q is none of %q", what, got, allowed)
}

// sessions and real clients of TestParallelUsers, and how often each does all.
const sessions, realClients, rounds = 20, 4, 5

// TestParallelUsers lets many users do conflicting things at the same time, and looks for
// the guarantees of server-state 5.5: what a call changed is seen by every later call (4),
// what it printed comes before its result and in order (2), logs keep their order and a
// history has all that was received before it was asked (5); and nothing is half done.
func TestParallelUsers(t *testing.T) {
	p := startPlatform(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*limit)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	for i := range sessions {
		group.Go(func() error { return p.session(ctx, i) })
	}
	for i := range realClients {
		group.Go(func() error { return p.realClient(ctx, t, i) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	p.inTheEnd(t)
}

// session is what one user does, again and again.
func (p *platform) session(ctx context.Context, i int) error {
	name := fmt.Sprintf("user%d", i)
	u, err := p.user(ctx, name)
	if err != nil {
		return err
	}
	defer u.Close()
	other, err := p.user(ctx, name)
	if err != nil {
		return err
	}
	defer other.Close()
	for round := range rounds {
		for _, do := range []func(ctx context.Context, u, other *user, i, round int) error{
			p.settings, p.rename, p.image, p.checkpoints, p.logs,
		} {
			if err := do(ctx, u, other, i, round); err != nil {
				return err
			}
		}
	}
	return nil
}

// settings: all users write the same two settings of the same node; both always have the
// values of one call.
func (p *platform) settings(ctx context.Context, u, other *user, i, _ int) error {
	value := i + 2
	_, printed, err := u.ask(ctx, "set_device_config", "n1", pickle.Tuple{fmt.Sprintf("boot.retries=%d", value), fmt.Sprintf("boot.timeout=%d", 100+value)})
	if err != nil {
		return err
	}
	if err := oneOf("set_device_config prints", printed, "Done.\n"); err != nil {
		return err
	}
	_, printed, err = other.ask(ctx, "get_device_config", "n1")
	if err != nil {
		return err
	}
	var retries, timeout int
	for line := range strings.Lines(printed) {
		fmt.Sscanf(line, "boot.retries=%d", &retries)
		fmt.Sscanf(line, "boot.timeout=%d", &timeout)
	}
	if retries < 2 || timeout != 100+retries {
		return fmt.Errorf("the settings of two calls are mixed: %d retries and a limit of %d s", retries, timeout)
	}
	return nil
}

// rename: all users want the same name for n2, and give it back. One has it at a time.
func (p *platform) rename(ctx context.Context, u, other *user, _, _ int) error {
	done, printed, err := u.ask(ctx, "rename", "n2", "wanted")
	if err != nil {
		return err
	}
	if done != true {
		return oneOf("rename prints", printed,
			"No device with name 'n2' found.\n", "Failed: a device with name 'wanted' already exists.\n")
	}
	if ip, _, err := other.ask(ctx, "get_device_ip", "wanted"); err != nil || ip != "192.168.152.12" {
		return fmt.Errorf("after rename, another session finds %v, %w", ip, err)
	}
	if done, printed, err = other.ask(ctx, "rename", "wanted", "n2"); err != nil || done != true {
		return fmt.Errorf("a name is not given back: %v, %q, %w", done, printed, err)
	}
	return nil
}

// image: each user takes vn1 with an image of his own.
func (p *platform) image(ctx context.Context, u, other *user, i, round int) error {
	mine := fmt.Sprintf("image-%d-%d", i, round)
	if _, _, err := u.ask(ctx, "get_clones_of_default_images", "vn1"); err != nil {
		return err
	}
	if done, printed, err := u.ask(ctx, "duplicate_image", "pc-x86-64-default", mine); err != nil || done != true {
		return fmt.Errorf("duplicate_image: %v, %q, %w", done, printed, err)
	}
	if found, _, err := other.ask(ctx, "has_image", mine, false); err != nil || found != true {
		return fmt.Errorf("the image just made is not found: %v, %w", found, err)
	}
	done, printed, err := u.ask(ctx, "set_image", "vn1", mine)
	if err != nil || done != true {
		return fmt.Errorf("set_image: %v, %q, %w", done, printed, err)
	}
	if err := oneOf("set_image prints", printed, "Node vn1 will now boot "+mine+".\n"); err != nil {
		return err
	}
	_, printed, err = u.ask(ctx, "remove_image", mine)
	if err != nil {
		return err
	}
	// Until somebody else takes the node, the image is in use.
	return oneOf("remove_image prints", printed, "", "Sorry, cannot proceed because the image is in use.\n")
}

// checkpoints: those of one user concern no other, and two sessions of one user agree.
func (p *platform) checkpoints(ctx context.Context, u, other *user, _, _ int) error {
	if _, printed, err := u.ask(ctx, "add_checkpoint", "same", 1.6e9); err != nil || !strings.HasPrefix(printed, "New checkpoint same recorded") {
		return fmt.Errorf("add_checkpoint prints %q, %w", printed, err)
	}
	if at, printed, err := other.ask(ctx, "get_checkpoint_time", "same"); err != nil || at != 1.6e9 {
		return fmt.Errorf("the checkpoint is at %v, %q, %w", at, printed, err)
	}
	if _, printed, err := other.ask(ctx, "remove_checkpoint", "same"); err != nil || printed != "Done.\n" {
		return fmt.Errorf("remove_checkpoint prints %q, %w", printed, err)
	}
	_, printed, err := u.ask(ctx, "list_checkpoints")
	return errors.Join(err, oneOf("list_checkpoints prints", printed, "You own no checkpoints.\n"))
}

// logs: a history asked after lines were received has them all, in order.
func (p *platform) logs(ctx context.Context, _, _ *user, i, round int) error {
	stream := fmt.Sprintf("parallel.%d.%d", i, round)
	var lines []string
	for n := range 100 {
		lines = append(lines, fmt.Sprintf("line %d", n))
	}
	if err := native.Log(ctx, "192.168.152.11", stream, lines...); err != nil {
		return err
	}
	var got []string
	err := client.DumpLogs(ctx, native.Streams, client.LogQuery{History: true, Issuers: []string{"n1"}, Streams: "^" + stream + "$"},
		func(r client.Record) error {
			got = append(got, r.Line)
			return nil
		})
	if err != nil || !slices.Equal(got, lines) {
		return fmt.Errorf("of stream %s the history has %q, %w", stream, got, err)
	}
	return nil
}

// realClient is the walt command of another user, who looks at what the others do.
func (p *platform) realClient(ctx context.Context, t *testing.T, i int) error {
	for range rounds {
		for _, command := range []string{"walt node show --all", "walt image show", "walt node config n1", "walt device show"} {
			if err := ctx.Err(); err != nil {
				return err
			}
			r, err := p.run(t, fmt.Sprintf("real%d", i), "", strings.Fields(command)...)
			if err != nil || r.code != 0 || r.err != "" || r.out == "" {
				return fmt.Errorf("%s: %+v, %w", command, r, err)
			}
		}
	}
	return nil
}

// inTheEnd looks at what is left.
func (p *platform) inTheEnd(t *testing.T) {
	t.Helper()
	for _, check := range []struct {
		method string
		args   []any
		want   any
	}{
		{"develop_device_set", []any{"all-devices"}, "n1,n2,n3,switch1,unknown-000006,vn1,walt-server"},
		{"get_device_ip", []any{"n2"}, "192.168.152.12"},
	} {
		if got, err := p.Call("bob", check.method, check.args...); err != nil || got != check.want {
			t.Errorf("%s: %v, %v", check.method, got, err)
		}
	}
}
