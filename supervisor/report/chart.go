package report

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"slices"
	"time"
)

// Measures of the chart, in pixels.
const (
	rowHeight  = 18
	labelWidth = 260
	plotWidth  = 900
	headHeight = 56
)

// bar is one row of the chart.
type bar struct {
	label, class string
	begin, end   time.Duration
}

// Chart writes the boot as a drawing that needs no other file (SVG 1.1): a row for the
// firmware, the kernel, each phase and each unit.
func (b Boot) Chart(w io.Writer, title string) error {
	bars := b.bars()
	var end time.Duration
	for _, row := range bars {
		end = max(end, row.end)
	}
	end = max(end, b.Ready, time.Second)
	begin := -b.Firmware
	x := func(t time.Duration) float64 {
		return labelWidth + float64(t-begin)/float64(end-begin)*plotWidth
	}
	height := headHeight + rowHeight*len(bars) + 30
	var out bytes.Buffer
	fmt.Fprintf(&out, `<?xml version="1.0" encoding="UTF-8"?>
<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d">
<style>
text { font: 12px sans-serif; fill: #222 } .title { font-size: 16px } .tick { fill: #777 }
.firmware { fill: #b8b8b8 } .kernel { fill: #7a9cc6 } .phase { fill: #6bb39a } .unit { fill: #d9b86c } .critical { fill: #d0664b } .pending { fill: #9c5fb5 }
line { stroke: #ddd } .ready { stroke: #2a7d2a; stroke-dasharray: 4 3 }
</style>
<rect width="100%%" height="100%%" fill="#fff"/>
<text class="title" x="10" y="24">%s</text>
`, labelWidth+plotWidth+90, height, escape(title))
	for t := begin.Truncate(time.Second); t <= end; t += tick(end - begin) {
		fmt.Fprintf(&out, `<line x1="%.1f" y1="%d" x2="%.1[1]f" y2="%[3]d"/><text class="tick" x="%.1[1]f" y="%[4]d">%s s</text>`+"\n",
			x(t), headHeight-8, height-20, headHeight-12, seconds(t))
	}
	for i, row := range bars {
		y := headHeight + i*rowHeight
		fmt.Fprintf(&out, `<text x="10" y="%d">%s</text><rect class="%s" x="%.1f" y="%d" width="%.1f" height="%d"/><text x="%.1f" y="%d">%.2f s</text>`+"\n",
			y+13, escape(row.label), row.class, x(row.begin), y+2, max(1, x(row.end)-x(row.begin)), rowHeight-4, x(row.end)+4, y+13, (row.end - row.begin).Seconds())
	}
	if b.Ready > 0 {
		fmt.Fprintf(&out, `<line class="ready" x1="%.1f" y1="%d" x2="%.1[1]f" y2="%[3]d"/><text x="%.1[1]f" y="%[4]d" text-anchor="end">all units had a result: %.2f s</text>`+"\n",
			x(b.Ready), headHeight, height-16, height-6, b.Ready.Seconds())
	}
	out.WriteString("</svg>\n")
	if _, err := w.Write(out.Bytes()); err != nil {
		return fmt.Errorf("cannot write the chart of the boot: %w", err)
	}
	return nil
}

func (b Boot) bars() []bar {
	var bars []bar
	if b.Firmware > 0 {
		bars = append(bars, bar{"firmware and boot loader", "firmware", -b.Firmware, 0})
	}
	if kernel := b.Kernel(); kernel > 0 {
		bars = append(bars, bar{"kernel", "kernel", 0, kernel})
	}
	for _, p := range b.Phases {
		bars = append(bars, bar{p.Name, "phase", p.Begin, max(p.Begin, p.End)})
	}
	units := slices.Clone(b.Units)
	slices.SortStableFunc(units, func(a, b UnitBoot) int { return int(a.Began - b.Began) })
	for _, u := range units {
		row := bar{u.Name, "unit", u.Began, u.Ready}
		switch {
		case u.Ready == 0:
			row.class, row.end = "pending", max(u.Began, b.Ready)
		case slices.Contains(b.Critical, u.Name):
			row.class = "critical"
		}
		bars = append(bars, row)
	}
	return bars
}

// tick is the distance of the lines of the scale: ten of them or fewer.
func tick(all time.Duration) time.Duration {
	for _, step := range []time.Duration{1, 2, 5, 10, 30, 60, 300} {
		if all/(step*time.Second) <= 10 {
			return step * time.Second
		}
	}
	return max(time.Hour, (all / 10).Truncate(time.Hour))
}

func seconds(t time.Duration) string { return fmt.Sprintf("%d", int(t.Seconds())) }

func escape(text string) string {
	var out bytes.Buffer
	if xml.EscapeText(&out, []byte(text)) != nil {
		return "" // a buffer never fails
	}
	return out.String()
}
