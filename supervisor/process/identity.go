package process

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/waltos/waltos/hcl"
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
	if err := checkCapabilities(u); err != nil {
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

// apply sets the user and its capabilities, unless the supervisor already is that user
// (root units, and tests without privilege).
func (id *identity) apply(attributes *syscall.SysProcAttr, u *hcl.Unit) {
	if id.uid == os.Getuid() {
		return
	}
	attributes.Credential = &syscall.Credential{Uid: uint32(id.uid), Gid: uint32(id.gid), Groups: id.groups}
	for _, name := range u.Capabilities {
		attributes.AmbientCaps = append(attributes.AmbientCaps, capabilities[name])
	}
}

// checkCapabilities refuses names that do not exist.
func checkCapabilities(u *hcl.Unit) error {
	for _, name := range u.Capabilities {
		if _, ok := capabilities[name]; !ok {
			return fmt.Errorf("cannot give capability %q: no such capability", name)
		}
	}
	return nil
}

// capabilities by name, from capabilities(7).
var capabilities = map[string]uintptr{
	"CAP_CHOWN": unix.CAP_CHOWN, "CAP_DAC_OVERRIDE": unix.CAP_DAC_OVERRIDE,
	"CAP_DAC_READ_SEARCH": unix.CAP_DAC_READ_SEARCH, "CAP_FOWNER": unix.CAP_FOWNER,
	"CAP_FSETID": unix.CAP_FSETID, "CAP_KILL": unix.CAP_KILL, "CAP_SETGID": unix.CAP_SETGID,
	"CAP_SETUID": unix.CAP_SETUID, "CAP_SETPCAP": unix.CAP_SETPCAP,
	"CAP_LINUX_IMMUTABLE": unix.CAP_LINUX_IMMUTABLE, "CAP_NET_BIND_SERVICE": unix.CAP_NET_BIND_SERVICE,
	"CAP_NET_BROADCAST": unix.CAP_NET_BROADCAST, "CAP_NET_ADMIN": unix.CAP_NET_ADMIN,
	"CAP_NET_RAW": unix.CAP_NET_RAW, "CAP_IPC_LOCK": unix.CAP_IPC_LOCK, "CAP_IPC_OWNER": unix.CAP_IPC_OWNER,
	"CAP_SYS_MODULE": unix.CAP_SYS_MODULE, "CAP_SYS_RAWIO": unix.CAP_SYS_RAWIO,
	"CAP_SYS_CHROOT": unix.CAP_SYS_CHROOT, "CAP_SYS_PTRACE": unix.CAP_SYS_PTRACE,
	"CAP_SYS_PACCT": unix.CAP_SYS_PACCT, "CAP_SYS_ADMIN": unix.CAP_SYS_ADMIN,
	"CAP_SYS_BOOT": unix.CAP_SYS_BOOT, "CAP_SYS_NICE": unix.CAP_SYS_NICE,
	"CAP_SYS_RESOURCE": unix.CAP_SYS_RESOURCE, "CAP_SYS_TIME": unix.CAP_SYS_TIME,
	"CAP_SYS_TTY_CONFIG": unix.CAP_SYS_TTY_CONFIG, "CAP_MKNOD": unix.CAP_MKNOD, "CAP_LEASE": unix.CAP_LEASE,
	"CAP_AUDIT_WRITE": unix.CAP_AUDIT_WRITE, "CAP_AUDIT_CONTROL": unix.CAP_AUDIT_CONTROL,
	"CAP_SETFCAP": unix.CAP_SETFCAP, "CAP_MAC_OVERRIDE": unix.CAP_MAC_OVERRIDE,
	"CAP_MAC_ADMIN": unix.CAP_MAC_ADMIN, "CAP_SYSLOG": unix.CAP_SYSLOG, "CAP_WAKE_ALARM": unix.CAP_WAKE_ALARM,
	"CAP_BLOCK_SUSPEND": unix.CAP_BLOCK_SUSPEND, "CAP_AUDIT_READ": unix.CAP_AUDIT_READ,
	"CAP_PERFMON": unix.CAP_PERFMON, "CAP_BPF": unix.CAP_BPF, "CAP_CHECKPOINT_RESTORE": unix.CAP_CHECKPOINT_RESTORE,
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
