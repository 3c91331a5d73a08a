package reconnect

import (
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"encoding/json"
	"reflect"
)

// fingerprint identifies a version of a value without containing it, because a
// session's state file holds fingerprints and no keys. A new field that is zero
// does not change the fingerprint: sessions outlive upgrades.
func fingerprint(v any) string {
	data, err := json.Marshal(used(reflect.ValueOf(v)))
	if err != nil {
		panic("BUG: " + err.Error()) // plain values only
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:16])
}

// used returns v without its zero fields. A pointer to a zero value is not a zero
// field.
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
