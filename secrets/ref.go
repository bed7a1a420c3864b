package secrets

import (
	"fmt"
	"strings"
)

// A Ref names a field of a KV secret.
type Ref struct {
	Mount string // the KV mount, without slashes at its ends
	Path  string // the secret's path below the mount
	Field string // the field's name
}

// ParseRef reads "mount/path#field". The mount is the first segment, or all
// that stands before a double slash: "team/kv//app#password".
//
// It refuses what could leave the mount or be read in two ways: empty and dot
// segments, control characters, a query, a wildcard, an escape.
func ParseRef(s string) (Ref, error) {
	bad := func(why string) (Ref, error) {
		return Ref{}, fmt.Errorf("secrets: reference %q %s; write it as mount/path#field, like tamshai/mcp-hr#password", s, why)
	}
	where, field, ok := strings.Cut(s, "#")
	switch {
	case !ok || field == "":
		return bad("names no field")
	case strings.ContainsFunc(field, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '#' }):
		return bad("has a field name with a space, a control character or a second #")
	}
	mount, path, ok := SplitMount(where)
	if !ok {
		return bad("has no path below its mount")
	}
	if why := badPath(mount); why != "" {
		return bad(why)
	}
	if why := badPath(path); why != "" {
		return bad(why)
	}
	return Ref{Mount: mount, Path: path, Field: field}, nil
}

// SplitMount cuts "mount/path" by the rule of ParseRef. It reports false when
// either part is empty.
func SplitMount(where string) (mount, path string, ok bool) {
	if mount, path, ok = strings.Cut(where, "//"); !ok {
		mount, path, ok = strings.Cut(where, "/")
	}
	return mount, path, ok && mount != "" && path != ""
}

// CheckPath refuses a Vault path with an empty or dot segment, a control
// character, a query, a wildcard or an escape.
func CheckPath(path string) error {
	if why := badPath(path); why != "" {
		return fmt.Errorf("secrets: path %q %s", path, why)
	}
	return nil
}

func badPath(path string) string {
	for segment := range strings.SplitSeq(path, "/") {
		switch segment {
		case "":
			return "has an empty segment"
		case ".", "..":
			return "has a dot segment"
		}
	}
	for _, r := range path {
		if r <= ' ' || r == 0x7f || strings.ContainsRune(`*+?%\#`, r) {
			return fmt.Sprintf("holds the character %q", r)
		}
	}
	return ""
}

// String returns the reference as ParseRef reads it.
func (r Ref) String() string { return r.Secret() + "#" + r.Field }

// Secret returns the reference without its field: "mount/path".
func (r Ref) Secret() string {
	if strings.Contains(r.Mount, "/") {
		return r.Mount + "//" + r.Path
	}
	return r.Mount + "/" + r.Path
}
