package core

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/waltos/waltos/services/wire/pickle"
)

// Bounds of the wheels that a client is given: they travel in one message.
const (
	maxWheels     = 16
	maxWheelBytes = 8 << 20
	// maxGiving is how many clients are given wheels at the same time: each takes several
	// copies of them in memory, until givingPause after its answer is written: then it
	// should be on its way.
	maxGiving   = 2
	givingPause = 250 * time.Millisecond
)

// requiredWheels are what pip must find, because a client that lacks one of them in its
// new version does not start again (CN-29).
var requiredWheels = []string{"client", "common", "doc"}

// getClientInstallWheels returns, by file name, the wheels that a client of another
// version installs in its own place (client-api §4.3).
func (c *call) getClientInstallWheels() (any, error) {
	select {
	case c.giving <- struct{}{}:
		context.AfterFunc(c.Context, func() { // the answer is written
			time.AfterFunc(givingPause, func() { <-c.giving })
		})
	case <-c.Done():
		return nil, c.Err()
	}
	wheels, err := readWheels(c.Wheels)
	if err != nil {
		return nil, fmt.Errorf("this server has no client of its own version to give: %w", err)
	}
	return wheels, nil
}

func readWheels(dir string) (*pickle.Dict, error) {
	files, err := filepath.Glob(filepath.Join(dir, "walt_*.whl"))
	if err != nil {
		return nil, err
	}
	var components []string
	for _, file := range files {
		component, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(file), "walt_"), "-")
		components = append(components, component)
	}
	for _, name := range requiredWheels {
		if !slices.Contains(components, name) {
			return nil, fmt.Errorf("%s holds no wheel of walt_%s", dir, name)
		}
	}
	if len(files) > maxWheels {
		return nil, fmt.Errorf("%s holds more than %d wheels", dir, maxWheels)
	}
	wheels, size := &pickle.Dict{}, int64(0)
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			return nil, err
		}
		if size += info.Size(); size > maxWheelBytes {
			return nil, fmt.Errorf("the wheels of %s have more than %d bytes", dir, maxWheelBytes)
		}
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		wheels.Set(filepath.Base(file), content)
	}
	return wheels, nil
}
