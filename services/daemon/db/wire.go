package db

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log"
	"math"
	"strings"
	"time"
	"unicode/utf8"
)

// What travels between Client and server-db is CBOR; where its Go mapping would
// lose something (the type of JSON numbers, microseconds) the types below stand in.

type wireDevice struct {
	MAC, IP, Name, Type string
	Virtual             bool
	Conf                []byte // JSON object
	Image, Model        string
}

type wireTopology struct {
	MAC1, MAC2   string
	Port1, Port2 int
	Confirmed    bool
	LastSeen     int64 // microseconds since 1970; 0: never
}

type wireEverything struct {
	Devices     []wireDevice
	Images      []string
	SwitchPorts []SwitchPort
	Topology    []wireTopology
	PoEOff      []PoEOff
	VPNMACs     []string
}

type wireCheckpoint struct {
	User, Name string
	Time       int64 // microseconds since 1970
}

type wireBatch struct {
	Batch  Batch
	Rows   []byte
	Staged bool // there are no rows here, they were sent before
}

func encodeDevice(d Device) (wireDevice, error) {
	conf := d.Conf
	if conf == nil {
		conf = map[string]any{}
	}
	text, err := json.Marshal(conf)
	if err != nil {
		return wireDevice{}, fmt.Errorf("cannot encode the settings of %s: %w", d.Name, err)
	}
	return wireDevice{d.MAC, d.IP, d.Name, d.Type, d.Virtual, text, d.Image, d.Model}, nil
}

// device has no settings if those in its row are none, which users can write there: all
// others must not wait for its repair.
func (w wireDevice) device() Device {
	conf, err := decodeConf(w.Conf)
	if err != nil {
		log.Printf("the settings of device %q (%s) count as unset: column conf holds no object of settings: %v", w.Name, w.MAC, err)
		conf = map[string]any{}
	}
	return Device{w.MAC, w.IP, w.Name, w.Type, w.Virtual, conf, w.Image, w.Model}
}

// decodeConf keeps whole numbers whole: settings such as a port or a timeout are
// compared as integers by those who read them.
func decodeConf(text []byte) (map[string]any, error) {
	conf := map[string]any{}
	if len(text) == 0 {
		return conf, nil
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&conf); err != nil {
		return nil, err
	}
	for k, v := range conf {
		conf[k] = plainNumbers(v)
	}
	if conf == nil { // the text was null
		conf = map[string]any{}
	}
	return conf, nil
}

func plainNumbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, err := v.Float64()
		if err != nil { // beyond the range of float64; only its sign is known
			return math.Inf(strings.Count(v.String()[:1], "-")*-2 + 1)
		}
		return f
	case []any:
		for i := range v {
			v[i] = plainNumbers(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = plainNumbers(v[k])
		}
	}
	return v
}

func (w wireEverything) everything() Everything {
	e := Everything{Images: w.Images, SwitchPorts: w.SwitchPorts, PoEOff: w.PoEOff, VPNMACs: w.VPNMACs}
	for _, wd := range w.Devices {
		e.Devices = append(e.Devices, wd.device())
	}
	for _, l := range w.Topology {
		link := Topology{MAC1: l.MAC1, MAC2: l.MAC2, Port1: l.Port1, Port2: l.Port2, Confirmed: l.Confirmed}
		if l.LastSeen != 0 {
			t := time.UnixMicro(l.LastSeen)
			link.LastSeen = &t
		}
		e.Topology = append(e.Topology, link)
	}
	return e
}

func encodeLinks(links []Topology) []wireTopology {
	w := make([]wireTopology, len(links))
	for i, l := range links {
		w[i] = wireTopology{l.MAC1, l.MAC2, l.Port1, l.Port2, l.Confirmed, 0}
		if l.LastSeen != nil {
			w[i].LastSeen = l.LastSeen.UnixMicro()
		}
	}
	return w
}

// Clean makes a text that PostgreSQL can store: NUL and what is not UTF-8 become
// U+FFFD. Text that needs no change is returned as it is.
func Clean(s string) string {
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\uFFFD")
	}
	if strings.IndexByte(s, 0) >= 0 {
		s = strings.ReplaceAll(s, "\x00", "\uFFFD")
	}
	return s
}
