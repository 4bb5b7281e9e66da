// Package periodic does things now and then.
package periodic

import (
	"context"
	"time"
)

// Every calls do at intervals until the context ends.
func Every(ctx context.Context, interval time.Duration, do func()) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			do()
		}
	}
}
