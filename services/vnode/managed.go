package vnode

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxCommand bounds a line of the server: the longest is console input.
const maxCommand = 1 << 20

// obey runs the commands of the server until it says EXIT, or is gone: nobody could
// reach the node any more then, or end it.
func (n *node) obey(commands io.Reader) {
	r := bufio.NewReaderSize(commands, 64<<10)
	for {
		line, err := readCommand(r)
		if err == nil && line == "EXIT" {
			return
		}
		if err == nil && line == "" {
			continue // whoever takes over begins so: the last one may have left half a line
		}
		if err == nil {
			err = n.command(line)
		} else if !errors.Is(err, errLongCommand) {
			return
		}
		if err != nil {
			n.say("Invalid command, ignored: %.200s", line)
		}
	}
}

var errLongCommand = errors.New("the command is too long")

// readCommand reads a line, and the whole of one that is too long.
func readCommand(r *bufio.Reader) (string, error) {
	var line []byte
	long := false
	for {
		part, err := r.ReadSlice('\n')
		if long = long || len(line)+len(part) > maxCommand; !long {
			line = append(line, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil:
			return "", err
		case long:
			return string(line), errLongCommand
		}
		return strings.TrimRight(string(line), "\r\n"), nil
	}
}

// command runs a command.
func (n *node) command(line string) error {
	word, rest, _ := strings.Cut(line, " ")
	switch word {
	case "CONF":
		attribute, value, _ := strings.Cut(rest, " ")
		n.mu.Lock()
		defer n.mu.Unlock()
		if attribute == "hostname" { // the node was renamed
			return n.rename(strings.TrimSpace(value))
		}
		return n.settings.set(attribute, strings.TrimSpace(value))
	case "INPUT":
		data, err := base64.StdEncoding.DecodeString(rest)
		if err != nil {
			return err
		}
		n.input.send(data)
		return nil
	case "KILL_VM":
		n.kill()
		return nil
	}
	return fmt.Errorf("there is no command %.20q", word)
}
