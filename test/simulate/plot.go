package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// orders is a scale of orders of magnitude that has room for zero.
type orders struct{}

func (orders) Normalize(low, high, x float64) float64 {
	return (math.Log1p(x) - math.Log1p(low)) / (math.Log1p(high) - math.Log1p(low))
}

func (orders) Ticks(_, high float64) []plot.Tick {
	ticks := []plot.Tick{{Value: 0, Label: "0"}}
	for v := 1.0; v <= high; v *= 10 {
		ticks = append(ticks, plot.Tick{Value: v, Label: fmt.Sprint(int(v))})
	}
	return ticks
}

// picture writes a figure: each series below the other, a colour a policy.
func picture(name string, f Fleet, lines []line) error {
	format := strings.TrimPrefix(filepath.Ext(name), ".")
	canvas, err := draw.NewFormattedCanvas(24*vg.Centimeter, 24*vg.Centimeter, format)
	if err != nil {
		return fmt.Errorf("drawing %s: %w", name, err)
	}
	var plots [][]*plot.Plot
	for i, s := range series {
		p := plot.New()
		p.Y.Label.Text = s.name
		p.Y.Scale, p.Y.Tick.Marker, p.Y.Min, p.Y.Max = orders{}, orders{}, 0, float64(f.Devices)
		p.Add(plotter.NewGrid())
		for k, l := range slices.Backward(lines) { // ours on top
			points := make(plotter.XYs, 0)
			for sec, v := range l.fleet.shown(span(lines)) {
				points = append(points, plotter.XY{X: float64(l.fleet.first()+sec) - f.NMS.Outage.Seconds(), Y: float64(s.of(v))})
			}
			drawn, err := plotter.NewLine(points)
			if err != nil {
				return fmt.Errorf("drawing %s of %s: %w", s.name, l.name, err)
			}
			drawn.Color = plotutil.Color(k)
			p.Add(drawn)
			if i == 0 {
				p.Legend.Add(l.name, drawn)
			}
		}
		p.Legend.Top = true
		plots = append(plots, []*plot.Plot{p})
	}
	plots[0][0].Title.Text = fmt.Sprintf("%d devices, %.4g logins/s, outage %v", f.Devices, f.NMS.Capacity, f.NMS.Outage)
	plots[len(plots)-1][0].X.Label.Text = "seconds after the NMS answers again"
	tiles := draw.Tiles{Rows: len(plots), Cols: 1, PadY: vg.Centimeter / 2}
	for i, c := range plot.Align(plots, tiles, draw.New(canvas)) {
		plots[i][0].Draw(c[0])
	}
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	if _, err := canvas.WriteTo(file); err != nil {
		file.Close()
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return file.Close()
}
