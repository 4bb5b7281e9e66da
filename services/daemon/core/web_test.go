package core

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/daemon/db/dbtest"
	"github.com/waltos/waltos/services/http"
	"github.com/waltos/waltos/services/named"
	"github.com/waltos/waltos/services/state"
)

// web serves the HTTP of a native daemon, and returns its address.
func (n *native) web() string {
	n.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		n.t.Fatal(err)
	}
	watcher := state.Watch(n.t.Context(), filepath.Join(n.Sockets, "state.sock"), "")
	ended := make(chan error, 1)
	go func() { ended <- http.Serve(n.t.Context(), ln, http.Config{State: watcher}) }()
	n.t.Cleanup(func() {
		if err := <-ended; err != nil {
			n.t.Error(err)
		}
		<-watcher.Done()
	})
	return "http://" + ln.Addr().String()
}

// name serves names as a service of a native daemon does, and asks for some of them.
func (n *native) name(names ...string) {
	n.t.Helper()
	udp, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		n.t.Fatal(err)
	}
	tcp, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		n.t.Fatal(err)
	}
	watcher := state.Watch(n.t.Context(), filepath.Join(n.Sockets, "state.sock"), "")
	server := named.New(named.Config{Network: netip.MustParsePrefix("127.0.0.5/24"), Resolvers: filepath.Join(n.t.TempDir(), "none"), State: watcher})
	watcher.Measure(server.Measures())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(n.t.Context(), udp, tcp) }()
	n.t.Cleanup(func() {
		if err := <-ended; err != nil {
			n.t.Error(err)
		}
		<-watcher.Done()
	})
	dbtest.Wait(n.t, "the state", func(context.Context) error {
		if watcher.Current().Version == 0 {
			return errors.New("there is none")
		}
		return nil
	})
	client := &dns.Client{Timeout: time.Minute}
	for _, name := range names {
		question := new(dns.Msg)
		question.SetQuestion(name, dns.TypeA)
		if _, _, err := client.Exchange(question, udp.LocalAddr().String()); err != nil {
			n.t.Fatal(err)
		}
	}
}

func download(t *testing.T, url string) (int, string) {
	t.Helper()
	r, err := nethttp.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(text)
}

