package auditlog

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
)

// presence is what a directory has of an epoch.
type presence struct {
	epoch   string
	files   []string
	records []presentRecord // in the order of the files
	seals   []sealAt        // in that order too
	genesis *Genesis
	breaks  []Finding // where the records do not hang together
	torn    string    // how it ends, if in the middle of something
	events  uint64
}

type presentRecord struct {
	seq   uint64
	leaf  Hash // zero if it cannot be read
	chain Hash
	off   int64
	file  int32
	kind  Kind // 0 if it cannot be read
}

// load reads an epoch and checks CRC, numbers and chain of its records.
func (v *verifier) load(epoch string) (*presence, error) {
	p := &presence{epoch: epoch}
	segments, others, err := segmentsAnd(v.fs, epoch)
	if err != nil {
		return nil, fmt.Errorf("auditlog: verify: %w", err)
	}
	for _, name := range others {
		v.note("%s is no regular file, and is not read: no log makes such", name)
	}
	for i, first := range segments {
		if err := v.ctx.Err(); err != nil {
			return nil, err
		}
		name := segmentName(epoch, first)
		data, grown, err := readSegment(v.fs, name)
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w: %w", errRemoved, err)
		}
		if err != nil {
			return nil, fmt.Errorf("auditlog: verify: %w", err)
		}
		if grown {
			v.note("%s is larger than any segment; of what stands behind many zeros in it nothing is read", name)
		}
		p.files = append(p.files, name)
		v.report.Bytes += int64(len(data))
		v.loadSegment(p, data, int32(i), first, i == len(segments)-1)
	}
	v.report.Records += uint64(len(p.records))
	v.report.Events += p.events
	return p, nil
}

func (v *verifier) loadSegment(p *presence, data []byte, file int32, first uint64, last bool) {
	name := p.files[file]
	begun := len(p.records)
	p.records = slices.Grow(p.records, len(data)/512)
	var leaves leafHasher
	for off := int64(0); off < int64(len(data)); {
		r, err := parseRecord(data[off:])
		if err == nil {
			if len(p.records) == begun && r.seq != first {
				p.broken(Reordered, r.seq, name, "the segment begins with record %d, and its name says %d", r.seq, first)
			}
			v.take(p, r, leaves.leaf(r.kind, r.payload), file, off)
			off += int64(len(r.raw))
			continue
		}
		next := uint64(1)
		if n := len(p.records); n > 0 {
			next = p.records[n-1].seq + 1
		}
		next = max(next, first)
		skip := findRecord(data[off:])
		if skip < 0 {
			rest := bytes.TrimRight(data[off:], "\x00")
			switch {
			case len(rest) == 0:
			case errors.Is(err, errShort), isCut(rest), last && !(v.marked && v.mark.Epoch == p.epoch && v.mark.Seq >= next):
				p.torn = fmt.Sprintf("%s ends in the middle of record %d", name, next)
			default:
				p.unreadable(next, next, file, off, len(rest))
			}
			return
		}
		r, _ = parseRecord(data[off+int64(skip):])
		if durable := r.batch > next || v.marked && v.mark.Epoch == p.epoch && v.mark.Seq >= next; last && !durable && r.seq >= next && r.batch <= next {
			p.torn = fmt.Sprintf("%s ends with a batch of which record %d is not complete", name, next)
			p.unreadable(next, max(next, r.seq-1), file, off, skip)
			p.breaks = p.breaks[:len(p.breaks)-1] // only a checkpoint can tell that from a crash
		} else {
			p.unreadable(next, max(next, r.seq-1), file, off, skip)
		}
		off += int64(skip)
	}
}

// isCut reports whether b, which zeros follow, is shorter than the record that
// it begins.
func isCut(b []byte) bool {
	if n := min(len(b), len(magic)); string(b[:n]) != magic[:n] {
		return false
	}
	return len(b) < headerSize || uint64(len(b)) < headerSize+uint64(binary.LittleEndian.Uint32(b[4:]))
}

// unreadable puts records into the place of bytes that cannot be read.
func (p *presence) unreadable(from, to uint64, file int32, off int64, n int) {
	const most = 1 << 20 // a number behind the damage may be made up
	for seq := from; seq <= min(to, from+most); seq++ {
		p.records = append(p.records, presentRecord{seq: seq, file: file, off: off})
	}
	p.broken(Edited, from, p.files[file], "%d bytes at %d cannot be read", n, off)
}

func (p *presence) broken(d Damage, seq uint64, file, format string, args ...any) {
	p.breaks = append(p.breaks, Finding{Damage: d, Epoch: p.epoch, Seq: seq, File: file, Text: fmt.Sprintf(format, args...)})
}

