package memory

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestTrim: the pages of the program go, and the program goes on.
func TestTrim(t *testing.T) {
	before := filePages(t)
	Trim()
	if after := filePages(t); after >= before {
		t.Errorf("%d KiB of the program were there, %d are", before, after)
	}
	maps := "00400000-00a00000 r-xp 00000000 00:01 7 /init\n00a00000-00b00000 rw-p 00600000 00:01 7 /init\n" +
		"c000000000-c000400000 rw-p 00000000 00:00 0\n00c00000-00d00000 r--p 0 00:01 8 /lib/other\nbad line\n"
	if got := programPages(maps, "/init"); len(got) != 1 || got[0] != [2]uintptr{0x400000, 0xa00000} {
		t.Errorf("%x", got)
	}
}

func filePages(t *testing.T) int {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "RssFile:"); ok {
			n, err := strconv.Atoi(strings.Fields(value)[0])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Skip("the kernel does not tell RssFile")
	return 0
}
