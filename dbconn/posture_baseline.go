package dbconn

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// A Baseline holds the findings that a deployment lives with for now, so that
// its check fails only on what is new. It is kept as JSON; see [ReadBaseline] and
// [PostureReport.Baseline].
type Baseline struct {
	Version int             `json:"version"` // 1
	Entries []BaselineEntry `json:"entries"`
}

// A BaselineEntry accepts one finding until a day. When the object or what the
// role may do with it changes, the finding has another key and counts again.
type BaselineEntry struct {
	Key     string `json:"key"`     // of the finding
	Code    string `json:"code"`    // of the finding, for the reader
	Object  string `json:"object"`  // likewise
	Reason  string `json:"reason"`  // why it is accepted
	Expires string `json:"expires"` // the last day on which it is, in UTC: 2026-12-31
}

const baselineVersion = 1

// ReadBaseline reads a baseline, and refuses one with an entry that has no
// reason, no day or an unknown field.
func ReadBaseline(r io.Reader) (*Baseline, error) {
	const most = 16 << 20
	data, err := io.ReadAll(io.LimitReader(r, most))
	if err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	var b Baseline
	if err := decoder.Decode(&b); err != nil {
		return nil, badBaseline("%v", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, badBaseline("something follows the object")
	}
	if b.Version != baselineVersion {
		return nil, badBaseline("its version is %d, and %d is known", b.Version, baselineVersion)
	}
	keys := map[string]bool{}
	for i, e := range b.Entries {
		switch _, err := e.until(); {
		case e.Key == "" || e.Code == "":
			return nil, badBaseline("entry %d has no key or code", i+1)
		case strings.TrimSpace(e.Reason) == "":
			return nil, badBaseline("entry %d, %s %s, has no reason", i+1, e.Code, e.Object)
		case err != nil:
			return nil, badBaseline("entry %d, %s %s, does not say until when, like 2026-12-31", i+1, e.Code, e.Object)
		case keys[e.Key]:
			return nil, badBaseline("entry %d, %s %s, has the key of another one", i+1, e.Code, e.Object)
		}
		keys[e.Key] = true
	}
	return &b, nil
}

func badBaseline(format string, args ...any) error {
	return &Error{Op: "read the baseline", Kind: ErrConfig, Err: fmt.Errorf(format, args...), Remedy: "let phoenix db posture --write-baseline write it, and edit reasons and days alone"}
}

// until is the moment from which the entry counts no more.
func (e BaselineEntry) until() (time.Time, error) {
	day, err := time.Parse(time.DateOnly, e.Expires)
	return day.AddDate(0, 0, 1), err
}

// Write writes the baseline as ReadBaseline reads it.
func (b *Baseline) Write(w io.Writer) error {
	data, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return err
	}
	_, err = w.Write(append(data, '\n'))
	return err
}

// Baseline returns a baseline that accepts what the report found, for the given
// reason until the given day. What was accepted already keeps its reason and day.
func (r *PostureReport) Baseline(reason string, expires time.Time) *Baseline {
	b := &Baseline{Version: baselineVersion, Entries: []BaselineEntry{}}
	for _, f := range r.Accepted {
		b.Entries = append(b.Entries, *f.Accepted)
	}
	for _, f := range r.Findings {
		b.Entries = append(b.Entries, BaselineEntry{Key: f.Key, Code: f.Code, Object: f.Object, Reason: reason, Expires: expires.UTC().Format(time.DateOnly)})
	}
	slices.SortFunc(b.Entries, func(x, y BaselineEntry) int {
		return strings.Compare(x.Code+"\x00"+x.Object+"\x00"+x.Key, y.Code+"\x00"+y.Object+"\x00"+y.Key)
	})
	return b
}

// apply sorts findings into those that count and those that are accepted.
func (b *Baseline) apply(r *PostureReport, all []Finding, now time.Time) {
	if b == nil {
		b = &Baseline{}
	}
	good := map[string]*BaselineEntry{}
	for i := range b.Entries {
		e := &b.Entries[i]
		if until, err := e.until(); err != nil || strings.TrimSpace(e.Reason) == "" || !now.Before(until) {
			r.Expired = append(r.Expired, *e)
		} else {
			good[e.Key] = e
		}
	}
	used := map[string]bool{}
	for _, f := range all {
		if e := good[f.Key]; e != nil {
			used[f.Key] = true
			f.Accepted = e
			r.Accepted = append(r.Accepted, f)
		} else {
			r.Findings = append(r.Findings, f)
		}
	}
	for i := range b.Entries {
		if e := b.Entries[i]; good[e.Key] != nil && !used[e.Key] {
			r.Stale = append(r.Stale, e)
		}
	}
}
