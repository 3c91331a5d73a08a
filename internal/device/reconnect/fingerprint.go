package reconnect

import (
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"encoding/json"
	"reflect"
)

// fingerprint tells one version of a value from another, in a session's state
// file too, where the value itself has no business. It is the same when its
// type has got a field more that is not used: sessions outlive upgrades.
func fingerprint(v any) string {
	data, err := json.Marshal(used(reflect.ValueOf(v)))
	if err != nil {
		panic("BUG: " + err.Error()) // plain values only
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:16])
}

// used returns v without the fields that are zero. A pointer to what is zero is
// none of these.
func used(v reflect.Value) any {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		return used(v.Elem())
	case reflect.Slice:
		out := make([]any, v.Len())
		for i := range out {
			out[i] = used(v.Index(i))
		}
		return out
	case reflect.Struct:
		if _, ok := v.Interface().(encoding.TextMarshaler); ok {
			break
		}
		out := make(map[string]any)
		for f, value := range v.Fields() {
			if f.IsExported() && !value.IsZero() {
				out[f.Name] = used(value)
			}
		}
		return out
	}
	return v.Interface()
}
