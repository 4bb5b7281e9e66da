package text

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Table is table A of §2.3: node show, image show, device show. Columns are field names:
// their text after ":" is hidden and their "_" print as "-". A nil cell is empty, a bool
// prints as in Python. No row gives no text, not even titles.
//
// Upstream cuts titles to the length of the longest cell of the whole table, where nil
// counts four characters (CN-19); so does this.
func Table(columns []string, rows [][]any) string {
	if len(rows) == 0 {
		return ""
	}
	longest := 0
	cells := make([][]string, len(rows))
	for i, row := range rows {
		cells[i] = make([]string, len(row))
		for j, value := range row {
			cells[i][j] = cell(value)
			length := utf8.RuneCountInString(cells[i][j])
			if value == nil {
				length = len("None")
			}
			longest = max(longest, length)
		}
	}
	titles := make([]string, len(columns))
	for i, column := range columns {
		name, _, _ := strings.Cut(column, ":")
		titles[i] = cut(strings.ReplaceAll(name, "_", "-"), longest)
	}
	return layout(titles, cells)
}

// List is table B of §2.3: checkpoints and search results. The "_" of titles print as
// blanks, and titles are never cut.
func List(titles []string, rows [][]any) string {
	cells := make([][]string, len(rows))
	for i, row := range rows {
		cells[i] = make([]string, len(row))
		for j, value := range row {
			cells[i][j] = cell(value)
		}
	}
	printed := make([]string, len(titles))
	for i, title := range titles {
		printed[i] = strings.ReplaceAll(title, "_", " ")
	}
	return layout(printed, cells)
}

func cell(value any) string {
	switch v := value.(type) {
	case nil:
		return ""
	case string:
		return v
	case bool:
		if v {
			return "True"
		}
		return "False"
	default:
		return fmt.Sprint(v)
	}
}

// cut keeps the first n characters of s.
func cut(s string, n int) string {
	for i := range s {
		if n == 0 {
			return s[:i]
		}
		n--
	}
	return s
}

// layout pads every cell, also of the last column, to the width of its column.
func layout(titles []string, rows [][]string) string {
	widths := make([]int, len(titles))
	for i, title := range titles {
		widths[i] = utf8.RuneCountInString(title)
	}
	for _, row := range rows {
		for i, c := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
		}
	}
	line := 0
	for _, width := range widths {
		line += width + 2
	}
	var b strings.Builder
	b.Grow(line * (len(rows) + 2))
	write := func(row []string) {
		for i, c := range row {
			if i > 0 {
				b.WriteString("  ")
			}
			b.WriteString(c)
			blanks(&b, widths[i]-utf8.RuneCountInString(c))
		}
	}
	write(titles)
	b.WriteByte('\n')
	for i, width := range widths {
		if i > 0 {
			b.WriteString("  ")
		}
		for range width {
			b.WriteByte('-')
		}
	}
	for _, row := range rows {
		b.WriteByte('\n')
		write(row)
	}
	return b.String()
}

func blanks(b *strings.Builder, n int) {
	const many = "                                "
	for n > len(many) {
		b.WriteString(many)
		n -= len(many)
	}
	b.WriteString(many[:n])
}
