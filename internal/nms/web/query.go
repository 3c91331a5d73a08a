package web

import (
	"cmp"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"callhome/internal/nms/nmsproto"
)

// pageRows is how many devices a page lists.
const pageRows = 100

// maxText is how much of a search is used, in bytes: each word is looked for in the text
// of each device.
const maxText = 256

// query says which devices are listed, and in which order.
type query struct {
	Text, State, Label, Station, Software string
	Sort                                  string // a key of orders
	Down                                  bool   // the greatest first
	Page                                  int    // from 1
}

// orders are the columns that a list can be sorted by.
var orders = map[string]func(a, b *row) int{
	"id":       func(_, _ *row) int { return 0 }, // rows are by id
	"state":    func(a, b *row) int { return strings.Compare(string(a.State), string(b.State)) },
	"since":    func(a, b *row) int { return timeOf(a.Since).Compare(timeOf(b.Since)) },
	"address":  func(a, b *row) int { return strings.Compare(a.Address, b.Address) },
	"sessions": func(a, b *row) int { return cmp.Compare(a.Sessions, b.Sessions) },
	"software": func(a, b *row) int { return strings.Compare(a.Software, b.Software) },
	"station":  func(a, b *row) int { return strings.Compare(a.Station, b.Station) },
	"error":    func(a, b *row) int { return timeOf(a.ErrorTime).Compare(timeOf(b.ErrorTime)) },
}

// absent are the devices that have nothing in a column; they are listed last.
var absent = map[string]func(*row) bool{
	"since": func(r *row) bool { return r.Since == nil },
	"error": func(r *row) bool { return r.ErrorTime == nil },
}

func timeOf(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

// readQuery reads a query from the parameters of a page; what it does not know it
// leaves out.
func readQuery(v url.Values) query {
	q := query{Text: strings.ToValidUTF8(v.Get("q")[:min(len(v.Get("q")), maxText)], ""), State: v.Get("state"), Label: v.Get("label"), Station: v.Get("station"), Software: v.Get("software"), Sort: v.Get("sort"), Down: v.Get("order") == "down"}
	if orders[q.Sort] == nil {
		q.Sort = "id"
	}
	if !slices.Contains(nmsproto.States, nmsproto.State(q.State)) {
		q.State = ""
	}
	page, err := strconv.Atoi(v.Get("page"))
	if q.Page = page; err != nil || page < 1 {
		q.Page = 1
	}
	return q
}

// URL returns the page of a query.
func (q query) URL() string {
	v := make(url.Values)
	for name, value := range map[string]string{"q": q.Text, "state": q.State, "label": q.Label, "station": q.Station, "software": q.Software} {
		if value != "" {
			v.Set(name, value)
		}
	}
	if q.Sort != "id" {
		v.Set("sort", q.Sort)
	}
	if q.Down {
		v.Set("order", "down")
	}
	if q.Page > 1 {
		v.Set("page", strconv.Itoa(q.Page))
	}
	if len(v) == 0 {
		return "/devices"
	}
	return "/devices?" + v.Encode()
}

// On returns the query for another page.
func (q query) On(page int) query {
	q.Page = page
	return q
}

// By returns the query in another order: by that column, or the other way round.
func (q query) By(column string) query {
	q.Down = q.Sort == column && !q.Down
	q.Sort, q.Page = column, 1
	return q
}

// sorted returns the order of a column as aria-sort has it, "" for another column's.
func (q query) sorted(column string) string {
	switch {
	case q.Sort != column:
		return ""
	case q.Down:
		return "descending"
	}
	return "ascending"
}

// Filtered reports whether devices are left out.
func (q query) Filtered() bool {
	return q.Text+q.State+q.Label+q.Station+q.Software != ""
}

// match reports whether a device is listed; words are the lower-case words of Text.
func (q query) match(r *row, words []string) bool {
	if q.State != "" && string(r.State) != q.State || q.Station != "" && r.Station != q.Station || q.Software != "" && r.Software != q.Software {
		return false
	}
	if q.Label != "" {
		name, value, both := strings.Cut(q.Label, "=")
		got, ok := r.Labels[name]
		if !ok || both && got != value {
			return false
		}
	}
	return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(r.text, w) })
}

// found are the devices of one page, of all that match.
type found struct {
	Rows        []*row
	Total       int
	First, Last int // the numbers of the page's devices, from 1
	Pages       int
	Query       query // its page is one that exists
}

// find returns a page of the devices that match.
func (s *snapshot) find(q query) found {
	words := strings.Fields(strings.ToLower(q.Text))
	var all []*row
	for i := range s.Rows {
		if q.match(&s.Rows[i], words) {
			all = append(all, &s.Rows[i])
		}
	}
	if order := orders[q.Sort]; q.Sort != "id" {
		slices.SortStableFunc(all, order)
	}
	if q.Down {
		slices.Reverse(all)
	}
	if without := absent[q.Sort]; without != nil {
		with := slices.DeleteFunc(slices.Clone(all), without)
		all = append(with, slices.DeleteFunc(all, func(r *row) bool { return !without(r) })...)
	}
	out := found{Total: len(all), Pages: max(1, (len(all)+pageRows-1)/pageRows), Query: q}
	out.Query.Page = min(q.Page, out.Pages)
	from := (out.Query.Page - 1) * pageRows
	out.Rows = all[from:min(from+pageRows, len(all))]
	out.First, out.Last = from+1, from+len(out.Rows)
	return out
}

// longestLost returns the devices that are lost for the longest time.
func (s *snapshot) longestLost(most int) []*row {
	q := query{State: string(nmsproto.Lost), Sort: "since", Page: 1}
	rows := s.find(q).Rows
	return rows[:min(len(rows), most)]
}
