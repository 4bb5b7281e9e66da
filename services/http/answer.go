package http

import (
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"log"
	nethttp "net/http"
	"strings"
)

const textType = "text/html; charset=UTF-8"

// answer is a ResponseWriter that remembers the status.
type answer struct {
	nethttp.ResponseWriter
	status int
}

func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(b []byte) (int, error) {
	if a.status == 0 {
		a.status = nethttp.StatusOK
	}
	return a.ResponseWriter.Write(b)
}

// ReadFrom lets files go out without passing through this process (sendfile(2)).
func (a *answer) ReadFrom(r io.Reader) (int64, error) { return io.Copy(a.ResponseWriter, r) }

// Unwrap is for nethttp.ResponseController.
func (a *answer) Unwrap() nethttp.ResponseWriter { return a.ResponseWriter }

// failure is an error with its HTTP status.
type failure struct {
	status int
	text   string
}

func (f *failure) Error() string { return f.text }

func fail(status int, format string, args ...any) error {
	return &failure{status, fmt.Sprintf(format, args...)}
}

// write sends a whole answer.
func write(w nethttp.ResponseWriter, r *nethttp.Request, status int, kind string, body []byte) {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	w.WriteHeader(status)
	if r.Method != nethttp.MethodHead {
		// An error means that the client has gone.
		_, _ = w.Write(body)
	}
}

// writeError sends an error in the form that the client prefers.
func writeError(w nethttp.ResponseWriter, r *nethttp.Request, err error) {
	f := &failure{nethttp.StatusInternalServerError, err.Error()}
	if !errors.As(err, &f) {
		log.Printf("%s %.200s of %s: %v", r.Method, r.URL.Path, r.RemoteAddr, err)
	}
	switch r.Header.Get("Prefer") {
	case "errors=text-only":
		write(w, r, f.status, "text/plain; charset=UTF-8", []byte(f.text+"\n"))
	case "errors=json":
		writeJSON(w, r, f.status, struct {
			Error  string `json:"error"`
			Status int    `json:"status_code"`
		}{f.text, f.status})
	default:
		title := fmt.Sprintf("Error: %d %s", f.status, nethttp.StatusText(f.status))
		write(w, r, f.status, textType, fmt.Appendf(nil, errorPage, title, title,
			html.EscapeString(requestURL(r)), html.EscapeString(f.text)))
	}
}

func requestURL(r *nethttp.Request) string {
	return "http://" + r.Host + r.URL.RequestURI()
}

func writeJSON(w nethttp.ResponseWriter, r *nethttp.Request, status int, v any) {
	text, err := encodeJSON(v)
	if err != nil {
		log.Printf("%s %.200s: cannot encode the answer: %v", r.Method, r.URL.Path, err)
		status, text = nethttp.StatusInternalServerError, `{"error": "internal error"}`
	}
	write(w, r, status, "application/json", []byte(text))
}

// encodeJSON returns the text of a value. <, > and & are left as they are: nothing of it
// is HTML.
func encodeJSON(v any) (string, error) {
	var text strings.Builder
	err := newEncoder(&text).Encode(v)
	return strings.TrimSuffix(text.String(), "\n"), err
}

func newEncoder(w io.Writer) *json.Encoder {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	return encoder
}
