package wire_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The two functions that go:linkname names have the parameters and results that the
// declarations here have: neither the compiler nor the linker compares them.
func TestTheLibrarysFunctionsHaveTheDeclaredTypes(t *testing.T) {
	dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", "golang.org/x/crypto/ssh").Output()
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]string)
	for _, file := range []string{filepath.Join(strings.TrimSpace(string(dir)), "handshake.go"), "library.go"} {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && (f.Name.Name == "writePacket" || f.Name.Name == "readPacket") {
				found[filepath.Base(file)+" "+f.Name.Name] = typeOf(f)
			}
		}
	}
	want := map[string]string{
		"handshake.go writePacket": "*handshakeTransport, []byte -> error", "library.go writePacket": "unsafe.Pointer, []byte -> error",
		"handshake.go readPacket": "*handshakeTransport -> []byte, error", "library.go readPacket": "unsafe.Pointer -> []byte, error",
	}
	for name, types := range want {
		if found[name] != types {
			t.Errorf("%s is %q, want %q", name, found[name], types)
		}
	}
}

// typeOf returns the types of a function's receiver and parameters, and of its results.
func typeOf(f *ast.FuncDecl) string {
	list := func(all ...*ast.FieldList) string {
		var out []string
		for _, fields := range all {
			if fields == nil {
				continue
			}
			for _, field := range fields.List {
				for range max(1, len(field.Names)) {
					out = append(out, types.ExprString(field.Type))
				}
			}
		}
		return strings.Join(out, ", ")
	}
	return list(f.Recv, f.Type.Params) + " -> " + list(f.Type.Results)
}
