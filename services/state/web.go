package state

// The web API of the HTTP service needs more than snapshots: server-main may offer
// these methods to NewServer. Where it does not, the HTTP service answers 500.
const (
	MethodImages = "images" // ImagesRequest; answer: []Image
	StreamLogs   = "logs"   // LogsRequest; parts: LogsPart, in time order

	MethodMetrics = "metrics" // no argument; answer: []metrics.Family of the daemon
	MethodReady   = "ready"   // no argument; answer: []NotReady
)

// ImagesRequest asks for all images.
type ImagesRequest struct {
	Refresh bool // look at the storage first
}

// Image is one image, as client-api 5.4 shows it.
type Image struct {
	FullName      string
	User          string
	ID            string
	InUse         bool
	Created       string // server local time
	Compatibility []string
}

// LogsRequest selects log lines between two times, both excluded.
type LogsRequest struct {
	From, To float64 // seconds since 1970
	Issuer   string  // device name; "": all
	Stream   string  // regular expression for the whole name; "": all
}

// NotReady is a part of the daemon that keeps it from serving calls, and why.
type NotReady struct {
	Part   string `json:"part"`
	Reason string `json:"reason"`
}

// LogsPart is some of the lines selected. The first part may have none.
type LogsPart struct {
	Count   int64 // of all lines; the same in each part
	Records []LogRecord
}

// LogRecord is one log line.
type LogRecord struct {
	_         struct{} `cbor:",toarray"`
	Timestamp float64  // seconds since 1970
	Line      string
	Issuer    string
	Stream    string
}
