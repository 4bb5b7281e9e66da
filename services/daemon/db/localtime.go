package db

import (
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// localTime is a column "timestamp without time zone" that holds server local time:
// PostgreSQL keeps clock fields, which pgx shows as if they were UTC.
type localTime struct{ pgtype.Timestamp }

func newLocalTime(micros int64) localTime {
	t := time.UnixMicro(micros).In(time.Local)
	return localTime{pgtype.Timestamp{Time: fields(t, time.UTC), Valid: true}}
}

func (t localTime) micros() int64 { return fields(t.Time, time.Local).UnixMicro() }

// fields returns the instant that has the clock fields of t in another zone.
func fields(t time.Time, zone *time.Location) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), zone)
}
