package remote

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const local = "127.0.0.1"

func output(t *testing.T, s SSH, terminal bool, command, input string) string {
	t.Helper()
	cmd, err := s.Node(t.Context(), local, terminal, command)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin = strings.NewReader(input)
	out, _ := cmd.CombinedOutput()
	return string(out)
}

func TestNode(t *testing.T) {
	m, s := newMachine(t)
	if got := output(t, s, false, "cat; echo $HOME >&2", "hello\n"); got != "hello\n"+m.home+"\n" {
		t.Errorf("got %q", got)
	}
	if user := <-m.users; user != "root" {
		t.Errorf("logged in as %s", user)
	}
	if got := output(t, s, false, "", "echo it is a shell\n"); !strings.HasSuffix(got, "it is a shell\n") {
		t.Errorf("got %q", got)
	}
	// A node of another key is none of ours.
	if err := os.WriteFile(s.KnownNodes, []byte("walt.node ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ3gyU9kTXQeHZ0dT9cZ3mTqfQHqg9pWZ1Yk7kVdEYdT\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := output(t, s, false, "echo reached", ""); strings.Contains(got, "reached\n") {
		t.Errorf("a node of another key is reached: %q", got)
	}
}

// What a client wants to run, and addresses and names from anywhere, are never taken for
// options of ssh.
func TestCN17NothingIsAnOption(t *testing.T) {
	m, s := newMachine(t)
	made := filepath.Join(t.TempDir(), "made")
	evil := "-oProxyCommand=touch${IFS}" + made
	said := output(t, s, false, evil, "")
	if len(m.users) != 1 {
		t.Errorf("a command that begins with a dash is not for the node: %q", said)
	}
	for _, ip := range []string{evil, "", "127.0.0.1 -v", "localhost", "127.0.0.1\n", "1.2.3"} {
		if _, err := s.Node(t.Context(), ip, false, "true"); err == nil {
			t.Errorf("%q is an address", ip)
		}
		if _, _, err := s.Shell(t.Context(), ip, "root"); err == nil {
			t.Errorf("%q is an address", ip)
		}
	}
	for _, user := range []string{evil, "-l", "a b", "a@b", "a\n", "a;b", "ü", "$(id)"} {
		if _, _, err := s.Shell(t.Context(), local, user); err == nil {
			t.Errorf("%q is a login name", user)
		}
	}
	if _, err := os.Lstat(made); err == nil {
		t.Error("an option was obeyed")
	}
}

func TestShell(t *testing.T) {
	m, s := newMachine(t)
	kept := func() []string {
		names, _ := filepath.Glob(filepath.Join(os.TempDir(), "known_hosts.*"))
		return names
	}
	t.Setenv("TMPDIR", t.TempDir())
	for _, user := range []string{"alice", ""} {
		cmd, clean, err := s.Shell(t.Context(), local, user)
		if err != nil {
			t.Fatal(err)
		}
		files := kept()
		if len(files) != 1 {
			t.Fatalf("host keys are kept in %q", files)
		}
		if keys, err := os.ReadFile(files[0]); !strings.Contains(string(keys), "ecdsa-sha2-nistp256") {
			t.Errorf("scanned %q, %v", keys, err)
		}
		cmd.Stdin = strings.NewReader("echo reached\n")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.HasSuffix(string(out), "reached\n") || strings.Contains(string(out), "Permanently added") {
			t.Errorf("got %q, %v", out, err)
		}
		clean()
		if files := kept(); len(files) > 0 {
			t.Errorf("host keys stay in %q", files)
		}
		if name := <-m.users; user != "" && name != user {
			t.Errorf("%s logs in as %s", user, name)
		}
	}
}

// awkward are names that a shell could misread.
var awkward = []string{
	"it's", `a "quoted" name`, "two\nlines", "tail\n", "-n", "--", "$(touch x)", "`touch x`", "a;b", "*", "~", "!", "(", "é", "\\", "a  b",
}

func TestTypes(t *testing.T) {
	m, s := newMachine(t)
	m.make("folder/", "file")
	if err := os.Symlink("folder", filepath.Join(m.home, "link")); err != nil {
		t.Fatal(err)
	}
	paths := []string{"./folder", "./link", m.home + "/file", "./none", "/dev/null", "/"}
	want := []Type{Folder, Folder, Regular, Missing, Other, Folder}
	for _, name := range awkward {
		m.make(name)
		paths, want = append(paths, "./"+name, "./no"+name), append(want, Regular, Missing)
	}
	if got, err := s.Types(t.Context(), local, paths...); err != nil || !slices.Equal(got, want) {
		t.Errorf("types %v, %v, want %v", got, err, want)
	}
	if _, err := os.Lstat(filepath.Join(m.home, "x")); err == nil {
		t.Error("a name was obeyed")
	}
	if _, err := s.Types(t.Context(), local, "a\x00b"); err == nil {
		t.Error("NUL is part of a path")
	}
	logins := len(m.users)
	s.KnownNodes = "/dev/null"
	if got, err := s.Types(t.Context(), local, "./x"); err == nil {
		t.Errorf("a node that is not reached answers %v", got)
	}
	if len(m.users) != logins {
		t.Errorf("%d logins", len(m.users))
	}
}

func TestCompletions(t *testing.T) {
	m, s := newMachine(t)
	m.make("boot/", "bin/", "bin/sh", "bin/ls", "books.txt", "-file", "it's", "two words")
	for _, test := range []struct {
		partial string
		want    []string
	}{
		{"", []string{"-file", "books.txt", "it's", "bin/", "boot/"}},
		{"bo", []string{"books.txt", "boot/"}},
		{"bin", []string{"bin/"}},
		{"bin/", []string{"bin/ls", "bin/sh"}},
		{"./b", []string{"./books.txt", "./bin/", "./boot/"}},
		{"-", []string{"-file"}},
		{"it'", []string{"it's"}},
		{m.home + "/bi", []string{m.home + "/bin/"}},
		{"none", nil},
		{"$(touch x)", nil},
		{"*", nil},
		{"b\x00", nil},
	} {
		if got := s.Completions(t.Context(), local, test.partial); !slices.Equal(got, test.want) {
			t.Errorf("%q completes to %q, want %q", test.partial, got, test.want)
		}
	}
	if _, err := os.Lstat(filepath.Join(m.home, "x")); err == nil {
		t.Error("a name was obeyed")
	}
	s.KnownNodes = "/dev/null"
	if got := s.Completions(t.Context(), local, "b"); got != nil {
		t.Errorf("a node that is not reached completes to %q", got)
	}
}

// FuzzQuote: a quoted text is one word to a shell, that text.
func FuzzQuote(f *testing.F) {
	for _, name := range awkward {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, text string) {
		word := Quote(text)
		var plain strings.Builder
		for quoted, i := false, 0; i < len(word); i++ {
			switch {
			case word[i] == '\'':
				quoted = !quoted
			case quoted:
				plain.WriteByte(word[i])
			case word[i] == '\\' && i+1 < len(word):
				i++
				plain.WriteByte(word[i])
			default:
				t.Fatalf("%q is quoted as %q", text, word)
			}
		}
		if plain.String() != text {
			t.Fatalf("%q is read as %q", text, plain.String())
		}
	})
}
