package core

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/waltos/waltos/services/daemon/core/text"
	"github.com/waltos/waltos/services/daemon/db"
	"github.com/waltos/waltos/services/wire/pickle"
)

func (c *call) countLogs() (any, error) {
	filter := db.LogFilter{
		Issuers:         c.texts("issuers"),
		StreamsRegexp:   c.text("streams_regexp"),
		LineRegexp:      c.text("logline_regexp"),
		Mode:            c.text("stream_mode"),
		ExcludeConsoles: c.flag("exclude_consoles"),
	}
	switch history := c.value("history").(type) {
	case nil:
	case pickle.Tuple:
		if len(history) != 2 {
			return nil, fmt.Errorf("count_logs() argument 'history' must be a pair")
		}
		var err error
		if filter.Start, err = bound(history[0]); err != nil {
			return nil, err
		}
		if filter.End, err = bound(history[1]); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("count_logs() argument 'history' must be a pair")
	}
	count, err := asked(c, func(ctx context.Context) (int, error) { return c.Logs.Count(ctx, filter) })
	if err != nil {
		return nil, err
	}
	return int64(count), nil
}

// bound reads one bound of a history.
func bound(value any) (*float64, error) {
	if value == nil {
		return nil, nil
	}
	seconds, ok := convert(timeKind, value)
	if !ok {
		return nil, fmt.Errorf("count_logs() argument 'history' must hold numbers")
	}
	f := seconds.(float64)
	return &f, nil
}

// seconds is a time as Python's time.time() gives it.
func seconds(t time.Time) float64 { return float64(t.UnixMicro()) / 1e6 }

func (c *call) getTime() (any, error) { return seconds(time.Now()), nil }

// maxDate bounds the dates of checkpoints, in seconds: the year 9999, as in Python.
const maxDate = 253402300799

func (c *call) addCheckpoint() (any, error) {
	user, err := c.user()
	if err != nil {
		return c.fail(err, nil)
	}
	at := time.Now()
	if date, given := c.value("date").(float64); given {
		if math.IsNaN(date) || date < 0 || date > maxDate {
			return nil, fmt.Errorf("%v is not the date of a checkpoint", date)
		}
		at = time.UnixMicro(int64(math.Round(date * 1e6)))
	}
	at = at.Truncate(time.Microsecond)
	cp := db.Checkpoint{User: user, Name: c.text("cp_name"), Time: at}
	var created bool
	err = c.stored(c, func(ctx context.Context) (err error) {
		created, err = c.Store.SaveCheckpoint(ctx, cp)
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case !created:
		return c.fail(&text.Refusal{Text: text.CheckpointExists}, nil)
	}
	c.out(fmt.Sprintf("New checkpoint %s recorded at server time: %s.\n", cp.Name, dateText(at)))
	return nil, nil
}

// dateText is str() of a Python datetime in local time: no fraction when it is 0.
func dateText(t time.Time) string {
	layout := "2006-01-02 15:04:05.000000"
	if t.Nanosecond()/1000 == 0 {
		layout = time.DateTime
	}
	return t.Local().Format(layout)
}

func (c *call) removeCheckpoint() (any, error) {
	user, err := c.user()
	if err != nil {
		return c.fail(err, nil)
	}
	var deleted bool
	err = c.stored(c, func(ctx context.Context) (err error) {
		deleted, err = c.Store.DeleteCheckpoint(ctx, user, c.text("cp_name"))
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case !deleted:
		return c.fail(text.NoSuchCheckpoint(c.text("cp_name")), nil)
	}
	c.out(text.Done)
	return nil, nil
}

func (c *call) checkpoints() ([]db.Checkpoint, error) {
	user, err := c.user()
	if err != nil {
		return nil, err
	}
	return asked(c, func(ctx context.Context) ([]db.Checkpoint, error) { return c.Store.Checkpoints(ctx, user) })
}

func (c *call) listCheckpoints() (any, error) {
	found, err := c.checkpoints()
	if err != nil {
		return c.fail(err, nil)
	}
	if len(found) == 0 {
		c.out(text.NoCheckpoint)
		return nil, nil
	}
	rows := make([][]any, len(found))
	for i, cp := range found {
		rows[i] = []any{dateText(cp.Time), cp.Name}
	}
	c.out(text.List([]string{"timestamp", "name"}, rows) + "\n")
	return nil, nil
}

func (c *call) getCheckpointTime() (any, error) {
	found, err := c.checkpoints()
	if err != nil {
		return c.fail(err, nil)
	}
	name := c.text("cp_name")
	i := slices.IndexFunc(found, func(cp db.Checkpoint) bool { return cp.Name == name })
	if i < 0 {
		return c.fail(text.NoSuchCheckpoint(name), nil)
	}
	return seconds(found[i].Time), nil
}
