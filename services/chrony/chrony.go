// Package chrony starts Debian's chronyd as the clock of the platform: it writes the
// configuration from the site file, then becomes the daemon (execve). Nodes may ask
// the time even when the server itself has no source.
package chrony

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/waltos/waltos/hcl"
)

// Main runs as the user of chronyd, with the capabilities to set the clock and to answer at
// the port of NTP.
func Main(_ context.Context, args []string) error {
	flags := flag.NewFlagSet("chrony", flag.ContinueOnError)
	sitePath := flags.String("site", "/run/walt/site.hcl", "site file in effect")
	conf := flags.String("conf", "/run/chrony/chrony.conf", "configuration to write")
	server := flags.String("server", "/usr/sbin/chronyd", "the chrony daemon")
	if err := flags.Parse(args); err != nil {
		return err
	}
	site, err := hcl.LoadSite(*sitePath)
	if err != nil {
		return err
	}
	if err := os.WriteFile(*conf, configuration(site), 0o644); err != nil {
		return fmt.Errorf("cannot configure chrony: %w", err)
	}
	argv := []string{*server, "-d", "-F", "0", "-U", "-f", *conf}
	return fmt.Errorf("cannot execute %s: %w", *server, unix.Exec(*server, argv, os.Environ()))
}

// configuration is a chrony.conf(5).
func configuration(site *hcl.Site) []byte {
	var b bytes.Buffer
	for _, server := range site.Time.Servers {
		fmt.Fprintf(&b, "pool %s iburst\n", server)
	}
	fmt.Fprintf(&b, "allow %s\n", site.Server().Masked())
	b.WriteString("local stratum 10\n" + // nodes agree with each other even without a source
		"driftfile /var/lib/chrony/drift\n" +
		"makestep 1 3\n" +
		"rtcsync\n" +
		"cmdport 0\n" +
		"bindcmdaddress /run/chrony/chronyd.sock\n")
	return b.Bytes()
}
