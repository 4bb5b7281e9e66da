package waltctl

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/waltos/waltos/supervisor/unit"
)

// table writes columns, which may be coloured: only what is seen counts for the width.
type table struct {
	right []bool // columns that end at the same place
	rows  [][]cell
}

type cell struct{ text, color string }

func plain(texts ...string) []cell {
	row := make([]cell, len(texts))
	for i, text := range texts {
		row[i].text = text
	}
	return row
}

func (t *table) add(row []cell) { t.rows = append(t.rows, row) }

func (t *table) write(w io.Writer, colored bool) error {
	var widths []int
	for _, row := range t.rows {
		for i, c := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	var out strings.Builder
	for _, row := range t.rows {
		line := ""
		for i, c := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text))
			text := paint(c.text, c.color, colored)
			if i < len(t.right) && t.right[i] {
				line += pad + text + "  "
			} else {
				line += text + pad + "  "
			}
		}
		out.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// Colours of ECMA-48.
const (
	red    = "31"
	green  = "32"
	yellow = "33"
	bold   = "1"
	faint  = "2"
)

func paint(text, color string, colored bool) string {
	if !colored || color == "" {
		return text
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}

func stateColor(s unit.State) string {
	switch s {
	case unit.Scheduled, unit.Listening, unit.Running, unit.Done:
		return green
	case unit.Failed, unit.Blocked:
		return red
	case unit.Stopped:
		return faint
	}
	return yellow
}

// age prints a duration with its two largest units.
func age(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
}

func size(bytes int64) string {
	switch {
	case bytes == 0:
		return "-"
	case bytes < 10<<20:
		return fmt.Sprintf("%.1fM", float64(bytes)/(1<<20))
	}
	return fmt.Sprintf("%dM", bytes>>20)
}
