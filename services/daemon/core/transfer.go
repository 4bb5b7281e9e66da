package core

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/waltos/waltos/services/daemon/core/archive"
	"github.com/waltos/waltos/services/daemon/core/registry"
	"github.com/waltos/waltos/services/daemon/core/remote"
	"github.com/waltos/waltos/services/daemon/trackexec"
	"github.com/waltos/waltos/services/wire/pickle"
)

// transfer is a copy of files between a client and a node (client-api §3.8).
type transfer struct {
	node     *registry.Device
	src, dir string // where the files are, and the folder where they go
	name     string // of the top one there
}

// transfer reads the parameters of a stream of files.
func (s *stream) transfer() (t transfer, err error) {
	p, err := s.ready()
	if err != nil {
		return t, err
	}
	t = transfer{src: p.text("src_path"), dir: p.text("dst_dir"), name: p.text("dst_name")}
	if t.node, err = s.nodeAt(p.text("node_ip")); err != nil {
		return t, err
	}
	if t.name != path.Base(t.name) || t.name == ".." || t.src == "" || t.dir == "" || strings.ContainsRune(t.name+t.src+t.dir, 0) {
		return t, fmt.Errorf("%q, %q and %q are no paths", t.src, t.dir, t.name)
	}
	return t, nil
}

// sendScript writes a file or folder, links to it resolved, as a tar stream. Its top
// member is "." or a name.
const sendScript = `
case "$src" in /*) ;; *) src=./$src;; esac
if [ -d "$src" ]; then cd -- "$src" && exec tar -c -f - .; fi
src=$(readlink -f -- "$src" && echo .) || exit
src=${src%??}
cd -- "${src%/*}/" && exec tar -c -f - "./${src##*/}"
`

// tarFromNode sends a file or folder of a node. Nothing but tar is ever written: a failure
// cuts the stream, and what the command says goes to the daemon's log (CN-18).
func (s *stream) tarFromNode() error {
	t, err := s.transfer()
	if err != nil {
		return err
	}
	release, err := s.claim()
	if err != nil {
		return err
	}
	defer release()
	// The client has said all: what comes is its end, which ends the command of a node that
	// would not stop by itself.
	within, cancel := context.WithCancel(s)
	defer cancel()
	left := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, s.conn.R)
		cancel()
		close(left)
	}()
	cmd, err := s.SSH.Node(within, t.node.IP, false, "src="+remote.Quote(t.src)+sendScript)
	if err != nil {
		return err
	}
	var said excerpt
	cmd.Stderr = &said
	output, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return fmt.Errorf("cannot send %s of node %s: %w", t.src, t.node.Name, err)
	}
	span := trackexec.BeginCommand(s, cmd)
	err = archive.Rename(s.conn, output, t.name, archive.Full)
	if err == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(output, maxPadding))
	}
	output.Close() // a node that goes on sending is not listened to
	if err != nil {
		cancel() // ssh would wait for what the node has to send
	}
	err = errors.Join(err, span.EndCommand(cmd, cmd.Wait()))
	if err == nil {
		err = archive.End(s.conn)
	}
	if err != nil {
		return fmt.Errorf("cannot send %s of node %s: %w: %s", t.src, t.node.Name, err, said.String())
	}
	_ = s.conn.CloseWrite()
	_ = s.conn.SetReadDeadline(time.Now().Add(leaveTimeout))
	<-left
	return nil
}

// leaveTimeout is how long a client may stay that was sent all.
const leaveTimeout = 10 * time.Second

// maxPadding bounds what follows the end of an archive: tar fills its last record.
const maxPadding = 1 << 20

// tarToNode extracts the tar stream of a client on a node. What the command says is
// shown by the client as an error.
func (s *stream) tarToNode() error {
	t, err := s.transfer()
	if err != nil {
		return s.conn.Refuse(err)
	}
	release, err := s.claim()
	if err != nil {
		return s.conn.Refuse(err)
	}
	defer release()
	dir := t.dir
	if !strings.HasPrefix(dir, "/") {
		dir = "./" + dir
	}
	cmd, err := s.SSH.Node(s, t.node.IP, false, "cd -- "+remote.Quote(dir)+" && exec tar -x -f -")
	if err != nil {
		return s.conn.Refuse(err)
	}
	cmd.Stdout, cmd.Stderr = s.conn, s.conn
	input, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return s.conn.Refuse(err)
	}
	span := trackexec.BeginCommand(s, cmd)
	failed := archive.Rename(input, s.conn.R, t.name, archive.Common)
	if failed == nil {
		failed = archive.End(input)
	}
	input.Close()
	_ = span.EndCommand(cmd, cmd.Wait())
	// A node that refuses the files says so itself.
	if failed != nil && !errors.Is(failed, syscall.EPIPE) {
		return s.conn.Refuse(failed)
	}
	s.conn.Finish()
	return nil
}

// tarFromImage would send files of an image. There is no way to say that it does not, and
// validate_image_cp has said it.
func (s *stream) tarFromImage() error {
	_, err := s.ready()
	return err
}

// tarToImage would write files to an image.
func (s *stream) tarToImage() error {
	if _, err := s.ready(); err != nil {
		return err
	}
	return s.conn.Refuse(errLater)
}

// tarForImageBuild would build an image from a folder of the client (client-api §3.9).
func (s *stream) tarForImageBuild() error {
	if _, err := s.ready(); err != nil {
		return err
	}
	s.conn.SetWriteDeadline(time.Now().Add(paramsTimeout))
	for _, message := range []pickle.Tuple{{"stderr", []byte(errLater.Error() + "\n")}, {"retcode", 1}} {
		data, err := pickle.Marshal(message)
		if err == nil {
			_, err = s.conn.Write(data)
		}
		if err != nil {
			return err
		}
	}
	s.conn.Finish()
	return errLater
}

// excerpt keeps the first bytes of what a command says.
type excerpt struct{ text []byte }

func (t *excerpt) Write(p []byte) (int, error) {
	const enough = 1024
	if room := enough - len(t.text); room > 0 {
		t.text = append(t.text, p[:min(room, len(p))]...)
	}
	return len(p), nil
}

func (t *excerpt) String() string { return printable(strings.TrimSpace(string(t.text))) }
