package scrape

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// The answers (RFC 9110 section 15).
const (
	ok            = "200 OK"
	badRequest    = "400 Bad Request"
	notFound      = "404 Not Found"
	notAllowed    = "405 Method Not Allowed"
	headerTooLong = "431 Request Header Fields Too Large"
)

// respond reads a request (RFC 9112) and returns the answer, or nil where the peer has
// sent none. A body is not read.
func respond(r io.Reader, page func() []byte) []byte {
	header, err := readHeader(r)
	if errors.Is(err, errTooLong) {
		return answer(headerTooLong, true, nil)
	}
	if err != nil {
		return nil
	}
	status, head := judge(header)
	if status != ok {
		return answer(status, !head, nil)
	}
	return answer(ok, !head, page())
}

// readHeader reads up to the empty line.
func readHeader(r io.Reader) (string, error) {
	var all []byte
	buffer := make([]byte, 1<<10)
	for {
		n, err := r.Read(buffer)
		all = append(all, buffer[:n]...)
		for _, empty := range []string{"\r\n\r\n", "\n\n"} { // a recipient may take LF alone (section 2.2)
			if i := bytes.Index(all, []byte(empty)); i >= 0 && i <= maxHeader {
				return string(all[:i]), nil
			}
		}
		switch {
		case len(all) > maxHeader:
			return "", errTooLong
		case err != nil:
			return "", err
		}
	}
}

// judge returns the status of the answer, and whether it has the header alone.
func judge(header string) (status string, head bool) {
	header = strings.ReplaceAll(header, "\r\n", "\n")
	line, fields, _ := strings.Cut(header, "\n")
	words := strings.Split(line, " ")
	if strings.ContainsFunc(header, isControl) || len(words) != 3 || words[0] == "" || words[2] != "HTTP/1.0" && words[2] != "HTTP/1.1" {
		return badRequest, false
	}
	hosts := 0
	for field := range strings.Lines(fields) {
		name, _, colon := strings.Cut(field, ":")
		if !colon || name == "" || strings.ContainsFunc(name, notInToken) {
			return badRequest, false
		}
		if strings.EqualFold(name, "Host") {
			hosts++
		}
	}
	if hosts > 1 || words[2] == "HTTP/1.1" && hosts == 0 {
		return badRequest, false
	}
	head = words[0] == "HEAD"
	switch {
	case pathOf(words[1]) != "/metrics":
		return notFound, head
	case words[0] != "GET" && !head:
		return notAllowed, false
	}
	return ok, head
}

func isControl(r rune) bool {
	return r < ' ' && r != '\t' && r != '\n' || r == 0x7f
}

// notInToken reports whether a name has no such character (RFC 9110 section 5.6.2).
func notInToken(r rune) bool {
	return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
}

// pathOf returns the path of a request's target, which may be a whole URL (section
// 3.2.2).
func pathOf(target string) string {
	if rest, whole := strings.CutPrefix(target, "http://"); whole {
		slash := strings.IndexByte(rest, '/')
		if slash < 0 {
			return "/"
		}
		target = rest[slash:]
	}
	path, _, _ := strings.Cut(target, "?")
	return path
}

// answer returns a response; body is also the length that a HEAD gets.
func answer(status string, withBody bool, body []byte) []byte {
	kind, more := "text/plain; version=0.0.4; charset=utf-8", ""
	if status != ok {
		kind, body = "text/plain; charset=utf-8", []byte(status+"\n")
	}
	if status == notAllowed {
		more = "Allow: GET, HEAD\r\n"
	}
	out := fmt.Appendf(nil, "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n%sConnection: close\r\n\r\n", status, kind, len(body), more)
	if withBody {
		out = append(out, body...)
	}
	return out
}

// errTooLong is the error of a request whose header exceeds maxHeader.
var errTooLong = errors.New("the header is too long")
