package control

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/waltos/waltos/supervisor/journal"
	"github.com/waltos/waltos/supervisor/security"
	"github.com/waltos/waltos/supervisor/unit"
	"github.com/waltos/waltos/supervisor/watchdog"
)

const (
	maxHeader = 8 << 10
	maxBody   = 1 << 20
	// patience is how long a client may take to say or to receive something.
	patience = 10 * time.Second
)

// Machine is what the server acts upon.
type Machine interface {
	Status() Status
	Unit(name string) (Detail, error)
	Graph() []Node
	Boot() Boot
	Security() []security.Report
	// Change orders "start", "stop", "restart" or "reload"; the channel is closed when the
	// unit has had its result.
	Change(what, unit string) (<-chan struct{}, error)
	// Configure checks a site file, makes it the one in effect, and tells in words what
	// that has done.
	Configure(ctx context.Context, text []byte) (string, error)
	// Shutdown begins "poweroff" or "reboot".
	Shutdown(what string)
	// Watchdog lets it reset the machine ("on") or not ("off").
	Watchdog(order string) (watchdog.Status, error)
}

// Server answers requests.
type Server struct {
	Machine Machine
	Planner Planner
	Journal *journal.Journal
	History *History
	// BodyTime is how long a client may take to send a body; default 10 s.
	BodyTime time.Duration
}

// Endpoint is one request of the protocol.
type Endpoint struct {
	Method string `json:"method"`
	Path   string `json:"path"`   // as http.ServeMux takes it
	Root   bool   `json:"root"`   // only for root
	Answer string `json:"answer"` // type of this package
	About  string `json:"about"`
	serve  func(*Server, http.ResponseWriter, *http.Request) error
}

// Endpoints is the whole protocol.
func Endpoints() []Endpoint {
	return []Endpoint{
		{"GET", "/v1/status", false, "Status", "the machine and all its units", (*Server).status},
		{"GET", "/v1/units/{unit}", false, "Detail", "one unit: processes, resources, dependencies, events; its last lines for root", (*Server).unit},
		{"POST", "/v1/units/{unit}/{order}", true, "stream of Step", "order is start, stop, restart or reload; with ?wait=no the result is not waited for", (*Server).change},
		{"GET", "/v1/plan", true, "Plan", "what the unit files would change, if they were read now", (*Server).plan},
		{"POST", "/v1/plan/{id}", true, "stream of Step", "apply that plan, if it is still the same; the last step has no unit", (*Server).applyPlan},
		{"GET", "/v1/graph", false, "array of Node", "what depends on what", (*Server).graph},
		{"GET", "/v1/security", true, "array of security.Report", "what each unit can do, why, and where the kernel says otherwise than its file", (*Server).security},
		{"GET", "/v1/boot", false, "Boot", "where the time of the boot went", (*Server).boot},
		{"GET", "/v1/events", false, "stream of Event", "changes of units that are remembered; with ?follow=yes those to come, with ?unit=NAME of one unit", (*Server).events},
		{"POST", "/v1/journal/flush", true, "{}", "the journal on disk has all lines so far", (*Server).flush},
		{"GET", "/v1/journal", true, "stream of journal.Record", "lines from now on, after one Follow", (*Server).follow},
		{"PUT", "/v1/site", true, "Configured", "check the site file that is the body and make it the one in effect", (*Server).configure},
		{"POST", "/v1/machine/{order}", true, "{}", "order is poweroff or reboot", (*Server).shutdown},
		{"POST", "/v1/watchdog/{order}", true, "watchdog.Status", "order is on or off: whether the watchdog resets the machine, until the next boot", (*Server).watchdog},
	}
}

// Serve answers until the listener is closed.
func (s *Server) Serve(ln *net.UnixListener) error {
	server := &http.Server{
		Handler: mortal(s.hurry(s.handler())), ConnContext: introduce, MaxHeaderBytes: maxHeader,
		ReadHeaderTimeout: patience, IdleTimeout: patience, ErrorLog: log.New(io.Discard, "", 0),
	}
	// What streams hold on to ends with the listener.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	server.BaseContext = func(net.Listener) context.Context { return ctx }
	err := server.Serve(&door{UnixListener: ln})
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return fmt.Errorf("cannot serve on the control socket: %w", err)
}

