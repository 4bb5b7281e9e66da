package compose

import (
	"fmt"
	"slices"
	"strings"

	"github.com/waltos/waltos/hcl"
	"github.com/waltos/waltos/image/tree"
)

// baseGroups are groups that files of Debian packages belong to, with the numbers
// that Debian fixes (base-passwd).
var baseGroups = []struct {
	name string
	id   int
}{{"tty", 5}, {"disk", 6}, {"mail", 8}, {"kmem", 15}, {"shadow", 42}, {"utmp", 43}, {"staff", 50}}

// addAccounts writes passwd(5), group(5) and shadow(5). No account has a password.
func addAccounts(t *tree.Tree, users []*hcl.User) error {
	var passwd, group, shadow strings.Builder
	byID := slices.SortedFunc(slices.Values(users), func(a, b *hcl.User) int { return a.ID - b.ID })
	members := map[string][]string{}
	for _, u := range byID {
		for _, name := range u.Groups {
			members[name] = append(members[name], u.Name)
		}
	}
	for _, u := range byID {
		fmt.Fprintf(&passwd, "%s:x:%d:%d:%s:%s:%s\n", u.Name, u.ID, u.ID, u.Name, u.Home, u.Shell)
		fmt.Fprintf(&shadow, "%s:*:::::::\n", u.Name)
		fmt.Fprintf(&group, "%s:x:%d:%s\n", u.Name, u.ID, strings.Join(members[u.Name], ","))
		delete(members, u.Name)
	}
	for _, g := range baseGroups {
		fmt.Fprintf(&group, "%s:x:%d:%s\n", g.name, g.id, strings.Join(members[g.name], ","))
		delete(members, g.name)
	}
	for name := range members {
		return fmt.Errorf("cannot make accounts: no group is named %q", name)
	}
	for name, f := range map[string]*tree.File{
		"/etc/passwd": {Mode: 0o644, Content: []byte(passwd.String())},
		"/etc/group":  {Mode: 0o644, Content: []byte(group.String())},
		"/etc/shadow": {Mode: 0o640, GID: 42, Content: []byte(shadow.String())},
	} {
		f.Origin = "appliance.hcl"
		if err := t.Replace(name, f); err != nil {
			return err
		}
	}
	return nil
}
