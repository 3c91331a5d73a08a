package internal_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Each requirement of RFC 8071 has a row, and the tests that it names are there.
// A row without a test says what is not met.
func TestEveryRequirementHasItsTests(t *testing.T) {
	page, err := os.ReadFile("../docs/rfc8071.md")
	if err != nil {
		t.Fatal(err)
	}
	there := testsOfTheProject(t)
	for _, name := range regexp.MustCompile(`\bTest\w+`).FindAllString(string(page), -1) {
		if !there[name] {
			t.Errorf("there is no test %s", name)
		}
	}
	var numbers []string
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != 6 || strings.Trim(cells[1], " -") == "" {
			continue
		}
		number, how, tests := strings.TrimSpace(cells[1]), cells[3], strings.TrimSpace(cells[4])
		if numbers = append(numbers, number); tests == "" && !strings.HasPrefix(strings.TrimSpace(how), "not met") {
			t.Errorf("%s has no test and is not said to be unmet", number)
		}
	}
	for side, last := range map[string]int{"C": 8, "S": 7, "2-": 3, "5-": 5} {
		for i := range last {
			if number := fmt.Sprint(side, i+1); !slices.Contains(numbers, number) {
				t.Errorf("%s has no row", number)
			}
		}
	}
}

// testsOfTheProject are the names of all its test functions, whatever build
// they belong to.
func testsOfTheProject(t *testing.T) map[string]bool {
	t.Helper()
	all := make(map[string]bool)
	function := regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\)`)
	err := filepath.WalkDir("..", func(name string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(name, "_test.go") {
			return err
		}
		text, err := os.ReadFile(name)
		for _, m := range function.FindAllStringSubmatch(string(text), -1) {
			all[m[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
