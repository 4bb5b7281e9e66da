package blocking

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/waltos/waltos/services/daemon/connector"
)

func TestOtherCallsAreRefusedWithWords(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Main(ctx, []string{"-socket-dir", dir, "-cache", ""}) }()
	c := connector.Dial(filepath.Join(dir, "blocking.sock"), nil)
	defer c.Close()
	err := c.Call(t.Context(), "clone", nil, nil)
	var refused *connector.Error
	if !errors.As(err, &refused) || refused.Message != "clone is not available on this server yet" {
		t.Errorf("error %v", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