// mortal has a panic end the program, as anywhere else in PID 1: net/http would go on, with
// locks that nobody frees any more.
func mortal(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if cause := recover(); cause != nil {
				stack := debug.Stack()
				go panic(fmt.Sprintf("%v\n\nin a request:\n%s", cause, stack))
				select {}
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// hurry bounds the time for a body, also of one that nobody reads, and refuses those that have
// no use: while one is on its way, the end of the client is not noticed.
func (s *Server) hurry(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(cmp.Or(s.BodyTime, patience)))
			if r.Method != http.MethodPut {
				refuse(w, http.StatusBadRequest, fmt.Errorf("%s %s takes no body", r.Method, r.URL.Path))
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	for _, e := range Endpoints() {
		mux.HandleFunc(e.Method+" "+e.Path, func(w http.ResponseWriter, r *http.Request) {
			if g := guestOf(r.Context()); e.Root && !g.root() {
				refuse(w, http.StatusForbidden, fmt.Errorf("user number %d may look but not do this; ask root", g.user))
				return
			}
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
			if err := e.serve(s, w, r); err != nil {
				refuse(w, statusOf(err), err)
			}
		})
	}
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, Page())
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, http.StatusNotFound, fmt.Errorf("no request is %s %s; GET / lists them", r.Method, r.URL.Path))
	})
	return mux
}

// Page is the list of requests, for people.
func Page() string {
	var page strings.Builder
	page.WriteString("Requests to the supervisor, as\n  curl --unix-socket " + Path + " http://walt/v1/status\n\n")
	for _, e := range Endpoints() {
		who := "anybody"
		if e.Root {
			who = "root"
		}
		fmt.Fprintf(&page, "%s %s\n    %s\n    answer: %s; for %s\n", e.Method, e.Path, e.About, e.Answer, who)
	}
	return page.String()
}

// badRequest is what the client can put right.
type badRequest struct{ error }

func statusOf(err error) int {
	var unknown unit.ErrUnknown
	var bad badRequest
	switch {
	case errors.As(err, &unknown):
		return http.StatusNotFound
	case errors.As(err, &bad):
		return http.StatusBadRequest
	}
	return http.StatusInternalServerError
}

func refuse(w http.ResponseWriter, status int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(Failure{err.Error()}) // the client is gone
}

func answer(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(patience))
	_ = json.NewEncoder(w).Encode(v) // the client is gone
	return nil
}

// lines sends an object a line, each at once.
type lines struct {
	w          http.ResponseWriter
	controller *http.ResponseController
}

func newLines(w http.ResponseWriter) *lines {
	w.Header().Set("Content-Type", "application/x-ndjson")
	return &lines{w, http.NewResponseController(w)}
}

// send returns false when the client is gone, or takes nothing.
func (s *lines) send(v any) bool {
	_ = s.controller.SetWriteDeadline(time.Now().Add(patience))
	return json.NewEncoder(s.w).Encode(v) == nil
}

func (s *lines) flush() bool { return s.controller.Flush() == nil }

func (s *Server) status(w http.ResponseWriter, _ *http.Request) error {
	return answer(w, s.Machine.Status())
}

func (s *Server) security(w http.ResponseWriter, _ *http.Request) error {
	return answer(w, s.Machine.Security())
}

func (s *Server) graph(w http.ResponseWriter, _ *http.Request) error {
	return answer(w, s.Machine.Graph())
}

func (s *Server) boot(w http.ResponseWriter, _ *http.Request) error {
	return answer(w, s.Machine.Boot())
}

// Bounds of a Detail.
const (
	detailEvents = 10
	detailLines  = 10
)

func (s *Server) unit(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("unit")
	d, err := s.Machine.Unit(name)
	if err != nil {
		return err
	}
	events, _ := s.History.After(0)
	events = slices.DeleteFunc(events, func(e Event) bool { return e.Unit != name })
	d.Events = events[max(0, len(events)-detailEvents):]
	if guestOf(r.Context()).root() {
		d.Log = s.Journal.Tail(name, detailLines)
	}
	return answer(w, d)
}

