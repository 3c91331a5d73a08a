package main

import (
	"fmt"
	"html"
	"math"
	"os"
	"slices"
	"strings"
)

// Measures of the picture, in SVG's units.
const (
	pictureWidth = 900
	panelHeight  = 260
	panelLeft    = 70
	panelWidth   = pictureWidth - panelLeft - 20
	curveTop     = 20
	curveHeight  = panelHeight - 50
)

var colours = []string{"#c00000", "#2060c0", "#208040"}

// picture writes an SVG: one panel for each series, one colour for each policy,
// and a logarithmic scale, as the policies differ by orders of magnitude.
func picture(name string, f Fleet, lines []line) error {
	var svg strings.Builder
	fmt.Fprintf(&svg, `<?xml version="1.0"?>`+"\n"+`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n",
		pictureWidth, len(series)*panelHeight+50)
	text := func(x, y float64, colour, s string) {
		fmt.Fprintf(&svg, `<text x="%.1f" y="%.1f" fill="%s">%s</text>`+"\n", x, y, colour, html.EscapeString(s))
	}
	text(panelLeft, 16, "black", fmt.Sprintf("%d devices, %.4g logins/s, outage %v", f.Devices, f.NMS.Capacity, f.NMS.Outage))
	for k, l := range lines {
		text(panelLeft+400+float64(k)*140, 16, colours[k%len(colours)], l.name)
	}
	first := lines[0].fleet.first()
	seconds := max(1, len(lines[0].fleet.shown(span(lines)))-1)
	for i, s := range series {
		top := float64(i*panelHeight + curveTop)
		y := func(v float64) float64 {
			return top + curveHeight - curveHeight*math.Log1p(v)/math.Log1p(float64(f.Devices))
		}
		text(4, top+10, "black", s.name)
		for v := 0.0; v <= float64(f.Devices); v = max(1, v*10) {
			fmt.Fprintf(&svg, `<path d="M%d %.1fh%d" stroke="#ddd"/>`+"\n", panelLeft, y(v), panelWidth)
			text(panelLeft-45, y(v)+4, "black", fmt.Sprint(int(v)))
		}
		for k, l := range slices.Backward(lines) { // ours on top
			fmt.Fprintf(&svg, `<polyline fill="none" stroke="%s" points="`, colours[k%len(colours)])
			for sec, v := range l.fleet.shown(span(lines)) {
				fmt.Fprintf(&svg, "%.1f,%.1f ", panelLeft+panelWidth*float64(sec)/float64(seconds), y(float64(s.of(v))))
			}
			svg.WriteString(`"/>` + "\n")
		}
	}
	bottom := float64(len(series)*panelHeight + 20)
	from := float64(first) - f.NMS.Outage.Seconds()
	for part := range 5 {
		at := float64(part) / 4
		text(panelLeft+(panelWidth-20)*at, bottom-20, "black", fmt.Sprintf("%.0f", from+at*float64(seconds)))
	}
	text(panelLeft, bottom+10, "black", "seconds after the NMS answers again")
	svg.WriteString("</svg>\n")
	if err := os.WriteFile(name, []byte(svg.String()), 0o644); err != nil {
		return fmt.Errorf("writing the chart: %w", err)
	}
	return nil
}

// chart is a bar chart for the terminal: five rows, the top one labelled with
// the largest value.
func chart(values []float64) string {
	const rows = 5
	most := max(1, slices.Max(values))
	var out strings.Builder
	for row := rows; row > 0; row-- {
		label := ""
		if row == rows {
			label = fmt.Sprintf("%.0f", most)
		}
		bars := ""
		for _, v := range values {
			part := v/most*rows - float64(row-1) // how much of this row the bar fills
			bars += string([]rune(" ▁▂▃▄▅▆▇█")[int(math.Ceil(8*min(1, max(0, part))))])
		}
		fmt.Fprintf(&out, "%7s │%s\n", label, strings.TrimRight(bars, " "))
	}
	fmt.Fprintf(&out, "%7s └%s", "0", strings.Repeat("─", len(values)))
	return out.String()
}
