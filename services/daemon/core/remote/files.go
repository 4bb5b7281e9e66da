package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/waltos/waltos/services/daemon/trackexec"
)

const (
	// typesTimeout bounds one try at the types of files.
	typesTimeout = 20 * time.Second
	// completionTimeout bounds the completion of a path: the helper of shells gives up
	// after 4 s.
	completionTimeout = 3 * time.Second
	maxCompletions    = 64 << 10 // bytes
)

// Type is the type of a file, links followed.
type Type string

// The types of files.
const (
	Regular Type = "f"
	Folder  Type = "d"
	Other   Type = "o"
	Missing Type = "m"
)

// typesScript prints one type a line. Paths begin by "/" or "./".
const typesScript = `t() {
	if [ -f "$1" ]; then echo f; elif [ -d "$1" ]; then echo d; elif [ -e "$1" ]; then echo o; else echo m; fi
}
`

// Types returns the types of files of a node, relative paths being below the home of
// root. The error is that the node did not answer, which is tried twice.
func (s SSH) Types(ctx context.Context, ip string, paths ...string) ([]Type, error) {
	script := typesScript
	for _, path := range paths {
		if strings.ContainsRune(path, 0) {
			return nil, fmt.Errorf("%q is not a path", path)
		}
		script += "t " + Quote(path) + "\n"
	}
	types, err := s.types(ctx, ip, script)
	if err != nil && ctx.Err() == nil {
		types, err = s.types(ctx, ip, script)
	}
	if err == nil && len(types) != len(paths) {
		err = errNonsense
	}
	return types, err
}

var errNonsense = errors.New("the node did not answer properly")

func (s SSH) types(ctx context.Context, ip, script string) ([]Type, error) {
	said, err := s.script(ctx, ip, script, typesTimeout, 4096)
	if err != nil {
		return nil, err
	}
	var types []Type
	for line := range strings.Lines(said) {
		switch t := Type(strings.TrimSpace(line)); t {
		case Regular, Folder, Other, Missing:
			types = append(types, t)
		default:
			return nil, errNonsense
		}
	}
	return types, nil
}

// script runs a script on a node and returns what it prints, size bytes at most.
func (s SSH) script(ctx context.Context, ip, script string, timeout time.Duration, size int) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd, err := s.Node(ctx, ip, false, "exec sh")
	if err != nil {
		return "", err
	}
	var said bytes.Buffer
	cmd.Stdin, cmd.Stdout = strings.NewReader(script), &atMost{&said, size}
	if err := trackexec.RunCommand(ctx, cmd, cmd.Run); err != nil {
		return "", fmt.Errorf("cannot ask node %s: %w", ip, err)
	}
	return said.String(), nil
}

// Completions lists the files of a node whose paths begin by partial, then the folders,
// followed by "/". A node that does not answer in time has none, and names that a shell
// would split are left out.
func (s SSH) Completions(ctx context.Context, ip, partial string) []string {
	if strings.ContainsRune(partial, 0) {
		return nil
	}
	said, err := s.script(ctx, ip, `d=
for f in `+Quote(partial)+`*; do
	if [ -d "$f" ]; then d="$d$f/
"; elif [ -e "$f" ] || [ -L "$f" ]; then printf '%s\n' "$f"; fi
done
printf %s "$d"
`, completionTimeout, maxCompletions)
	if err != nil {
		return nil // completion is only a help
	}
	var list []string
	for line := range strings.Lines(said) {
		path := strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(path, partial) && !strings.ContainsAny(path, " \t\r\v\f") {
			list = append(list, path)
		}
	}
	return list
}
