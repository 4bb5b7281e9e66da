package security

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/waltos/waltos/supervisor/sandbox"
)

// process is what proc(5) tells of one.
type process struct {
	effective, permitted, bounding sandbox.Capabilities
	noNewPrivileges                bool
	filters                        int // of system calls
	namespaces                     map[string]bool
	mounts                         []mount
}

// mount is a line of mountinfo.
type mount struct {
	id, parent string
	point      string
	readOnly   bool
}

// shares tells whether the process is in a namespace of the supervisor.
func (p *process) shares(namespace string) bool { return p.namespaces[namespace] }

// read asks the kernel.
func (c Config) read(pid int) (*process, error) {
	folder := filepath.Join(c.Proc, strconv.Itoa(pid))
	status, err := os.ReadFile(filepath.Join(folder, "status"))
	if err != nil {
		return nil, fmt.Errorf("cannot look at process %d: %w", pid, err)
	}
	p := &process{namespaces: map[string]bool{}}
	p.readStatus(status)
	for _, name := range []string{"mnt", "net", "ipc"} {
		theirs, err := os.Readlink(filepath.Join(folder, "ns", name))
		if err != nil {
			return nil, fmt.Errorf("cannot look at process %d: %w", pid, err)
		}
		ours, err := os.Readlink(filepath.Join(c.Proc, "self", "ns", name))
		p.namespaces[name] = err == nil && ours == theirs
	}
	info, err := os.ReadFile(filepath.Join(folder, "mountinfo"))
	if err != nil {
		return nil, fmt.Errorf("cannot look at process %d: %w", pid, err)
	}
	p.mounts = readMounts(info)
	return p, nil
}

func (p *process) readStatus(status []byte) {
	for line := range bytes.Lines(status) {
		name, value, _ := strings.Cut(strings.TrimSpace(string(line)), ":")
		value = strings.TrimSpace(value)
		set, _ := strconv.ParseUint(value, 16, 64) // what is no number is no set either
		switch name {
		case "CapEff":
			p.effective = sandbox.Capabilities(set)
		case "CapPrm":
			p.permitted = sandbox.Capabilities(set)
		case "CapBnd":
			p.bounding = sandbox.Capabilities(set)
		case "NoNewPrivs":
			p.noNewPrivileges = value == "1"
		case "Seccomp_filters":
			p.filters, _ = strconv.Atoi(value)
		}
	}
}

// readMounts reads mountinfo.
func readMounts(info []byte) []mount {
	var all []mount
	lines := bufio.NewScanner(bytes.NewReader(info))
	lines.Buffer(nil, 1<<20) // overlays of many layers
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 {
			continue
		}
		point := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(fields[4])
		all = append(all, mount{fields[0], fields[1], point, slices.Contains(strings.Split(fields[5], ","), "ro")})
	}
	return all
}

// seen finds the mount that a path leads to: from the root on, always by the next mount on
// the way.
func (p *process) seen(path string) mount {
	var at mount
	for _, m := range p.mounts {
		if !slices.ContainsFunc(p.mounts, func(o mount) bool { return o.id == m.parent && o.id != m.id }) {
			at = m // the root: what it is mounted on is not in this view
			break
		}
	}
	for range p.mounts {
		next, found := mount{}, false
		for _, m := range p.mounts {
			if m.parent == at.id && m.id != at.id && within(path, m.point) && (!found || len(m.point) < len(next.point)) {
				next, found = m, true
			}
		}
		if !found {
			break
		}
		at = next
	}
	return at
}

func within(path, folder string) bool {
	rest, ok := strings.CutPrefix(path, strings.TrimSuffix(folder, "/"))
	return ok && (rest == "" || rest[0] == '/')
}

// private are mounts that can be written and are the unit's own.
var private = []string{"/dev/pts", "/dev/shm", "/tmp", "/var/tmp"}

// writable returns the mounts that can be written although no place says so. Those of the
// machine that came later, below what can be read, are as the machine has them; there it is
// Landlock that keeps the unit from writing.
func (p *process) writable(places []sandbox.Place) []string {
	var found []string
	for _, m := range p.mounts {
		if m.readOnly || slices.Contains(private, m.point) || p.seen(m.point).id != m.id {
			continue
		}
		var place sandbox.Place // the deepest
		for _, candidate := range places {
			if within(m.point, candidate.Path) && len(candidate.Path) >= len(place.Path) {
				place = candidate
			}
		}
		switch place.Access {
		case sandbox.Writable, sandbox.Mountable:
			continue
		case sandbox.Readable:
			if place.Path != m.point {
				continue
			}
		}
		found = append(found, m.point)
	}
	slices.Sort(found)
	return found
}
