package chrony

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"time"

	"golang.org/x/sys/unix"

	"github.com/waltos/waltos/hcl"
)

// lookTime is how often the kernel is asked: it tells nobody.
const lookTime = 250 * time.Millisecond

// MainWait waits until the clock is synchronised, for units that need the right time. It
// ends well after the limit too, because an appliance without a source of time must serve all
// the same; nothing is waited for where no source is configured.
func MainWait(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("time-sync", flag.ContinueOnError)
	sitePath := flags.String("site", "/run/walt/site.hcl", "site file in effect")
	limit := flags.Duration("limit", 30*time.Second, "how long to wait; 0: for ever")
	if err := flags.Parse(args); err != nil {
		return err
	}
	site, err := hcl.LoadSite(*sitePath)
	if err != nil {
		return err
	}
	if len(site.Time.Servers) == 0 {
		log.Print("the site file names no time servers; going on with the clock as it is")
		return nil
	}
	ticker := time.NewTicker(lookTime)
	defer ticker.Stop()
	synchronised, err := wait(ctx, *limit, ticker.C, kernelSynchronised)
	switch {
	case err != nil:
		return err
	case synchronised:
		log.Print("the clock is synchronised")
	default:
		log.Printf("the clock is not synchronised after %v; going on with it as it is", *limit)
	}
	return nil
}

// wait asks at each tick until the answer is yes, or the limit is over.
func wait(ctx context.Context, limit time.Duration, tick <-chan time.Time, ask func() (bool, error)) (bool, error) {
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit, errLimit)
		defer cancel()
	}
	for {
		if yes, err := ask(); yes || err != nil {
			return yes, err
		}
		select {
		case <-tick:
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), errLimit) {
				return false, nil
			}
			return false, ctx.Err()
		}
	}
}

var errLimit = errors.New("the limit is over")

// kernelSynchronised tells what chrony has told the kernel (adjtimex(2)).
func kernelSynchronised() (bool, error) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return false, fmt.Errorf("cannot ask the kernel for the state of the clock: %w", err)
	}
	return state != unix.TIME_ERROR, nil
}
