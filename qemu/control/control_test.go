package control

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/waltos/waltos/qemu/ethernet"
	"github.com/waltos/waltos/qemu/platform"
)

// serving serves a lab without machines; the end-to-end tests have one with some.
func serving(t *testing.T) (folder string, end <-chan error) {
	t.Helper()
	// Deeper than the address of a unix socket may be long.
	folder = filepath.Join(t.TempDir(), strings.Repeat("deep/", 30))
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	lab := &platform.Lab{Switch: ethernet.New()}
	socket, _, err := lab.Switch.Socket("node1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	listener, err := Listen(folder)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	result := make(chan error, 1)
	go func() { result <- Serve(ctx, listener, lab) }()
	return folder, result
}

func limited(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestStatus(t *testing.T) {
	folder, _ := serving(t)
	answer, err := Ask(limited(t), folder, Request{Command: Status})
	if err != nil {
		t.Fatal(err)
	}
	if answer.Summary.PID != os.Getpid() || len(answer.Ports) != 1 || answer.Ports[0].Name != "node1" {
		t.Errorf("the status is %+v", answer)
	}
}

func TestRefusals(t *testing.T) {
	folder, _ := serving(t)
	for _, request := range []Request{{Command: Reset, Name: "node9"}, {Command: "nonsense"}, {}} {
		if _, err := Ask(limited(t), folder, request); err == nil || !strings.Contains(err.Error(), "no machine is named") {
			t.Errorf("%+v was answered with: %v", request, err)
		}
	}
	if _, err := Attach(limited(t), folder, "node9"); err == nil {
		t.Error("a console of no machine was attached")
	}
}

func TestHostileRequests(t *testing.T) {
	folder, _ := serving(t)
	for name, data := range map[string]string{
		"no JSON": "hello\n", "nothing": "\n", "endless": strings.Repeat("x", 2*maxLine),
	} {
		c, err := dial(limited(t), folder)
		if err != nil {
			t.Fatal(err)
		}
		c.Write([]byte(data)) // may be cut short by the other side
		var answer Answer
		if err := readLine(c.reader, &answer); err == nil && answer.Error == "" {
			t.Errorf("%s was accepted", name)
		}
		c.Close()
	}
	if _, err := Ask(limited(t), folder, Request{Command: Status}); err != nil {
		t.Errorf("after them: %v", err)
	}
}

func TestStop(t *testing.T) {
	folder, end := serving(t)
	c, err := dial(limited(t), folder)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.ask(Request{Command: Stop}); err != nil {
		t.Fatal(err)
	}
	if err := <-end; err != nil {
		t.Errorf("Serve ended with: %v", err)
	}
	if _, err := Ask(limited(t), folder, Request{Command: Status}); !errors.Is(err, ErrNone) {
		t.Errorf("a stopped lab answered: %v", err)
	}
	if listener, err := Listen(folder); err != nil {
		t.Errorf("the next lab cannot listen: %v", err)
	} else {
		listener.Close()
	}
}

func TestNoLab(t *testing.T) {
	for _, folder := range []string{t.TempDir(), "/nonexistent"} {
		if _, err := Ask(limited(t), folder, Request{Command: Stop}); !errors.Is(err, ErrNone) {
			t.Errorf("without a lab in %s: %v", folder, err)
		}
	}
}
