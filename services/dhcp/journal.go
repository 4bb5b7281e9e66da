package dhcp

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"log"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/waltos/waltos/services/atomicfile"
)

// compactAfter is the number of superseded records a journal may hold.
const compactAfter = 4096

// maxRecord bounds a line of the journal.
const maxRecord = 512

// journal keeps bound leases on disk: one line per lease, the last line of an address
// being the true one, each with its own checksum. A power cut can only tear the last
// line, whose lease was then never acknowledged.
type journal struct {
	path    string
	f       *os.File
	records int
	broken  bool // the last write failed: the file must be written anew
}

// record is a line of the journal, after its checksum.
type record struct {
	IP    string `json:"ip"`
	MAC   string `json:"mac"`
	Until int64  `json:"until"` // seconds since 1970
}

// openJournal reads the leases of a file, which need not exist, and begins a new one
// in its place. Where that cannot be written, as on a full disk, the old one stays, and
// every further lease is an attempt.
func openJournal(path string) (*journal, []*lease, error) {
	leases, err := readJournal(path)
	if err != nil {
		return nil, nil, err
	}
	j := &journal{path: path}
	if err := j.rewrite(leases); err != nil {
		log.Printf("%v; until that works, a restart forgets new leases", err)
		j.broken = true
	}
	return j, leases, nil
}

func readJournal(path string) ([]*lease, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read leases: %w", err)
	}
	defer f.Close()
	return decodeJournal(f, path)
}

func decodeJournal(r io.Reader, path string) ([]*lease, error) {
	byAddr := map[netip.Addr]*lease{}
	var order []netip.Addr
	lines := bufio.NewReaderSize(r, maxRecord)
	for number := 1; ; number++ {
		line, err := lines.ReadSlice('\n')
		for errors.Is(err, bufio.ErrBufferFull) { // far too long: skipped as a whole
			line = nil
			_, err = lines.ReadSlice('\n')
		}
		if err != nil && err != io.EOF {
			return nil, fmt.Errorf("cannot read leases: %s: %w", path, err)
		}
		if l, ok := decodeRecord(strings.TrimSuffix(string(line), "\n")); ok {
			if byAddr[l.addr] == nil {
				order = append(order, l.addr)
			}
			byAddr[l.addr] = l
		} else if len(line) > 0 || err == nil {
			log.Printf("%s:%d: this lease is damaged and is left out", path, number)
		}
		if err == io.EOF || len(byAddr) >= maxLeases {
			break
		}
	}
	leases := make([]*lease, len(order))
	for i, addr := range order {
		leases[i] = byAddr[addr]
	}
	return leases, nil
}

func decodeRecord(line string) (*lease, bool) {
	sum, body, ok := strings.Cut(line, " ")
	if !ok || sum != fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(body))) {
		return nil, false
	}
	var r record
	if err := json.Unmarshal([]byte(body), &r); err != nil {
		return nil, false
	}
	addr, err := netip.ParseAddr(r.IP)
	if err != nil || !addr.Is4() {
		return nil, false
	}
	hw, err := net.ParseMAC(r.MAC)
	if err != nil || len(hw) != 6 {
		return nil, false
	}
	return &lease{addr: addr, mac: mac(hw), until: time.Unix(r.Until, 0), bound: true}, true
}

func encodeRecords(leases []*lease) []byte {
	var out []byte
	for _, l := range leases {
		body, err := json.Marshal(record{IP: l.addr.String(), MAC: l.mac.String(), Until: l.until.Unix()})
		if err != nil {
			panic("internal error: a lease has no JSON form: " + err.Error())
		}
		out = fmt.Appendf(out, "%08x %s\n", crc32.ChecksumIEEE(body), body)
	}
	return out
}

// add writes leases so that they survive a power cut.
func (j *journal) add(leases []*lease) error {
	if j.broken {
		return errors.New("cannot write leases: the last write failed")
	}
	if _, err := j.f.Write(encodeRecords(leases)); err != nil {
		j.broken = true // part of a line may be there
		return fmt.Errorf("cannot write leases: %w", err)
	}
	if err := j.f.Sync(); err != nil {
		j.broken = true
		return fmt.Errorf("cannot write leases: %w", err)
	}
	j.records += len(leases)
	return nil
}

// worn tells whether the file must be rewritten, live leases being its true content.
func (j *journal) worn(live int) bool {
	return j.broken || j.records > live+compactAfter
}

// rewrite replaces the file by one that holds exactly these leases.
func (j *journal) rewrite(leases []*lease) error {
	f, err := atomicfile.Replace(j.path, encodeRecords(leases), 0o600)
	if err != nil {
		return fmt.Errorf("cannot write leases: %w", err)
	}
	j.close()
	j.f, j.records, j.broken = f, len(leases), false
	return nil
}

func (j *journal) close() {
	if j.f != nil {
		j.f.Close() // what counts was synchronised
	}
}
