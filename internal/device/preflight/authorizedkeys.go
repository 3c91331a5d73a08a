package preflight

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"callhome/internal/printable"

	"golang.org/x/sys/unix"
)

// maxKeyFile bounds how much of a file of keys is read, in bytes.
const maxKeyFile = 1 << 20

// addKeys adds the keys in the user's AuthorizedKeysFile, and the faults of the files
// that sshd skips.
func (l *login) addKeys(config map[string][]string) {
	var missing string
	var faults []fault
	found := false
	for _, pattern := range strings.Fields(strings.Join(config["authorizedkeysfile"], " ")) {
		if pattern == "none" {
			continue
		}
		file := l.expand(pattern)
		data, err := readFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			if missing == "" {
				missing = file
			}
			continue
		}
		found = true
		if f := l.fileFault(file, first(config, "strictmodes") != "no", err); f != (fault{}) {
			faults = append(faults, f)
			continue
		}
		keys := publicKeys(string(data))
		if len(keys) == 0 {
			faults = append(faults, fault{file + " has no public key", "add the NETCONF client's public key to it, one line of ssh-keygen's .pub file"})
			continue
		}
		l.with = append(l.with, keys...)
	}
	if !found && missing != "" {
		faults = append(faults, fault{missing + " does not exist", "create it with the NETCONF client's public key: owner " + l.name + ", mode 0600, its directory 0700"})
	}
	l.expected = l.expected || found
	l.faults = append(l.faults, faults...)
}

// readFile reads a regular file of at most maxKeyFile. The user can put a FIFO in its
// place at any time: opening it must not block.
func readFile(file string) ([]byte, error) {
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	if info.Size() > maxKeyFile {
		return nil, errors.New("larger than 1 MiB")
	}
	return io.ReadAll(io.LimitReader(f, maxKeyFile))
}

// expand returns AuthorizedKeysFile for the user: the tokens of sshd_config(5), below
// the home directory unless it is an absolute path.
func (l *login) expand(pattern string) string {
	file := strings.NewReplacer("%%", "%", "%h", l.home, "%u", l.name, "%U", strconv.Itoa(l.uid)).Replace(pattern)
	if !filepath.IsAbs(file) {
		file = filepath.Join(l.home, file)
	}
	return file
}

// fileFault returns why sshd skips a file of keys: it opens the file with the user's
// rights and, with StrictModes, skips one that others can change (misc.c, safe_path).
func (l *login) fileFault(file string, strict bool, err error) fault {
	if err != nil {
		return fault{file + ": " + unwrappedPath(err).Error(), "make it a regular file that " + l.name + " can read"}
	}
	resolved, err := filepath.EvalSymlinks(file)
	if err != nil {
		return fault{file + ": " + unwrappedPath(err).Error(), "correct the symbolic link"}
	}
	home, err := filepath.EvalSymlinks(l.home)
	if err != nil {
		home = ""
	}
	inHome := true // StrictModes stops at the home directory
	for at := resolved; ; at = filepath.Dir(at) {
		var st unix.Stat_t
		if err := unix.Stat(at, &st); err != nil {
			return fault{at + ": " + err.Error(), "make it accessible"}
		}
		right, what := uint32(unix.R_OK), "read"
		if at != resolved {
			right, what = unix.X_OK, "enter"
		}
		switch {
		case strict && inHome && int(st.Uid) != 0 && int(st.Uid) != l.uid:
			return fault{at + " belongs to another user, and sshd skips the keys", "chown " + word(l.name) + " " + word(at)}
		case strict && inHome && st.Mode&0o022 != 0 && !l.private(&st):
			return fault{at + " has mode 0" + strconv.FormatUint(uint64(st.Mode&0o7777), 8) + ": other users can write it, and sshd skips the keys", "chmod go-w " + word(at)}
		case !l.may(&st, right):
			return fault{l.name + " cannot " + what + " " + at + ", and sshd reads the keys as that user", "chown " + word(l.name) + " " + word(at) + ", or chmod o+" + map[string]string{"read": "r", "enter": "x"}[what] + " " + word(at)}
		}
		if at == home {
			inHome = false
		}
		if at == "/" {
			return fault{}
		}
	}
}

// private reports whether only the user's own group may write, which Debian's sshd
// accepts.
func (l *login) private(st *unix.Stat_t) bool {
	return st.Mode&0o002 == 0 && l.gid == int(st.Gid) && l.gid == l.uid && l.gid != 0
}

// may reports whether the user has a right on a file, by its own and its first group.
func (l *login) may(st *unix.Stat_t, right uint32) bool {
	switch {
	case l.uid == 0:
		return true
	case int(st.Uid) == l.uid:
		return st.Mode>>6&right != 0
	case int(st.Gid) == l.gid:
		return st.Mode>>3&right != 0
	}
	return st.Mode&right != 0
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// publicKeys returns the fingerprints of the keys in a file of authorized_keys(5) or
// of public keys, with their comments, as ssh-keygen -l prints them.
func publicKeys(text string) []string {
	var out []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#") {
			continue
		}
		words := unquotedFields(line)
		for i := range min(2, max(0, len(words)-1)) { // options may stand before the key
			if name := fingerprint(words[i], words[i+1]); name != "" {
				if i+2 < len(words) {
					name += " (" + printable.Line(strings.Join(words[i+2:], " ")) + ")"
				}
				out = append(out, name)
				break
			}
		}
	}
	return out
}

// unquotedFields splits a line at blanks that are not between quotes, as sshd does
// with the options of a key; \" is no quote.
func unquotedFields(line string) []string {
	quoted, escaped := false, false
	return strings.FieldsFunc(line, func(r rune) bool {
		if r == '"' && !escaped {
			quoted = !quoted
		}
		escaped = r == '\\' && !escaped
		return !quoted && (r == ' ' || r == '\t')
	})
}

// fingerprint returns the kind and SHA256:… of a key in base64, "" where that is no
// key of the kind.
func fingerprint(kind, text string) string {
	blob, err := base64.StdEncoding.DecodeString(text)
	if err != nil || !isKey(kind, blob) {
		return ""
	}
	sum := sha256.Sum256(blob)
	return kind + " SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}

// isKey reports whether blob is the name of the kind and further strings (RFC 4253
// section 6.6, RFC 8709 section 4): not what is left of a key that was cut off.
func isKey(kind string, blob []byte) bool {
	for n := 0; len(blob) >= 4; n++ {
		size := uint64(binary.BigEndian.Uint32(blob))
		if blob = blob[4:]; size > uint64(len(blob)) {
			return false
		}
		if n == 0 && string(blob[:size]) != kind {
			return false
		}
		if blob = blob[size:]; len(blob) == 0 {
			return n > 0
		}
	}
	return false
}
