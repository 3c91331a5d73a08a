package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"callhome/internal/atomicfile"
	"callhome/internal/cmdline"
	"callhome/internal/nms/control"
	"callhome/internal/nms/nmsproto"
	"callhome/internal/nms/registry"
	"callhome/internal/printable"
	"callhome/internal/sysexits"

	"github.com/urfave/cli/v2"
)

func transferCommands() []*cli.Command {
	return []*cli.Command{
		{Name: "import", Usage: "put the entries in the files of a directory into the cluster's registry", ArgsUsage: "DIRECTORY", Action: importDevices, Flags: []cli.Flag{socketFlag()}},
		{Name: "export", Usage: "write the registry to files in a directory", ArgsUsage: "DIRECTORY", Action: exportDevices, Flags: []cli.Flag{
			socketFlag(),
			&cli.BoolFlag{Name: "prune", Usage: "remove the files of devices that the registry does not have"},
		}},
	}
}

// importPart bounds the entries of one request, in bytes: proto.MaxLine less the rest.
const importPart = 48 << 10

// importRequest is a part of an import, with the file of each entry.
type importRequest struct {
	nmsproto.ImportParams
	files []string
	size  int
}

// importRequests are requests that have a part each of what is to be imported.
type importRequests []*importRequest

// next returns the request that takes n further bytes.
func (r *importRequests) next(n int) *importRequest {
	last := len(*r) - 1
	if last < 0 || (*r)[last].size+n > importPart {
		*r, last = append(*r, new(importRequest)), last+1
	}
	(*r)[last].size += n
	return (*r)[last]
}

func (r *importRequests) entry(file string, text json.RawMessage) {
	to := r.next(len(text))
	to.Entries, to.files = append(to.Entries, text), append(to.files, file)
}

func (r *importRequests) revoked(line string) {
	to := r.next(len(line) + len(`"",`))
	to.Revoked = append(to.Revoked, line)
}

// importDevices sends each entry whose file can be read, and reports the others.
func importDevices(c *cli.Context) error {
	if c.NArg() != 1 {
		return program.Usage(errors.New("expected one DIRECTORY with files of entries"))
	}
	dir := c.Args().First()
	files, err := os.ReadDir(dir)
	if err != nil {
		return sysexits.New(sysexits.NoInput, "", err)
	}
	failed := 0
	fail := func(name string, why any) {
		failed++
		fmt.Fprintf(os.Stderr, "callhome-nms: %s: %v\n", filepath.Join(dir, name), why)
	}
	var requests importRequests
	for _, f := range files {
		entry, revoked, err := readForImport(filepath.Join(dir, f.Name()))
		if err != nil {
			fail(f.Name(), err)
			continue
		}
		if entry != nil {
			requests.entry(f.Name(), entry)
		}
		for _, line := range revoked {
			requests.revoked(line)
		}
	}
	var total nmsproto.Imported
	err = ask(c, func(m *control.Client) error {
		for _, part := range requests {
			var r nmsproto.Imported
			if err := m.Call(c.Context, nmsproto.MethodImport, part.ImportParams, &r); err != nil {
				return err
			}
			total.Added, total.Changed, total.Unchanged = total.Added+r.Added, total.Changed+r.Changed, total.Unchanged+r.Unchanged
			for _, i := range slices.Sorted(maps.Keys(r.Errors)) {
				fail(part.files[i], r.Errors[i])
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	fmt.Printf("%d entries added, %d changed, %d unchanged\n", total.Added, total.Changed, total.Unchanged)
	if failed > 0 {
		return sysexits.New(sysexits.NoInput, "", fmt.Errorf("%d files were not imported", failed))
	}
	return nil
}

// readForImport reads an entry, or the list of revoked keys. Other files have neither.
func readForImport(path string) (entry json.RawMessage, revoked []string, err error) {
	name := filepath.Base(path)
	if name == registry.RevokedFile {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, nil, err
		}
		for line := range strings.Lines(string(text)) {
			if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
				revoked = append(revoked, line)
			}
		}
		return nil, revoked, nil
	}
	if strings.HasPrefix(name, ".") || !strings.HasSuffix(name, registry.FileName("")) {
		return nil, nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	e, err := registry.Parse(text)
	if err != nil {
		return nil, nil, err
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, e.Format()); err != nil {
		return nil, nil, err
	}
	if compact.Len() > importPart {
		return nil, nil, fmt.Errorf("it has %d bytes, the maximum for an import is %d", compact.Len(), importPart)
	}
	return compact.Bytes(), nil, nil
}

// exportDevices writes the files. Of those that were there it removes the ones of other
// devices with --prune, and names them without.
func exportDevices(c *cli.Context) error {
	if c.NArg() != 1 {
		return program.Usage(errors.New("expected one DIRECTORY"))
	}
	dir := c.Args().First()
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return sysexits.New(sysexits.NoPerm, "", err)
	}
	written := make(map[string]bool) // by name
	var revoked []string
	err := ask(c, func(m *control.Client) error {
		for after := ""; ; {
			var part nmsproto.Exported
			if err := m.Call(c.Context, nmsproto.MethodExport, nmsproto.ExportParams{After: after}, &part); err != nil {
				return err
			}
			for _, e := range part.Entries {
				if err := registry.CheckID(e.ID); err != nil {
					return err
				}
				if err := atomicfile.Write(filepath.Join(dir, registry.FileName(e.ID)), []byte(e.Text), atomicfile.Options{Mode: 0o640}); err != nil {
					return err
				}
				after = e.ID
				written[registry.FileName(e.ID)] = true
			}
			revoked = append(revoked, part.Revoked...)
			if !part.More {
				return nil
			}
		}
	})
	if err == nil {
		err = exportRevoked(filepath.Join(dir, registry.RevokedFile), revoked)
	}
	if err != nil {
		return err
	}
	fmt.Printf("%d entries written to %s\n", len(written), dir)
	return prune(dir, written, c.Bool("prune"))
}

// exportRevoked writes the list of revoked keys. Without one, only a list that is there is
// replaced: a revocation that was undone must not come back with an import.
func exportRevoked(path string, revoked []string) error {
	if _, err := os.Lstat(path); len(revoked) == 0 && errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var text strings.Builder
	for _, line := range revoked {
		text.WriteString(line + "\n")
	}
	return atomicfile.Write(path, []byte(text.String()), atomicfile.Options{Mode: 0o640})
}

// prune removes, or names, the files that import would read as entries and that were not
// written: those of devices that were removed since a former export to that directory.
func prune(dir string, written map[string]bool, remove bool) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var others []string
	for _, f := range files {
		if written[f.Name()] || f.Name() == registry.RevokedFile {
			continue
		}
		if entry, _, err := readForImport(filepath.Join(dir, f.Name())); err == nil && entry != nil {
			others = append(others, f.Name())
		}
	}
	if len(others) == 0 {
		return nil
	}
	if !remove || len(written) == 0 { // an empty registry may be a lost one, and this its backup
		fmt.Fprintf(os.Stderr, "callhome-nms: %s of devices that the registry does not have are in %s, and import would add them; --prune removes them, unless the registry is empty: %s\n", cmdline.Count(len(others), "file"), dir, printable.Quoted(strings.Join(others, " ")))
		return nil
	}
	for _, name := range others {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	fmt.Printf("%s removed of devices that the registry does not have\n", cmdline.Count(len(others), "file"))
	return nil
}
