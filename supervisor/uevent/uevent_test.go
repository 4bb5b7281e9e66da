package uevent

import "testing"

func TestParse(t *testing.T) {
	e := parse([]byte("add@/devices/x\x00ACTION=add\x00MODALIAS=pci:v1=2\x00"))
	if e["ACTION"] != "add" || e["MODALIAS"] != "pci:v1=2" || len(e) != 2 {
		t.Errorf("%v", e)
	}
	for _, bad := range []string{"", "libudev\x00x=y", "add@/x"} {
		if parse([]byte(bad)) != nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("add@/devices/x\x00ACTION=add\x00"))
	f.Fuzz(func(t *testing.T, message []byte) { parse(message) })
}
