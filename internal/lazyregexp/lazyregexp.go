// Package lazyregexp owns regular expressions of package variables. Each is compiled
// when it is first used: a command that uses none does not wait for the compilation
// of all. Both wings use it.
package lazyregexp

import (
	"regexp"
	"sync"
)

// New returns a function that compiles expr once and returns it. It panics then if expr
// is no regular expression.
func New(expr string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
}
