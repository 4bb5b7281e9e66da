package redact

import (
	"bytes"
	"strings"
	"testing"
)

// secret stands in every text below; none may be left of it.
const secret = "hunter2Zebra"

func TestSecretsGo(t *testing.T) {
	for _, text := range []string{
		`password = "hunter2Zebra"`,
		`database { url = "postgres://walt:hunter2Zebra@db1,db2/walt?x=y" }`,
		`registry_password: hunter2Zebra`,
		`DB_PASSWORD=hunter2Zebra cmd`,
		`{"password":"hunter2Zebra","user":"x"}`,
		`{"line":"{\"token\":\"hunter2Zebra\"}"}`,
		`password = "with \" quote hunter2Zebra"`,
		`'api_key': 'hunter2Zebra and more'`,
		`passwd: hunter2Zebra`,
		`psql --password hunter2Zebra -h x`,
		`Authorization: Bearer hunter2Zebra.abc.def`,
		`Authorization: Digest username="x", response="hunter2Zebra"`,
		`curl -H "authorization: hunter2Zebra"`,
		"-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2Zebra\nb3Bl\n-----END OPENSSH PRIVATE KEY-----\n",
		"-----BEGIN RSA PRIVATE KEY-----\nhunter2Zebra\n",
		`root:$6$rounds=5000$hunter2Zebra$hunter2Zebra/abc:19000`,
		`password_hash = "$2b$12$hunter2Zebrahunter2Zebra"`,
		`hash $y$j9T$hunter2Zebra$hunter2Zebra`,
		"secret = <<EOT\nhunter2Zebra\nEOT\n",
		`wpa_psk=hunter2Zebra`,
		`community = "hunter2Zebra"`,
		`https://user:hunter2Zebra@host/path`,
		`walt.token=hunter2Zebra quiet`,
	} {
		if got := Text([]byte(text)); bytes.Contains(got, []byte(secret)) {
			t.Errorf("%s\n  became %s", text, got)
		}
	}
}

func TestRestStays(t *testing.T) {
	for _, text := range []string{
		`ssh { authorized_keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA admin"] }`,
		`network "walt-net" { ip = "192.168.152.1/24" }`,
		"walt-server-main: running after 1.20 s\n",
		`https://host:8080/path@x`,
		`[    0.000000] Command line: console=ttyS0 panic=10 walt.root=root-a walt.verity=ab12,cd34,100,4096`,
		`bypass the cache`,
		`sshd: Accepted publickey for root from 10.0.2.2 port 40000 ssh2: ED25519 SHA256:abc`,
		`no password needed`,
	} {
		if got := string(Text([]byte(text))); got != text {
			t.Errorf("%s\n  became %s", text, got)
		}
	}
}

func FuzzText(f *testing.F) {
	f.Add(`password = "`, `x`)
	f.Add(`{"a":"b"`, `\`)
	f.Fuzz(func(t *testing.T, before, after string) {
		// Whatever stands around it, a quoted value on a line of its own goes.
		text := before + "\npassword = \"" + secret + "\"\n" + after
		if strings.Contains(before+after, secret) {
			return
		}
		once := Text([]byte(text))
		if bytes.Contains(once, []byte(secret)) {
			t.Errorf("%q became %q", text, once)
		}
	})
}
