package trackexec

import (
	"fmt"
	"os"
	"time"

	"github.com/waltos/waltos/services/daemon/trackexec/format"
)

// writer writes what its recorder gathers.
type writer struct {
	Config
	recorder *Recorder
	trace    *trace   // nil: its folder is not there yet
	held     *os.File // folder of the run that this process has begun
}

// haste is how many times in a period a folder is looked for that is not there yet.
const haste = 10

// run writes until the recorder is closed, or writing fails.
func (w *writer) run() {
	ticker := time.NewTicker(w.Period / haste)
	defer ticker.Stop()
	err := w.find()
	for err == nil {
		all, closing := true, false
		select {
		case <-w.recorder.wake:
			all = false
		case <-ticker.C:
			w.recorder.announceOld()
			if err = w.find(); w.trace != nil {
				ticker.Reset(w.Period)
			}
		case <-w.recorder.stop:
			w.recorder.announceAll()
			err, closing = w.find(), true
		}
		if err == nil && w.trace != nil {
			err = w.write(all)
		}
		if closing {
			break
		}
	}
	w.recorder.turnOff()
	if w.trace != nil {
		w.trace.close()
	}
	if w.held != nil {
		w.held.Close()
	}
	if err != nil {
		w.Warn("execution tracing stops: %v", err)
	}
}

func (r *Recorder) announceOld() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.announce(r.now() - int64(lasting))
}

func (r *Recorder) announceAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.announce(r.now())
}

// find opens the folder of the present run, once it is there.
func (w *writer) find() error {
	folder, err := w.folder()
	if err != nil || folder == "" || w.trace != nil && w.trace.folder == folder {
		return err
	}
	if w.trace != nil {
		if err := w.write(true); err != nil {
			return err
		}
		w.trace.close()
		w.trace = nil
	}
	w.trace, err = openTrace(folder, w.Config)
	return err
}

// write writes the full blocks or all that was gathered.
func (w *writer) write(all bool) error {
	// The clock may have been set meanwhile: times are those that it has now.
	epoch := time.Now().UnixNano() - w.recorder.now()
	for _, block := range w.recorder.take(all) {
		if err := w.trace.write(block, epoch); err != nil {
			return err
		}
		w.recorder.give(block)
	}
	return nil
}

// trace is the folder of one process in one run, open for writing.
type trace struct {
	Config
	folder  string
	index   *os.File
	segment *os.File // nil: none is begun
	numbers []uint32 // of the segments that exist, oldest first
	size    int64    // of the last segment
	blocks  int      // in the last segment
	data    []byte
}

// write writes a block, whose times are after epoch, and its place after it.
func (t *trace) write(block *format.Block, epoch int64) error {
	if t.segment == nil || t.size >= t.Segment || t.blocks >= maxBlocks {
		if err := t.begin(); err != nil {
			return err
		}
	}
	data, entry := block.Append(t.data[:0], epoch)
	t.data = data
	entry.Segment, entry.Offset = t.numbers[len(t.numbers)-1], uint32(t.size)
	if _, err := t.segment.Write(data); err != nil {
		return fmt.Errorf("cannot write to the trace: %w", err)
	}
	t.size += int64(len(data))
	t.blocks++
	if _, err := t.index.Write(entry.Append(nil)); err != nil {
		return fmt.Errorf("cannot write to the trace: %w", err)
	}
	return nil
}

func (t *trace) close() {
	t.index.Close()
	if t.segment != nil {
		t.segment.Close()
	}
}
