// Package db is the only way to the platform's database: the process server-db,
// which alone holds credentials and speaks SQL (pgx), and the client that
// server-main calls it with over a connector. The schema is upstream's, exactly
// (server-state 1.2, 1.3), so that an existing database opens unchanged.
//
// Each call is one transaction, committed before it is answered; an error rolls
// back that call alone, at once. While PostgreSQL is away calls fail with a clear
// error, and work again when it is back: nothing has to be restarted.
package db

import "time"

// Device is one row of table devices, with its row of nodes or switches.
type Device struct {
	MAC     string
	IP      string // "" for NULL
	Name    string
	Type    string // "server", "node", "switch", "unknown"
	Virtual bool
	// Conf holds the settings explicitly stored: nil, bool, int64 (whole JSON
	// numbers), float64, string, []any, map[string]any.
	Conf  map[string]any
	Image string // nodes: full name
	Model string // nodes and switches
}

// Checkpoint is one row of table checkpoints.
type Checkpoint struct {
	User string
	Name string
	Time time.Time // server local time, microseconds
}

// Stream identifies one log stream.
type Stream struct {
	ID        int64
	IssuerMAC string
	Name      string
	Chunk     bool // mode "chunk" instead of "line"
}

// Line is one log line to store.
type Line struct {
	Stream int64 // Stream.ID
	Time   time.Time
	Text   string
}

// LogFilter selects log lines; the zero value selects all.
type LogFilter struct {
	Start, End      *float64 // strict bounds, seconds since 1970; nil or 0: none
	Issuers         []string // device names; nil: all; empty: none
	StreamsRegexp   string   // POSIX ERE, unanchored; "": all
	LineRegexp      string
	Mode            string // "line", "chunk" or "": both
	ExcludeConsoles bool
}

// Record is one log line read back.
type Record struct {
	Time   time.Time
	Line   string
	Issuer string // device name
	Stream string
}

// Topology is one link between two devices; MAC1 < MAC2; ports are 0 if unknown.
type Topology struct {
	MAC1, MAC2   string
	Port1, Port2 int
	Confirmed    bool
	LastSeen     *time.Time
}

// SwitchPort is a name given to a port by a user.
type SwitchPort struct {
	MAC  string
	Port int
	Name string
}

// PoEOff is a switch port that the server has powered off.
type PoEOff struct {
	MAC    string
	Port   int
	Reason string // "powersave" or "hard-reboot"
}

// Everything is what server-main keeps in memory, as it was at one moment.
type Everything struct {
	Devices     []Device // sorted by name
	Images      []string // full names, sorted
	SwitchPorts []SwitchPort
	Topology    []Topology
	PoEOff      []PoEOff
	VPNMACs     []string // that credentials of the VPN are for, revoked ones too; sorted
}
