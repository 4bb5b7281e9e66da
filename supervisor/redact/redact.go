// Package redact takes secrets out of texts that leave the machine: configuration, logs,
// command lines. It knows them by how they are written: a name that speaks of a secret
// followed by a value, passwords in URLs, authorisation headers, private keys, password
// hashes of crypt(3), tokens of known makers.
//
// It cannot know a secret that stands alone; what it takes out too much only makes a text
// harder to read.
package redact

import (
	"regexp"
	"sync"
)

// Removed stands where a secret was.
const Removed = "(removed)"

// names of settings that hold a secret, as the end of a longer name too.
const names = `(?:password|passwd|passphrase|pass|pwd|secret|token|api[_-]?key|apikey|private[_-]?key|privatekey|access[_-]?key|secret[_-]?key|psk|credentials?|auth[_-]?key|password[_-]?hash|cookie|community)`

// rule replaces what matches.
type rule struct {
	pattern *regexp.Regexp
	with    string
}

// rules are made when they are used first: the program is PID 1 too, which never does.
var rules = sync.OnceValue(func() []rule {
	return []rule{
		// PEM; also one whose end is missing.
		{regexp.MustCompile(`(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY( BLOCK)?-----.*?(-----END [A-Z0-9 ]*PRIVATE KEY( BLOCK)?-----|\z)`), Removed},
		// scheme://user:password@host
		{regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*://[^\s/:@"']*):[^\s/@"']+@`), "${1}:" + Removed + "@"},
		{regexp.MustCompile(`(?i)\b(authorization["']?\s*[:=]\s*["']?)[^\r\n]+`), "${1}" + Removed},
		{regexp.MustCompile(`(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}`), "${1} " + Removed},
		// name = "value with \" and spaces", name: 'value'
		{regexp.MustCompile(`(?i)([A-Za-z0-9_.-]*` + names + `\\?["']?\s*(?:=>|[:=])\s*)\\?"(?:[^"\\\n]|\\.)*"?`), `${1}"` + Removed + `"`},
		{regexp.MustCompile(`(?i)([A-Za-z0-9_.-]*` + names + `["']?\s*(?:=>|[:=])\s*)'[^'\n]*'?`), "${1}'" + Removed + "'"},
		// HCL and shell here-documents
		{regexp.MustCompile(`(?is)([A-Za-z0-9_.-]*` + names + `\s*=\s*)<<-?\s*["']?([A-Z_]+)["']?\n.*?\n\s*([A-Z_]+)`), "${1}" + Removed},
		// name=value, --name value
		{regexp.MustCompile(`(?i)([A-Za-z0-9_.-]*` + names + `\s*[:=]\s*)[^\s"',;(]+`), "${1}" + Removed},
		{regexp.MustCompile(`(?i)(--?[a-z0-9-]*` + names + `\s+)[^\s"'-][^\s"']*`), "${1}" + Removed},
		// crypt(5)
		{regexp.MustCompile(`\$(?:1|2[abxy]?|5|6|7|y|gy|argon2id?|sha1)\$[A-Za-z0-9./$=,]{8,}`), Removed},
		// Tokens of GitHub, GitLab, Docker and cloud makers; JSON Web Tokens.
		{regexp.MustCompile(`\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,}|dckr_pat_[A-Za-z0-9_-]{16,}|AKIA[0-9A-Z]{16}|xox[abprs]-[A-Za-z0-9-]{10,})`), Removed},
		{regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*`), Removed},
	}
})

// Text returns the text without secrets.
func Text(text []byte) []byte {
	for _, r := range rules() {
		text = r.pattern.ReplaceAll(text, []byte(r.with))
	}
	return text
}