// take adds a record, and notes where it does not follow from the one before.
func (v *verifier) take(p *presence, r record, leaf Hash, file int32, off int64) {
	name := p.files[file]
	switch n := len(p.records); {
	case r.seq == 0:
		p.broken(Edited, r.seq, name, "a record has the number 0, and the first of an epoch has 1")
	case n == 0 && r.seq == 1:
		if link(firstChain(p.epoch), r.kind, r.seq, leaf) != r.chain {
			p.broken(Edited, r.seq, name, "the first record is not what the epoch's chain begins with")
		}
	case n == 0: // what is before was removed, with or without reason
	case r.seq <= p.records[n-1].seq:
		p.broken(Reordered, r.seq, name, "record %d follows record %d", r.seq, p.records[n-1].seq)
	case r.seq > p.records[n-1].seq+1:
		p.broken(Dropped, p.records[n-1].seq+1, name, "record %d follows record %d", r.seq, p.records[n-1].seq)
	case p.records[n-1].kind != 0 && link(p.records[n-1].chain, r.kind, r.seq, leaf) != r.chain:
		p.broken(Edited, r.seq, name, "record %d is not what was chained to record %d", r.seq, p.records[n-1].seq)
	}
	p.records = append(p.records, presentRecord{seq: r.seq, leaf: leaf, chain: r.chain, off: off, file: file, kind: r.kind})
	switch r.kind {
	case KindEvent:
		p.events++
		// Cheaper than to parse each: such an event ends with this.
		if end := r.payload[max(len(r.payload)-48, 0):]; bytes.Contains(end, []byte(`"from":"1","to":"`)) {
			v.takePruned(p.epoch, r)
		}
	case KindCheckpoint:
		v.sealed = true
		if s, c, err := ParseSeal(r.payload); err != nil {
			p.broken(Edited, r.seq, name, "record %d is no checkpoint", r.seq)
		} else {
			p.seals = append(p.seals, sealAt{Checkpoint: c, seal: s, hash: s.Hash(), leaf: leaf, seq: r.seq})
		}
	case KindGenesis:
		var g Genesis
		switch err := json.Unmarshal(r.payload, &g); {
		case err != nil:
			p.broken(Edited, r.seq, name, "record %d is no genesis", r.seq)
		case g.Epoch != p.epoch:
			v.misplaced[g.Epoch] = p.epoch
			p.broken(Reordered, r.seq, name, "the directory has the records of epoch %s", g.Epoch)
		default:
			p.genesis = &g
		}
	}
}

func (v *verifier) takePruned(epoch string, r record) {
	e, err := ParseEvent(r.payload)
	if err != nil || e.Action != "auditlog.pruned" || e.Category != System {
		return
	}
	from, err1 := strconv.ParseUint(e.Attributes["from"], 10, 64)
	to, err2 := strconv.ParseUint(e.Attributes["to"], 10, 64)
	if err1 == nil && err2 == nil {
		v.pruned = append(v.pruned, prunedRange{epoch: e.Attributes["epoch"], from: from, to: to, at: epoch, seq: r.seq})
	}
}

// provePruned has count what a checkpoint covers of what p says that was removed.
func (v *verifier) provePruned(p *presence) {
	covers, _ := v.trust(p, v.anchored[p.epoch])
	if v.cfg.Anchors != nil {
		covers = v.anchored[p.epoch]
	}
	if len(covers) == 0 {
		return
	}
	for i := range v.pruned {
		if r := &v.pruned[i]; r.at == p.epoch && r.seq <= covers[len(covers)-1].To {
			r.proven = true
		}
	}
}

// event returns the ID of the event in a record, and "" if it is none. Of one
// that cannot be read it is the ID that is still to be seen.
func (v *verifier) event(p *presence, i int) string {
	if i < 0 || i >= len(p.records) || p.records[i].kind != KindEvent && p.records[i].kind != 0 {
		return ""
	}
	r := p.records[i]
	data, _, err := readSegment(v.fs, p.files[r.file])
	if err != nil || int64(len(data)) < r.off {
		return ""
	}
	data = data[r.off:]
	if parsed, err := parseRecord(data); err == nil {
		data = parsed.payload
	} else if next := bytes.Index(data[1:], []byte(magic)); next >= 0 {
		data = data[:next+1]
	}
	const before, size = `"id":"`, 36
	if at := bytes.Index(data, []byte(before)); at >= 0 && len(data) > at+len(before)+size {
		if id := string(data[at+len(before):][:size]); isUUID(id) {
			return id
		}
	}
	e, err := ParseEvent(data)
	if err != nil {
		return ""
	}
	return e.ID
}

// eventBefore is the ID of the last event before record i.
func (v *verifier) eventBefore(p *presence, i int) string {
	for i = min(i, len(p.records)) - 1; i >= 0; i-- {
		if id := v.event(p, i); id != "" {
			return id
		}
	}
	return ""
}