func (s *Server) change(w http.ResponseWriter, r *http.Request) error {
	name, order := r.PathValue("unit"), r.PathValue("order")
	if !slices.Contains([]string{"start", "stop", "restart", "reload"}, order) {
		return badRequest{fmt.Errorf("no order is named %q", order)}
	}
	seen := s.History.Last()
	done, err := s.Machine.Change(order, name)
	if err != nil {
		return err
	}
	out := newLines(w)
	if r.URL.Query().Get("wait") != "no" {
		if !s.progress(out, r, seen, related(s.Machine.Graph(), name), done) {
			return nil
		}
	}
	d, err := s.Machine.Unit(name)
	if err != nil {
		out.send(Step{Error: err.Error()})
		return nil
	}
	out.send(Step{Unit: &d.Unit})
	return nil
}

// progress sends the events of units after the one with that number until done is closed. It
// returns false when the client is gone.
func (s *Server) progress(out *lines, r *http.Request, seen uint64, units map[string]bool, done <-chan struct{}) bool {
	for {
		waiting := true
		select {
		case <-done:
			waiting = false
		default:
		}
		events, more := s.History.After(seen)
		for _, e := range events {
			seen = e.Number
			if units[e.Unit] && !out.send(Step{Event: &e}) {
				return false
			}
		}
		if !out.flush() {
			return false
		}
		if !waiting {
			return true
		}
		select {
		case <-done:
		case <-more:
		case <-r.Context().Done():
			return false
		}
	}
}

// related are the units that an order to one of them may move: those it depends on, and
// those that need it.
func related(graph []Node, name string) map[string]bool {
	set := map[string]bool{}
	var down, up func(name string)
	down = func(name string) {
		for _, n := range graph {
			if n.Name != name || set[name] {
				continue
			}
			set[name] = true
			for _, other := range slices.Concat(n.Needs, n.Binds, n.Wants) {
				down(other)
			}
		}
	}
	seen := map[string]bool{}
	up = func(name string) {
		if seen[name] {
			return
		}
		seen[name] = true
		set[name] = true
		for _, n := range graph {
			if slices.Contains(n.Needs, name) || slices.Contains(n.Binds, name) {
				up(n.Name)
			}
		}
	}
	down(name)
	up(name)
	return set
}

func (s *Server) events(w http.ResponseWriter, r *http.Request) error {
	name, follow := r.URL.Query().Get("unit"), r.URL.Query().Get("follow") == "yes"
	out := newLines(w)
	for seen := uint64(0); ; {
		events, more := s.History.After(seen)
		for _, e := range events {
			seen = e.Number
			if (name == "" || e.Unit == name) && !out.send(e) {
				return nil
			}
		}
		if !follow || !out.flush() {
			return nil
		}
		select {
		case <-more:
		case <-r.Context().Done():
			return nil
		}
	}
}

func (s *Server) configure(w http.ResponseWriter, r *http.Request) error {
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return badRequest{fmt.Errorf("cannot read the configuration: %w", err)}
	}
	done, err := s.Machine.Configure(r.Context(), text)
	if err != nil {
		return badRequest{err}
	}
	return answer(w, Configured{done})
}

func (s *Server) flush(w http.ResponseWriter, _ *http.Request) error {
	if err := s.Journal.Flush(); err != nil {
		return err
	}
	return answer(w, struct{}{})
}

func (s *Server) follow(w http.ResponseWriter, r *http.Request) error {
	records, first, end := s.Journal.Follow()
	defer end()
	// What is older than the first of these is in the segments once they are flushed; if
	// they cannot be, the client sees at least what is new.
	_ = s.Journal.Flush()
	out := newLines(w)
	if !out.send(Follow{first}) || !out.flush() {
		return nil
	}
	for {
		select {
		case <-r.Context().Done():
			return nil
		case record, ok := <-records:
			if !ok || !out.send(record) {
				return nil
			}
			if len(records) == 0 && !out.flush() {
				return nil
			}
		}
	}
}

func (s *Server) shutdown(w http.ResponseWriter, r *http.Request) error {
	order := r.PathValue("order")
	if order != "poweroff" && order != "reboot" {
		return badRequest{fmt.Errorf("no order is named %q", order)}
	}
	_ = answer(w, struct{}{})
	_ = http.NewResponseController(w).Flush()
	s.Machine.Shutdown(order)
	return nil
}

func (s *Server) watchdog(w http.ResponseWriter, r *http.Request) error {
	order := r.PathValue("order")
	if order != "on" && order != "off" {
		return badRequest{fmt.Errorf("no order is named %q", order)}
	}
	status, err := s.Machine.Watchdog(order)
	if err != nil {
		return err
	}
	return answer(w, status)
}
