package hcl

import (
	"fmt"
	"strings"

	hcl2 "github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
)

// secretFile begins a URL of a database that stands in a file.
const secretFile = "file:"

// WithoutSecrets returns a site file that everybody may read: the URL of its database, which
// may hold a password, is replaced by the name of a file that holds it, and the comments, which
// may hold an older one, are left out, as is the hash of the console's password. Lines keep their numbers. secret is that URL, or empty.
func WithoutSecrets(src []byte, file string) (public []byte, secret string, err error) {
	site, err := ParseSite(src, "site file")
	if err != nil {
		return nil, "", err
	}
	f, problems := hclwrite.ParseConfig(src, "site file", hcl2.InitialPos)
	if problems.HasErrors() {
		return nil, "", fmt.Errorf("cannot read the site file: %w", problems)
	}
	if secret = site.Database.URL; secret != "" {
		f.Body().FirstMatchingBlock("database", nil).Body().SetAttributeValue("url", cty.StringVal(secretFile+file))
	}
	if site.Console.PasswordHash != "" {
		f.Body().FirstMatchingBlock("console", nil).Body().SetAttributeValue("password_hash", cty.StringVal(""))
	}
	tokens := f.BuildTokens(nil)
	for _, token := range tokens {
		if token.Type == hclsyntax.TokenComment {
			token.Bytes = []byte(strings.Repeat("\n", strings.Count(string(token.Bytes), "\n")))
		}
	}
	return tokens.Bytes(), secret, nil
}

// SecretURL returns the database's URL, wherever it stands.
func (d *Database) SecretURL() (string, error) {
	file, elsewhere := strings.CutPrefix(d.URL, secretFile)
	if !elsewhere {
		return d.URL, nil
	}
	url, err := readFile(file)
	return strings.TrimSpace(string(url)), err
}
