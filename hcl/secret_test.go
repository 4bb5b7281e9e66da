package hcl

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWithoutSecrets(t *testing.T) {
	file := filepath.Join(t.TempDir(), "url")
	for _, url := range []string{"", "postgres://walt:s3cret@db1,db2/walt?sslmode=require", `postgres://walt:s3cret\"x@db/walt`} {
		src := "# url = postgres://walt:s3cret@old/walt\nnetwork \"walt-net\" { ip = \"10.1.0.1/24\" } // s3cret\n/* s3cret\n s3cret */ hostname = \"here\"\n"
		if url != "" {
			src += "database {\n  url = \"" + url + "\" # s3cret\n}\n"
		}
		public, secret, err := WithoutSecrets([]byte(src), file)
		if err != nil {
			t.Fatal(err)
		}
		whole, err := ParseSite([]byte(src), "whole")
		if err != nil {
			t.Fatal(err)
		}
		site, err := ParseSite(public, "public")
		if err != nil {
			t.Fatalf("%v:\n%s", err, public)
		}
		if strings.Contains(string(public), "s3cret") || strings.Count(string(public), "\n") != strings.Count(src, "\n") {
			t.Errorf("what everybody may read:\n%s", public)
		}
		if secret != whole.Database.URL || site.HostName != "here" || (site.Database.URL == "") != (url == "") {
			t.Errorf("secret %q, site %+v", secret, site)
		}
		if err := os.WriteFile(file, []byte(secret+"\n"), 0o400); url != "" && err != nil {
			t.Fatal(err)
		}
		for name, database := range map[string]*Database{"whole": whole.Database, "public": site.Database} {
			if got, err := database.SecretURL(); err != nil || got != whole.Database.URL {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		}
		os.Remove(file)
	}
	if _, _, err := WithoutSecrets([]byte("}"), file); err == nil {
		t.Error("a malformed file is taken")
	}
	if _, err := (&Database{URL: "file:" + file}).SecretURL(); err == nil {
		t.Error("the file is missing, and nobody tells")
	}
}
