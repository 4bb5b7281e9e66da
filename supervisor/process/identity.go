package process

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/supervisor/sandbox"
	"golang.org/x/sys/unix"
)

// identity is the user that a unit runs as.
type identity struct {
	name, home string
	uid, gid   int
	groups     []uint32
}

// lookUp finds the user and the groups of a unit in /etc/passwd and /etc/group.
func lookUp(u *hcl.Unit) (*identity, error) {
	account, err := user.Lookup(u.User)
	if err != nil {
		return nil, fmt.Errorf("cannot run as user %s: %w", u.User, err)
	}
	if _, err := sandbox.ParseCapabilities(u.Capabilities); err != nil {
		return nil, err
	}
	id := &identity{name: account.Username, home: account.HomeDir}
	if id.uid, err = strconv.Atoi(account.Uid); err != nil {
		return nil, fmt.Errorf("cannot run as user %s: %w", u.User, err)
	}
	if id.gid, err = strconv.Atoi(account.Gid); err != nil {
		return nil, fmt.Errorf("cannot run as user %s: %w", u.User, err)
	}
	numbers, err := account.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("cannot list groups of user %s: %w", u.User, err)
	}
	for _, name := range u.Groups {
		group, err := user.LookupGroup(name)
		if err != nil {
			return nil, fmt.Errorf("cannot run in group %s: %w", name, err)
		}
		numbers = append(numbers, group.Gid)
	}
	for _, text := range numbers {
		number, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("cannot list groups of user %s: %w", u.User, err)
		}
		id.groups = append(id.groups, uint32(number))
	}
	return id, nil
}

// environment is what every process gets.
func (id *identity) environment() []string {
	return []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=" + id.home, "USER=" + id.name, "LOGNAME=" + id.name, "SHELL=/bin/sh", "LANG=C.UTF-8",
	}
}

// plan is what a process of the unit does before it becomes a command.
func (id *identity) plan(u *hcl.Unit, own []string) *sandbox.Plan {
	p := &sandbox.Plan{
		Become: id.uid != os.Getuid(), UID: id.uid, GID: id.gid, Capabilities: u.Capabilities,
		Files: u.Limits.Files, Directory: u.Directory, Own: own, Sandbox: u.Sandbox, Outlived: u.Outlived(),
	}
	for _, g := range id.groups {
		p.Groups = append(p.Groups, int(g))
	}
	return p
}

// ownFolder makes a folder for a unit; its parents are the supervisor's. The mode of a
// folder that exists is left alone, since the unit may have chosen it.
func ownFolder(path string, id *identity) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("cannot make folder: %w", err)
	}
	err := os.Mkdir(path, 0o755)
	if err != nil && !os.IsExist(err) {
		return fmt.Errorf("cannot make folder: %w", err)
	}
	existed := err != nil
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return fmt.Errorf("cannot look at folder %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return fmt.Errorf("cannot make folder %s: something else is there", path)
	}
	// Root needs no ownership; the folder may be for a user that the program changes to.
	if int(st.Uid) == id.uid || existed && id.uid == 0 {
		return nil
	}
	if err := os.Lchown(path, id.uid, id.gid); err != nil {
		return fmt.Errorf("cannot give folder away: %w", err)
	}
	return nil
}
