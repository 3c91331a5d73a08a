package cmdline

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"
)

// LongFlag is --long, which TableWidth reads.
func LongFlag() cli.Flag {
	return &cli.BoolFlag{Name: "long", Usage: "print every column in full, however wide the terminal is"}
}

// Width returns the columns of a terminal; 0 where w is no terminal.
func Width(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return width
}

// TableWidth returns the width that tables on standard output have; 0 for any: with
// --long, and where a program reads them.
func TableWidth(c *cli.Context) int {
	if c.Bool("long") {
		return 0
	}
	return Width(os.Stdout)
}

// Column is a column of a Table.
type Column struct {
	Title string
	// Rank says which columns a table leaves out first where it is wider than the
	// terminal: the highest. Those with 0 stay.
	Rank int
	// Whole columns are never cut short.
	Whole bool
	// KeepEnd has a cell cut at its beginning: the last words of an error say most.
	KeepEnd bool
	// Optional columns are left out where no row has a cell in them.
	Optional bool
}

// Table aligns cells in columns.
type Table struct {
	columns []Column
	rows    [][]string
}

// NewTable returns an empty table.
func NewTable(columns ...Column) *Table {
	t := &Table{columns: columns}
	var titles []any
	for _, c := range columns {
		titles = append(titles, c.Title)
	}
	t.Row(titles...)
	return t
}

// Row adds a row with a cell for each column.
func (t *Table) Row(cells ...any) {
	var row []string
	for _, c := range cells {
		row = append(row, fmt.Sprint(c))
	}
	t.rows = append(t.rows, row)
}

// gap is the space between two columns.
const gap = 2

// Print prints the table in lines of at most width columns, 0 for any: it leaves out
// columns by rank, and then cuts the widest short.
func (t *Table) Print(w io.Writer, width int) {
	shown := t.fit(width)
	for _, row := range t.rows {
		var line strings.Builder
		for i, size := range shown {
			if size == 0 {
				continue
			}
			cell := t.columns[i].cut(row[i], size)
			line.WriteString(cell + strings.Repeat(" ", size-utf8.RuneCountInString(cell)+gap))
		}
		fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
	}
}

// fit returns the width of each column, 0 for one that is left out.
func (t *Table) fit(width int) []int {
	sizes := make([]int, len(t.columns))
	total := -gap
	for i := range t.columns {
		for _, row := range t.rows {
			sizes[i] = max(sizes[i], utf8.RuneCountInString(row[i]))
		}
		if t.columns[i].Optional && !slices.ContainsFunc(t.rows[1:], func(row []string) bool { return row[i] != "" }) {
			sizes[i] = 0
			continue
		}
		total += sizes[i] + gap
	}
	for width > 0 && total > width {
		out := -1
		for i, c := range t.columns {
			if sizes[i] > 0 && c.Rank > 0 && (out < 0 || c.Rank > t.columns[out].Rank) {
				out = i
			}
		}
		if out < 0 {
			break
		}
		total -= sizes[out] + gap
		sizes[out] = 0
	}
	for width > 0 && total > width {
		widest := -1
		for i, c := range t.columns {
			if !c.Whole && sizes[i] > shortest && (widest < 0 || sizes[i] > sizes[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			break
		}
		sizes[widest]--
		total--
	}
	return sizes
}

// shortest is the least that a column is cut to.
const shortest = 6

// cut shortens a cell to size characters.
func (c Column) cut(cell string, size int) string {
	if utf8.RuneCountInString(cell) <= size {
		return cell
	}
	const mark = "..."
	runes := []rune(cell)
	if c.KeepEnd {
		return mark + string(runes[len(runes)-size+len(mark):])
	}
	return string(runes[:size-len(mark)]) + mark
}