// TestFiguresOfTheDaemon asks for what all processes count, while they work.
func TestFiguresOfTheDaemon(t *testing.T) {
	n := startNative(t, "")
	n.Kill("server-blocking")
	url := n.web()
	exceptions := func() float64 { // some may come of calls before the daemon was ready
		_, text := download(t, url+"/metrics")
		count, _ := value(parse(t, text), "walt_api_exceptions_total{}")
		return count
	}
	before := exceptions()
	s, _ := n.session("CSAPI")
	for range 3 {
		if _, err := s.Call(t.Context(), "get_time"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Call(t.Context(), "device_show"); err != nil { // the registry is loaded
		t.Fatal(err)
	}
	if _, err := s.Call(t.Context(), "get_node_ip"); err == nil {
		t.Fatal("a call without its argument is served")
	}
	if status, text := download(t, url+"/readyz"); status != 200 || text != "[]" {
		t.Errorf("/readyz: %d %s", status, text)
	}
	n.name("walt-server.walt.", "nothing.walt.")
	status, text := download(t, url+"/metrics")
	if status != 200 {
		t.Fatalf("/metrics: %d\n%s", status, text)
	}
	families := parse(t, text)
	for name, want := range map[string]float64{
		`walt_call_duration_seconds{api="CSAPI",method="get_time"}`:  3,
		`walt_call_failures_total{api="CSAPI",method="get_node_ip"}`: 1,
		`walt_api_exceptions_total{}`:                                before + 1,
		`walt_sessions{api="CSAPI"}`:                                 1,
		`walt_process_up{process="server-main"}`:                     1,
		`walt_process_up{process="server-hub"}`:                      1,
		`walt_process_up{process="server-db"}`:                       1,
		`walt_process_up{process="server-blocking"}`:                 0,
		`walt_database_call_duration_seconds{call="loadAll"}`:        1,
		`walt_connections_total{from="server-main",to="server-db"}`:  1,
		`walt_streams{kind="REQ_DUMP_LOGS"}`:                         0,
		`walt_devices{type="server"}`:                                1,
		`walt_boot_notifications{state="booted"}`:                    0,
		`walt_log_lines_lost_total{}`:                                0,
		`walt_dns_questions_total{transport="udp"}`:                  2,
		`walt_dns_answers_total{code="NXDOMAIN"}`:                    1,
	} {
		if got, found := value(families, name); !found || got != want {
			t.Errorf("%s is %v (%v), want %v", name, got, found, want)
		}
	}
	for _, process := range []string{"server-hub", "server-main", "server-db", "httpd", "named"} {
		for _, name := range []string{"process_resident_memory_bytes", "process_open_fds", "go_goroutines"} {
			if got, _ := value(families, fmt.Sprintf("%s{process=%q}", name, process)); got <= 0 {
				t.Errorf("%s of %s is %v", name, process, got)
			}
		}
	}

	for _, from := range []string{"server-hub", "httpd"} {
		if got, _ := value(families, fmt.Sprintf(`walt_connections_total{from=%q,to="server-main"}`, from)); got != 1 {
			t.Errorf("connections of %s: %v", from, got)
		}
	}

	n.Down("server-main")
	if status, text := download(t, url+"/readyz"); status != 503 || !strings.Contains(text, `"part":"server-main"`) {
		t.Errorf("/readyz without server-main: %d %s", status, text)
	}
}

// value returns the number of a series, or how many observations it has.
func value(families map[string]*dto.MetricFamily, series string) (float64, bool) {
	name, labels, _ := strings.Cut(strings.TrimSuffix(series, "}"), "{")
	for _, m := range families[name].GetMetric() {
		var have []string
		for _, l := range m.GetLabel() {
			have = append(have, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
		}
		if strings.Join(have, ",") == labels {
			if h := m.GetHistogram(); h != nil {
				return float64(h.GetSampleCount()), true
			}
			return m.GetGauge().GetValue() + m.GetCounter().GetValue(), true
		}
	}
	return 0, false
}

// TestHistoryByHTTP reads, by /api/v1/logs, more lines than one message may carry.
func TestHistoryByHTTP(t *testing.T) {
	const lines, length = 30000, 1000
	n := startNative(t, "")
	url := n.web()
	s, _ := n.session("CSAPI")
	if _, err := s.Call(t.Context(), "device_show"); err != nil { // the registry is loaded
		t.Fatal(err)
	}
	client := db.Dial(filepath.Join(n.Sockets, "db.sock"))
	defer client.Close()
	ids, err := client.StreamIDs(t.Context(), db.Stream{IssuerMAC: "02:00:00:00:00:05", Name: "big"})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now().Add(-time.Hour).Truncate(time.Second)
	var list []db.Line
	for i := range lines {
		list = append(list, db.Line{Stream: ids[0], Time: began.Add(time.Duration(i) * time.Millisecond), Text: strings.Repeat("x", length)})
	}
	if err := client.InsertLines(t.Context(), list); err != nil {
		t.Fatal(err)
	}
	query := fmt.Sprintf("/api/v1/logs?from=%d&to=%d&issuer=walt-server&stream=b.g", began.Unix()-1, began.Unix()+3600)
	status, text := download(t, url+query)
	var answer struct {
		Count int `json:"num_logs"`
		Logs  []struct {
			Timestamp            float64
			Line, Issuer, Stream string
		} `json:"logs"`
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		t.Fatalf("%d %v", status, err)
	}
	if answer.Count != lines || len(answer.Logs) != lines || len(text) < lines*length {
		t.Fatalf("%d lines of %d in %d bytes", len(answer.Logs), answer.Count, len(text))
	}
	if l := answer.Logs[1]; l.Timestamp != float64(began.Unix())+0.001 || l.Issuer != "walt-server" || l.Stream != "big" || len(l.Line) != length {
		t.Errorf("line %.100v", l)
	}
	if status, text := download(t, url+strings.Replace(query, "b.g", "b", 1)); status != 200 || text != `{"num_logs":0,"logs":[]}` {
		t.Errorf("another stream: %d %s", status, text)
	}

	// A reader that goes away frees what it held of the database.
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: srv\r\n\r\n", query)
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	histories := func() (count float64) {
		_, text := download(t, url+"/metrics")
		families := parse(t, text)
		for _, name := range []string{"walt_log_histories{}", "walt_http_histories{}"} {
			n, _ := value(families, name)
			count += n
		}
		return count
	}
	if n := histories(); n != 2 {
		t.Errorf("%v histories are being read, one by each process is expected", n)
	}
	conn.Close()
	for histories() > 0 && t.Context().Err() == nil {
	}
}

// parse reads what /metrics shows.
func parse(t *testing.T, text string) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return families
}
