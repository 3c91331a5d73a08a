package markdown

import "testing"

func TestBlocks(t *testing.T) {
	text := "intro\n\n<!-- run: a -->\n\n    one\n\n      two\n\ntext\n    no block\n\n<!-- not run: b -->\n```sh\n    three\n```\n<!-- run: c -->\ntext\n\n    four\n"
	want := []Block{{"f", 5, "", "one\n\n  two\n", "run: a"}, {"f", 13, "sh", "    three\n", "not run: b"}, {"f", 19, "", "four\n", ""}}
	got := Blocks("f", text)
	if len(got) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%+v, want %+v", got[i], want[i])
		}
	}
}
