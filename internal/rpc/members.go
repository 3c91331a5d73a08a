package rpc

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"callhome/internal/printable"
)

// repeatedMember returns why a message is refused in which an object has a member
// twice, or "". RFC 8259 section 4 leaves open which of the two counts: a filter in
// front of the socket could read another request than the daemon. Go's decoder also
// takes a name in other letters, so names that differ only in case are the same.
func repeatedMember(message []byte) string {
	d := json.NewDecoder(bytes.NewReader(message))
	d.UseNumber()
	var objects []map[string]bool // the members of each open object; nil for an array
	isName := false               // the next string in the innermost object is a name
	for {
		token, err := d.Token()
		if err != nil {
			return "" // the end, or no JSON, which notJSON has found
		}
		inObject := len(objects) > 0 && objects[len(objects)-1] != nil
		switch token := token.(type) {
		case json.Delim:
			switch token {
			case '{':
				objects = append(objects, make(map[string]bool))
			case '[':
				objects = append(objects, nil)
			default:
				objects = objects[:len(objects)-1]
			}
			isName = len(objects) > 0 && objects[len(objects)-1] != nil
			continue
		case string:
			if inObject && isName {
				folded := strings.ToLower(strings.ToUpper(token)) // as Go's decoder compares: the Kelvin sign is a k
				if objects[len(objects)-1][folded] {
					return fmt.Sprintf("member %q is repeated", printable.ASCII(token))
				}
				objects[len(objects)-1][folded] = true
				isName = false
				continue
			}
		}
		isName = inObject
	}
}
