package web

import (
	"fmt"
	"time"

	"callhome/internal/nms/nmsproto"
)

// Sizes of a chart, in units of its view box.
const (
	chartWidth  = 720
	chartHalf   = 56 // above and below the line in the middle
	chartMargin = 30 // at the left, for the numbers
	chartFoot   = 18 // for the times
	lastTick    = 4  // that many counts at the end have no time below them
)

// chart is a time line: logins above the line, losses below.
type chart struct {
	ID, Title               string
	Most                    int // the greatest number
	Bars                    []bar
	Marks                   []tick
	Rows                    []line // the same as a table, without times in which nothing happened
	Logins, Losses, Refused int
}

type bar struct {
	X, Y, Width, Height string
	Kind                string // logins or losses
	Title               string
}

type tick struct{ X, Text string }

type line struct {
	Time string
	nmsproto.Count
}

// newChart returns the chart of counts, each for a time of that length; the last one
// ends at end. The multiples of every are named.
func newChart(id, title string, counts []nmsproto.Count, end time.Time, length, every time.Duration) chart {
	c := chart{ID: id, Title: title, Most: 1}
	for _, n := range counts {
		c.Most = max(c.Most, n.Logins, n.Losses)
		c.Logins += n.Logins
		c.Losses += n.Losses
		c.Refused += n.Refused
	}
	step := float64(chartWidth-chartMargin) / float64(max(1, len(counts)))
	scale := float64(chartHalf-4) / float64(c.Most)
	for i, n := range counts {
		begin := end.Add(-length * time.Duration(len(counts)-i)).UTC()
		at := begin.Format("15:04")
		x := chartMargin + float64(i)*step
		for _, b := range []struct {
			kind string
			n    int
			up   bool
		}{{"logins", n.Logins, true}, {"losses", n.Losses, false}} {
			if b.n == 0 {
				continue
			}
			height := max(2, float64(b.n)*scale)
			y := float64(chartHalf) + 1
			if b.up {
				y = float64(chartHalf) - 1 - height
			}
			c.Bars = append(c.Bars, bar{decimal(x), decimal(y), decimal(step * 0.8), decimal(height), b.kind, fmt.Sprintf("%s: %d %s", at, b.n, b.kind)})
		}
		if begin.Equal(begin.Truncate(every)) && i < len(counts)-lastTick {
			c.Marks = append(c.Marks, tick{decimal(x), at})
		}
		if n != (nmsproto.Count{}) {
			c.Rows = append(c.Rows, line{at, n})
		}
	}
	return c
}

func decimal(f float64) string { return fmt.Sprintf("%.1f", f) }
