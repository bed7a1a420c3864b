package httpguard

import (
	"maps"
	"net/http"
	"slices"
)

// beginning returns what a request has in common with the others of its conversation: who
// asks, and what was said first. It is nil if nothing was. Marks of the protocol, such as
// cache_control, move from turn to turn and are no part of it.
func beginning(r *http.Request, v any) []byte {
	top, _ := v.(*object)
	for _, name := range []string{"messages", "contents", "input"} {
		said := firstSaid(top.get(name))
		if len(said) == 0 {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(credentials)) {
			said = append(append(said, 0), r.Header.Get(name)...)
		}
		return said
	}
	return nil
}

// firstSaid returns the first message that is a user's, or the first text.
func firstSaid(v any) []byte {
	list, ok := v.([]any)
	if !ok {
		return strung(nil, v)
	}
	for _, item := range list {
		if m, ok := item.(*object); !ok || m.get("role") == nil || m.get("role") == "user" {
			return strung(nil, item)
		}
	}
	return nil
}

// strung appends the texts in v that are not for the machines.
func strung(dst []byte, v any) []byte {
	switch v := v.(type) {
	case string:
		return append(append(dst, v...), 0)
	case []any:
		for _, item := range v {
			dst = strung(dst, item)
		}
	case *object:
		for _, m := range v.members {
			if !protocol[m.name] {
				dst = strung(dst, m.value)
			}
		}
	}
	return dst
}
