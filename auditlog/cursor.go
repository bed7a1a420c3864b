package auditlog

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"
)

// A cursor is how far a sink is. It is kept in cursors/NAME.json, or not at
// all, which means at the beginning.
type cursor struct {
	Epoch     string    `json:"epoch"`
	Next      uint64    `json:"next"` // the first record that was not delivered
	Delivered uint64    `json:"delivered"`
	Rejected  uint64    `json:"rejected"`       // dead letters
	Confirmed bool      `json:"confirmed"`      // the destination says what it has stored
	All       bool      `json:"all,omitempty"`  // wants every record, not events alone
	Last      uint64    `json:"last,omitempty"` // for anchors: the number of the last checkpoint
	To        uint64    `json:"to,omitempty"`   // and the last record that it covers
	Time      time.Time `json:"time"`
}

// anchorCursor is the cursor of the anchor. No sink may have this name.
const anchorCursor = "anchor"

func cursorName(name string) string { return cursorDir + "/" + name + ".json" }

func readCursor(fsys fs.FS, name string) (c cursor, err error) {
	data, err := readUpTo(fsys, cursorName(name), maxSmall)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errForeign) {
		return c, nil
	}
	if err != nil {
		return c, err
	}
	if json.Unmarshal(data, &c) != nil || c.Epoch != "" && !isUUID(c.Epoch) {
		return cursor{}, nil //nolint:nilerr // damaged: everything again is better than something never
	}
	return c, nil
}

func writeCursor(fsys filesystem, name string, c cursor) error {
	data, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return replace(fsys, cursorName(name), append(data, '\n'))
}

// beyond reports whether the cursor stands behind all that a log ends with: then
// what comes would never be delivered.
func (c cursor) beyond(epoch string, seq uint64) bool {
	return c.Epoch > epoch || c.Epoch == epoch && c.Next > seq+1
}

// endOf returns the last record of a log, as far as it can be read.
func endOf(fsys fs.FS) (epoch string, seq uint64, err error) {
	epochs, err := epochsIn(fsys)
	if err != nil || len(epochs) == 0 {
		return "", 0, err
	}
	epoch = epochs[len(epochs)-1]
	segments, err := segmentsOf(fsys, epoch)
	if err != nil || len(segments) == 0 {
		return epoch, 0, err
	}
	f := follower{fs: fsys, epoch: epoch, next: segments[len(segments)-1]}
	defer f.close()
	for seq = f.next - 1; ; {
		r, err := f.read()
		if errors.Is(err, io.EOF) {
			return epoch, seq, nil
		}
		if err != nil {
			return "", 0, err
		}
		epoch, seq = f.epoch, r.seq
	}
}

// cursors returns those of a directory, by name.
func cursors(fsys fs.FS) (map[string]cursor, error) {
	out := map[string]cursor{}
	entries, err := fs.ReadDir(fsys, cursorDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok {
			continue
		}
		if out[name], err = readCursor(fsys, name); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// checkSinkName refuses what is no name for a file, or is taken.
func checkSinkName(name string) error {
	if name == "" || len(name) > 64 || name == anchorCursor {
		return fmt.Errorf("auditlog: a sink cannot be named %.80q", name)
	}
	for _, c := range name {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return fmt.Errorf("auditlog: the name of a sink, %.80q, may have lower-case letters, digits, '-' and '_'", name)
		}
	}
	return nil
}
