package hub

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/waltos/waltos/services/daemon/session"
	"github.com/waltos/waltos/services/wire/client"
	"github.com/waltos/waltos/services/wire/pickle"
	"github.com/waltos/waltos/services/wire/rpc"
)

// parallel runs f for so many users at once, each with a session of his own whose output
// is gathered.
func (p *platform) parallel(users int, f func(user int, s *client.Session, out *strings.Builder) error) {
	p.t.Helper()
	var group errgroup.Group
	for i := range users {
		var out strings.Builder
		s := p.dial(client.Options{Handler: (&client.User{Name: fmt.Sprint("user", i), Out: &out}).Serve})
		group.Go(func() error { return f(i, s, &out) })
	}
	if err := group.Wait(); err != nil {
		p.t.Error(err)
	}
}

// TestGuarantees are those of server-state 5.5 that hub and session give, with many users
// at once; numbers are those of its table.
func TestGuarantees(t *testing.T) {
	const users, rounds = 16, 20
	t.Run("1 calls start in the order sent", func(t *testing.T) {
		var mu sync.Mutex
		started := map[uint64][]int64{}
		p := start(t, Open, methods{"note": func(_ context.Context, s *session.Session, args pickle.Tuple) (any, error) {
			mu.Lock()
			defer mu.Unlock()
			started[s.ID] = append(started[s.ID], args[0].(int64))
			return nil, nil
		}})
		p.parallel(users, func(int, *client.Session, *strings.Builder) error {
			text := "10\nCSAPI\n"
			for i := range rounds {
				text += fmt.Sprintf("('API_CALL', 'note', (%d,), {})\n", i)
			}
			p.talk(text, "10.0\n"+strings.Repeat("('RESULT', None)\n", rounds))
			return nil
		})
		if len(started) != users {
			t.Errorf("%d sessions", len(started))
		}
		for id, order := range started {
			for i, n := range order {
				if n != int64(i) {
					t.Fatalf("session %d: calls started in the order %v", id, order)
				}
			}
		}
	})
	t.Run("2 output comes before the result, in order", func(t *testing.T) {
		p := start(t, Open, methods{"say": func(ctx context.Context, s *session.Session, args pickle.Tuple) (any, error) {
			for i := range rounds {
				if _, err := s.Callback(ctx, "stdout.write", fmt.Sprintf("%v.%d ", args[0], i)); err != nil {
					return nil, err
				}
			}
			return nil, nil
		}})
		p.parallel(users, func(user int, s *client.Session, out *strings.Builder) error {
			want := ""
			for call := range rounds {
				if _, err := s.Call(t.Context(), "say", call); err != nil {
					return err
				}
				for i := range rounds {
					want += fmt.Sprintf("%d.%d ", call, i)
				}
				if out.String() != want {
					return fmt.Errorf("user %d has %q after call %d", user, out.String(), call)
				}
			}
			return nil
		})
	})
	t.Run("3 CN-06 defect 8: each of several tasks gets its own answers", func(t *testing.T) {
		p := start(t, Open, methods{"ask": func(ctx context.Context, s *session.Session, _ pickle.Tuple) (any, error) {
			var tasks errgroup.Group
			for task := range 4 {
				tasks.Go(func() error {
					for i := range rounds {
						label := fmt.Sprint(s.ID, task, i)
						if answer, err := s.Callback(ctx, "get_registry_username", label); err != nil || answer != "of "+label {
							return fmt.Errorf("%s is answered %v, %v", label, answer, err)
						}
					}
					return nil
				})
			}
			return nil, tasks.Wait()
		}})
		var group errgroup.Group
		for range users {
			user := &client.User{Other: func(_ context.Context, _ *client.Session, _ string, args pickle.Tuple, _ *pickle.Dict) (any, error) {
				return "of " + args[0].(string), nil
			}}
			s := p.dial(client.Options{Handler: user.Serve})
			group.Go(func() error {
				_, err := s.Call(t.Context(), "ask")
				return err
			})
		}
		if err := group.Wait(); err != nil {
			t.Error(err)
		}
	})
	t.Run("10 sessions interleave at a callback", func(t *testing.T) {
		p := start(t, Open, methods{
			"ask": func(ctx context.Context, s *session.Session, _ pickle.Tuple) (any, error) {
				return s.Callback(ctx, "get_username")
			},
			"get_time": func(context.Context, *session.Session, pickle.Tuple) (any, error) { return 7, nil },
		})
		other := p.dial(client.Options{})
		s := p.dial(client.Options{Handler: func(ctx context.Context, _ *client.Session, _ string, _ pickle.Tuple, _ *pickle.Dict) (any, error) {
			return other.Call(ctx, "get_time")
		}})
		if v, err := s.Call(t.Context(), "ask"); v != int64(7) || err != nil {
			t.Errorf("got %v, %v", v, err)
		}
	})
}

// CN-01: a line is a literal, whatever it looks like.
func TestCN01LinesAreNotEvaluated(t *testing.T) {
	p := start(t, Open, methods{"echo": func(_ context.Context, _ *session.Session, args pickle.Tuple) (any, error) { return args[0], nil }})
	for _, expression := range []string{
		"__import__('os').getpid()", "1+1", "[i for i in (1,)]", "(lambda: 1)()", "open('/etc/passwd').read()", "f'{1}'", "exit", "1 if 1 else 2",
	} {
		if got := p.talk("10\nCSAPI\n('API_CALL', 'echo', ("+expression+",), {})\n", ""); got != "10.0\n" {
			t.Errorf("%s: got %q", expression, got)
		}
	}
}

