package provision

import (
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Setting is one property that differs, or the property of something new. It
// is never a secret's value.
type Setting struct {
	Name string `json:"name"`
	Old  string `json:"old,omitempty"` // "" if there was none
	New  string `json:"new,omitempty"` // "" if there will be none
}

// settings is what something should be like, by the names that Vault reads
// back. Values are time.Duration, int, bool, string, []string, map[string]any.
type settings map[string]any

// diff compares with what Vault says. A setting that Vault has and the estate
// does not name is left alone.
func (want settings) diff(have map[string]any) []Setting {
	var out []Setting
	for _, name := range slices.Sorted(mapKeys(want)) {
		value := want[name]
		then, now := canonicalAs(value, have[name]), canonical(value)
		if then != now {
			out = append(out, Setting{Name: name, Old: then, New: now})
		}
	}
	return out
}

// body is a request's body that sets all of it.
func (want settings) body() map[string]any {
	out := map[string]any{}
	for name, value := range want {
		if d, ok := value.(time.Duration); ok {
			value = int(d.Seconds())
		}
		out[name] = value
	}
	return out
}

// canonicalAs writes a value of Vault in the way of the wanted one.
func canonicalAs(want, have any) string {
	if _, ok := want.(time.Duration); ok {
		if n, ok := have.(json.Number); ok {
			if seconds, err := n.Int64(); err == nil {
				return canonical(time.Duration(seconds) * time.Second)
			}
		}
	}
	if _, ok := want.(int); ok && have == nil {
		return "0"
	}
	return canonical(have)
}

// canonical writes a value so that two which mean the same are written alike:
// lists are sorted, nothing and an empty list are one.
func canonical(v any) string {
	switch v := v.(type) {
	case nil:
		return "none"
	case string:
		if v = strings.TrimSpace(v); v == "" {
			return "none"
		}
		return v
	case bool:
		return strconv.FormatBool(v)
	case time.Duration:
		return short(v)
	case json.Number:
		return v.String()
	case []string:
		return list(slices.Values(v))
	case []any:
		return list(func(yield func(string) bool) {
			for _, item := range v {
				if !yield(canonical(item)) {
					return
				}
			}
		})
	case map[string]any:
		var parts []string
		for _, key := range slices.Sorted(mapKeys(v)) {
			parts = append(parts, key+"="+canonical(v[key]))
		}
		return strings.Join(parts, ", ")
	default:
		return fmt.Sprint(v)
	}
}

func list(items iter.Seq[string]) string {
	all := slices.Sorted(items)
	if len(all) == 0 {
		return "none"
	}
	for i, item := range all {
		// Vault writes a network of one address as that address.
		if p, err := netip.ParsePrefix(item); err == nil && p.IsSingleIP() {
			all[i] = p.Addr().String()
		}
		all[i] = strings.TrimSpace(all[i])
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), ", ")
}

func mapKeys[V any](m map[string]V) iter.Seq[string] { return maps.Keys(m) }
