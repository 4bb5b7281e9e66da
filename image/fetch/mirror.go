package fetch

import (
	"bufio"
	"net/url"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/waltos/waltos/image/debian"
)

// Names of the archives, which are also their folders on the snapshot archive.
const (
	Debian   = "debian"
	Security = "debian-security"
)

// The public names that Debian gives everyone, used when nothing nearer is known.
const (
	publicDebian   = "http://ftp.debian.org/debian"
	publicSecurity = "http://security.debian.org/debian-security"
	publicSnapshot = "https://snapshot.debian.org/archive"
)

// ArchiveOf names the archive that holds a suite.
func ArchiveOf(suite string) string {
	if strings.HasSuffix(suite, "-security") {
		return Security
	}
	return Debian
}

// Mirror is where archives are read from: addresses (http, https, file) or folders
// that hold dists/ and pool/.
type Mirror struct {
	Debian   string
	Security string
}

func (m Mirror) base(archive string) string {
	if archive == Security {
		return m.Security
	}
	return m.Debian
}

// FindMirror chooses the mirror: the setting, else $WALT_MIRROR, else what the host's
// apt uses below etc (as "/etc/apt"), else Debian's public names. A setting is one
// base, or two separated by a comma: Debian and its security archive.
func FindMirror(setting, etc string) Mirror {
	if setting == "" {
		setting = os.Getenv("WALT_MIRROR")
	}
	if setting != "" {
		base, security, _ := strings.Cut(setting, ",")
		return complete(strings.TrimSpace(base), strings.TrimSpace(security))
	}
	var base, security string
	for _, uri := range aptSources(etc) {
		switch {
		case base == "" && strings.HasSuffix(uri, "/debian"):
			base = uri
		case security == "" && strings.HasSuffix(uri, "/debian-security"):
			security = uri
		}
	}
	return complete(base, security)
}

// complete derives the security archive, which mirrors keep beside the main one.
func complete(base, security string) Mirror {
	base, security = strings.TrimRight(base, "/"), strings.TrimRight(security, "/")
	if base == "" {
		base = publicDebian
		if security == "" {
			security = publicSecurity
		}
	}
	if security == "" {
		if stem, found := strings.CutSuffix(base, "/debian"); found {
			security = stem + "/debian-security"
		} else if sub := filepath.Join(base, Security); isFolder(base) && isFolder(sub) {
			// A folder that holds both archives.
			base, security = filepath.Join(base, Debian), sub
		} else {
			security = base
		}
	}
	return Mirror{base, security}
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// aptSources returns the addresses in the host's apt sources, in the order apt reads
// them, without a trailing slash. What cannot be read is left out: the host's
// configuration is a hint.
func aptSources(etc string) []string {
	files := []string{filepath.Join(etc, "sources.list")}
	more, _ := filepath.Glob(filepath.Join(etc, "sources.list.d", "*"))
	sort.Strings(more)
	var uris []string
	add := func(uri string) {
		// "mirror+file:/path" names a file with one address a line.
		if path, found := strings.CutPrefix(uri, "mirror+file:"); found {
			uri = firstLine(path)
		}
		if u, err := url.Parse(uri); err == nil && (u.Scheme == "http" || u.Scheme == "https" || u.Scheme == "file") {
			uris = append(uris, strings.TrimRight(uri, "/"))
		}
	}
	for _, path := range append(files, more...) {
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		switch filepath.Ext(path) {
		case ".sources":
			for stanzas := debian.NewStanzaReader(f); ; {
				s, err := stanzas.Next()
				if err != nil {
					break
				}
				if s.Get("Enabled") == "no" || !strings.Contains(" "+s.Get("Types")+" ", " deb ") {
					continue
				}
				for _, uri := range strings.Fields(s.Get("URIs")) {
					add(uri)
				}
			}
		case ".list":
			for lines := bufio.NewScanner(f); lines.Scan(); {
				text, _, _ := strings.Cut(lines.Text(), "#")
				if open := strings.IndexByte(text, '['); open >= 0 { // options
					if end := strings.IndexByte(text, ']'); end > open {
						text = text[:open] + text[end+1:]
					}
				}
				if words := strings.Fields(text); len(words) > 1 && words[0] == "deb" {
					add(words[1])
				}
			}
		}
		f.Close()
	}
	return uris
}

func firstLine(path string) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(raw)), "\n")
	if words := strings.Fields(line); len(words) > 0 {
		return words[0]
	}
	return ""
}
