package process

import (
	"runtime"
	"sync"
)

// KeepThreads makes threads that then wait for work. The runtime of Go ends a program that needs one
// more and gets none, as when the machine has as many as it can have; it never ends one that it
// has.
func KeepThreads(n int) {
	var ready, ended sync.WaitGroup
	ready.Add(n)
	for range n {
		ended.Go(func() {
			runtime.LockOSThread() // so that each has its own
			defer runtime.UnlockOSThread()
			ready.Done()
			ready.Wait()
		})
	}
	ended.Wait()
}
