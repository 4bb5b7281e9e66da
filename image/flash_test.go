package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/waltos/waltos/image/flash"
)

func TestConfirmed(t *testing.T) {
	device := &flash.Device{Path: "/dev/sdb", ID: "usb-Stick_0123"}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, test := range []struct{ typed, option, want string }{
		{"usb-Stick_0123\n", "", ""},
		{"", "usb-Stick_0123", ""},
		{"yes\n", "", `"yes" is not the id of /dev/sdb, which is "usb-Stick_0123"; nothing was written`},
		{"", "", "not confirmed; nothing was written"},
		{"usb-Stick_0123\n", "sdb", `"sdb" is not the id`},
	} {
		var out bytes.Buffer
		err := confirmed(strings.NewReader(test.typed), &out, device, test.option)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q %q: %v", test.typed, test.option, err)
		}
	}
	if err := confirmed(null, os.Stderr, device, ""); err == nil || !strings.Contains(err.Error(), "--confirm usb-Stick_0123") {
		t.Errorf("without a terminal: %v", err)
	}
}
