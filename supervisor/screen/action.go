package screen

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/waltos/waltos/supervisor/rescue"
)

// face is a way to speak with a person: a whole screen, or lines of text.
type face interface {
	// ask asks for a line; ok is false if the person gives up.
	ask(question, proposal string) (answer string, ok bool)
	// secret asks for a line that is not shown.
	secret(question string) (answer string, ok bool)
	// show shows lines until the person has seen them.
	show(title string, lines []string)
	// follow shows lines as they come, until the person has seen enough.
	follow(ctx context.Context, title string, feed func(ctx context.Context, each func(string)))
	// lend gives the terminal to somebody else for a while.
	lend(func() error) error
}

// action is what a key does.
type action struct {
	key    rune
	name   string
	always bool // also when the boot has failed
	run    func(*Console, face) error
}

// actions in the order of the last line.
var actions = []action{
	{'L', "Logs", true, (*Console).logs},
	{'F', "Follow logs", false, (*Console).follow},
	{'N', "Network", false, (*Console).network},
	{'S', "Shell", true, (*Console).shell},
	{'R', "Reboot", true, func(c *Console, f face) error { return c.end(f, "reboot") }},
	{'P', "Power off", true, func(c *Console, f face) error { return c.end(f, "poweroff") }},
}

// Console is what a person at a console can do.
type Console struct {
	Machine Machine
	Self    string // this program, for the rescue shell
	Shell   string // of the root, when it can be run: "/bin/bash"

	terminal *Terminal
	locked   bool
}

// Machine is what the actions act upon.
type Machine interface {
	// Log returns the last lines.
	Log(ctx context.Context, lines int) ([]string, error)
	// Follow calls each for lines from now on.
	Follow(ctx context.Context, each func(line string)) error
	// Site returns the text of the configuration.
	Site() ([]byte, error)
	// Configure checks a configuration, makes it the one in effect and tells what it did.
	Configure(ctx context.Context, text []byte) (string, error)
	// End is "reboot" or "poweroff".
	End(ctx context.Context, what string) error
	// Admit tells whether a password opens the console; without one it is open.
	Admit(password string) bool
}

// do does what a key says, after the password if there is one.
func (c *Console) do(key rune, f face) {
	for _, a := range actions {
		if a.key != key && a.key != key-'a'+'A' {
			continue
		}
		if c.locked && !c.unlock(f) {
			return
		}
		if err := a.run(c, f); err != nil {
			f.show(a.name, strings.Split(err.Error(), "\n"))
		}
		return
	}
}

func (c *Console) unlock(f face) bool {
	password, ok := f.secret("Password of the console:")
	if !ok {
		return false
	}
	if !c.Machine.Admit(password) {
		time.Sleep(time.Second) // whoever guesses has to be patient
		f.show("Password", []string{"It is not this one."})
		return false
	}
	c.locked = false
	return true
}

// logLines is how many lines are shown to look back.
const logLines = 2000

func (c *Console) logs(f face) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	lines, err := c.Machine.Log(ctx, logLines)
	if err != nil {
		return err
	}
	f.show("Logs", lines)
	return nil
}

func (c *Console) follow(f face) error {
	var failure error
	f.follow(context.Background(), "Logs as they come", func(ctx context.Context, each func(string)) {
		failure = c.Machine.Follow(ctx, each)
		if ctx.Err() != nil {
			failure = nil
		}
	})
	return failure
}

// probeTime is how long the disk may take to show that it can give a shell.
const probeTime = 3 * time.Second

// shell runs the shell of the root if the disk still gives it, else the one in this program.
func (c *Console) shell(f face) error {
	return f.lend(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), probeTime)
		defer cancel()
		probe := exec.CommandContext(ctx, c.Shell, "-c", "exit 0")
		probe.WaitDelay = time.Second
		if err := probe.Run(); err == nil {
			c.terminal.print("\nThis is a shell of the administrator; \"exit\" comes back to the console.\n")
			return ended(c.terminal.run(c.Shell, "-bash"))
		}
		return ended(c.terminal.run(c.Self, rescue.Name, "-idle", idleTime.String()))
	})
}

// ended takes the status of a shell for no error.
func ended(err error) error {
	if _, ok := err.(*exec.ExitError); ok {
		return nil
	}
	return err
}

func (c *Console) end(f face, what string) error {
	answer, ok := f.ask(fmt.Sprintf("To %s type yes:", what), "")
	if !ok || answer != "yes" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return c.Machine.End(ctx, what)
}
