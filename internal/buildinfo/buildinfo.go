// Package buildinfo says what a binary was built from.
package buildinfo

import "runtime/debug"

// Version is the module's version, or the commit it was built from, and Go's.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v, revision, dirty := info.Main.Version, "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "+dirty"
		}
	}
	if (v == "" || v == "(devel)") && revision != "" {
		v = revision[:min(12, len(revision))] + dirty
	}
	return v + " " + info.GoVersion
}
