package system

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/waltos/waltos/supervisor/control"
)

const (
	dataMount = "/var"
	spaceTime = 10 * time.Second
)

// watchSpace says on the console when the data partition gets full, and when it is no
// longer: the services that cannot store anything then say so to their clients only.
func (s *system) watchSpace() func() {
	full := false
	return func() {
		data := dataSpace()
		// Between the two bounds the last word stands.
		switch {
		case !full && data.Full():
			full = true
			s.console.Say("data partition: FULL (%d MiB free of %d MiB): nothing new is stored; remove logs or images, or use a larger disk", data.Free>>20, data.Size>>20)
		case full && data.Free > 2*data.Reserve():
			full = false
			s.console.Say("data partition: %d MiB are free again", data.Free>>20)
		}
	}
}

// dataSpace measures the data partition; zero if it cannot.
func dataSpace() control.Space {
	var fs unix.Statfs_t
	if unix.Statfs(dataMount, &fs) != nil {
		return control.Space{}
	}
	return control.Space{Size: int64(fs.Blocks) * fs.Frsize, Free: int64(fs.Bavail) * fs.Frsize}
}