// Defect 1 of node-protocols 9.1: what a node sends runs nothing here, in either mode.
func TestDefectN1NothingRuns(t *testing.T) {
	p := start(t, Open, methods{"sync_clock": func(context.Context, *session.Session, pickle.Tuple) (any, error) { return 7, nil }})
	trace := filepath.Join(t.TempDir(), "trace")
	code := "__import__('os').system('touch " + trace + "')"
	command := "touch " + trace
	for name, data := range map[string]string{
		"line":       "10\nNSAPI\n" + code + "\n",
		"argument":   "10\nNSAPI\n('API_CALL', 'sync_clock', (" + code + ",), {})\n",
		"mode":       "10\nNSAPI\n('SET_MODE', " + code + ")\n",
		"pickle":     "10\nNSAPI\n('SET_MODE', 'pickle4')\n\x80\x04cposix\nsystem\n(X" + string([]byte{byte(len(command)), 0, 0, 0}) + command + "tR.",
		"extension":  "10\nNSAPI\n('SET_MODE', 'pickle4')\n\x80\x04\x82\x01.",
		"persistent": "10\nNSAPI\n('SET_MODE', 'pickle4')\n\x80\x04P" + code + "\n.",
	} {
		if got := p.talk(data, ""); got != "10.0\n" {
			t.Errorf("%s: got %q", name, got)
		}
	}
	if _, err := os.Stat(trace); err == nil {
		t.Error("something ran")
	}
}

// CN-05, and defects 1 and 8: whatever fails is told, and concerns nobody else.
func TestCN05EveryFailureIsAnException(t *testing.T) {
	p := start(t, Open, methods{
		"fail": func(context.Context, *session.Session, pickle.Tuple) (any, error) {
			return nil, errors.New("cannot: no")
		},
		"panic":      func(context.Context, *session.Session, pickle.Tuple) (any, error) { panic("oops") },
		"unsendable": func(context.Context, *session.Session, pickle.Tuple) (any, error) { return struct{}{}, nil },
		"too long": func(context.Context, *session.Session, pickle.Tuple) (any, error) {
			return strings.Repeat("x", 17<<20), nil
		},
		"wait": func(ctx context.Context, _ *session.Session, _ pickle.Tuple) (any, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
	})
	bystander := make(chan error, 1)
	go func() {
		_, err := p.dial(client.Options{}).Call(t.Context(), "wait")
		bystander <- err
	}()
	s := p.dial(client.Options{})
	for name, want := range map[string]string{
		"fail": "cannot: no", "panic": "internal error in", "unsendable": "no Python form", "too long": "longer than",
		"__class__": "unknown method", "": "unknown method",
	} {
		_, err := s.Call(t.Context(), name)
		var exception *client.Exception
		if !errors.As(err, &exception) || !strings.Contains(exception.Text, want) || strings.Contains(exception.Text, "\n") {
			t.Errorf("%q: got %v, want %q", name, err, want)
		}
	}
	select {
	case err := <-bystander:
		t.Errorf("the call of another session ended: %v", err)
	default:
	}
	p.stop()
	var exception *client.Exception
	if err := <-bystander; !errors.As(err, &exception) {
		t.Errorf("server-main ended: got %v", err)
	}
}

// A client that never reads takes bounded memory and delays nobody.
func TestClientThatNeverReads(t *testing.T) {
	const size = 1 << 17
	large := strings.Repeat("x", size)
	p := start(t, Open, methods{"read": func(context.Context, *session.Session, pickle.Tuple) (any, error) { return large, nil }})
	var slow []net.Conn
	for range 8 {
		conn, err := net.Dial("tcp", p.address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "10\nCSAPI\n%s", strings.Repeat("('API_CALL', 'read', (), {})\n", maxPending))
		slow = append(slow, conn)
	}
	s := p.dial(client.Options{})
	for range 20 {
		if v, err := s.Call(t.Context(), "read"); v != large || err != nil {
			t.Fatalf("another client: %v", err)
		}
	}
	if taken := p.hub.memory.taken.Load(); taken > maxMemory {
		t.Errorf("%d bytes are kept", taken)
	}
	// It can still read its answers, if it was not too greedy.
	r := bufio.NewReader(slow[0])
	if line, err := rpc.ReadLine(r, 10); line != "10.0" || err != nil {
		t.Errorf("got %q, %v", line, err)
	}
	if line, err := rpc.ReadLine(r, 2*size); err == nil && len(line) != len("('RESULT', '')")+size {
		t.Errorf("got a line of %d bytes", len(line))
	}
}

// The messages of all clients together are bounded, not only those of each.
func TestMemoryOfAllMessagesIsBounded(t *testing.T) {
	p := start(t, Open, methods{"get_time": func(context.Context, *session.Session, pickle.Tuple) (any, error) { return 7, nil }})
	p.hub.memory.limit = 4 << 20
	const half = "10\nCSAPI\n('SET_MODE', 'pickle4')\n\x80\x04X\x00\x00\x20\x00" // a str of 2 MiB
	closed := make(chan error)
	const greedy = 8
	for range greedy {
		conn, err := net.Dial("tcp", p.address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		go func() {
			io.WriteString(conn, half)
			io.WriteString(conn, strings.Repeat("x", 3<<19)) // fails if the hub closes
			_, err := io.Copy(io.Discard, conn)
			closed <- err
		}()
	}
	for range greedy / 2 { // at most two of them have room
		<-closed
	}
	if taken := p.hub.memory.taken.Load(); taken > p.hub.memory.limit {
		t.Errorf("%d bytes are taken", taken)
	}
	if v, err := p.dial(client.Options{}).Call(t.Context(), "get_time"); v != int64(7) || err != nil {
		t.Errorf("another client: %v, %v", v, err)
	}
	for range greedy - greedy/2 {
		go func() { <-closed }()
	}
}
