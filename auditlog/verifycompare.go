package auditlog

import (
	"bytes"
	"fmt"
	"slices"
)

// A sealedLeaf is what a record was when it was sealed.
type sealedLeaf struct {
	seq  uint64
	leaf Hash
}

// epoch compares what is present of an epoch with what was sealed.
func (v *verifier) epoch(p *presence) {
	anchored := v.anchored[p.epoch]
	rep := EpochReport{Epoch: p.epoch, Events: p.events}
	if p.genesis != nil {
		rep.Service, rep.Host, rep.Began = p.genesis.Service, p.genesis.Host, &p.genesis.Time
	}
	if n := len(p.records); n > 0 {
		rep.First, rep.Last = p.records[0].seq, p.records[n-1].seq
	}
	defer func() { v.report.Epochs = append(v.report.Epochs, rep) }()
	if swapped := slices.IndexFunc(p.breaks, func(f Finding) bool { return f.Damage == Reordered && f.Seq == 1 }); swapped >= 0 {
		v.find(p.breaks[swapped]) // nothing in it can be compared
		return
	}
	trusted, signed := v.trust(p, anchored)
	leaves, doubts := v.leaves(p, trusted)
	if n := len(trusted); n > 0 {
		rep.Sealed, rep.Follows = trusted[n-1].To, trusted[0].PreviousEpoch
	}
	if n := len(anchored); n > 0 {
		rep.Anchored = anchored[n-1].To
	}
	v.window(p, &rep)
	rep.Closed = len(trusted) > 0 && trusted[len(trusted)-1].Closed && rep.Unsealed == 0 ||
		len(trusted) == 0 && v.marked && v.mark.Epoch == p.epoch && v.mark.Seq == rep.Last

	before := len(v.report.Findings)
	resealed := slices.IndexFunc(signed, func(f Finding) bool { return f.Damage == Resealed })
	mismatch, found := v.compare(p, leaves, resealed >= 0)
	if foreign := slices.IndexFunc(signed, func(f Finding) bool { return f.Damage == Reordered }); found && mismatch.Damage == Edited && foreign >= 0 {
		mismatch.Damage, mismatch.Text = Reordered, mismatch.Text+"; "+signed[foreign].Text
	}
	switch {
	case found && resealed >= 0:
		f := mismatch
		f.Damage, f.Text = Resealed, signed[resealed].Text+"; "+mismatch.Text
		v.find(f)
	case found:
		v.find(mismatch)
	case resealed >= 0:
		v.find(signed[resealed])
	}
	for _, f := range signed {
		if f.Damage != Resealed {
			v.find(f)
		}
	}
	for _, f := range slices.Concat(p.breaks, doubts) {
		// Within what is sealed, the comparison names the first bad record.
		if !found || f.Seq > rep.Sealed {
			v.find(f)
		}
	}
	if rep.First > 1 && len(v.report.Findings) == before && (!v.wasPruned(p.epoch, 1) || !v.wasPruned(p.epoch, rep.First-1)) {
		v.find(Finding{Damage: Dropped, Epoch: p.epoch, Seq: 1, Text: fmt.Sprintf("the epoch begins with record %d, and it is not proven that the log removed those before", rep.First) + v.unproven(p.epoch, 1)})
	}
	if len(v.report.Findings) == before {
		v.heads(p, trusted)
		if rep.First > 1 {
			v.note("records 1 to %d of epoch %s were removed by the log itself, when they were delivered and anchored", rep.First-1, p.epoch)
		}
	}
	if n := len(anchored); len(v.report.Findings) == before && n > 0 && !slices.ContainsFunc(p.seals, func(s sealAt) bool { return s.hash == anchored[n-1].hash }) {
		v.find(Finding{
			Damage: Truncated, Epoch: p.epoch, Seq: rep.Last + 1, After: v.eventBefore(p, len(p.records)),
			Text: fmt.Sprintf("the log ends with record %d, and checkpoint %d, which is anchored, came after it", rep.Last, anchored[n-1].Number),
		})
	}
	v.anchorsOf(p, anchored, trusted)
	if p.torn != "" && len(v.report.Findings) == before {
		v.note("%s, as a crash leaves it; that was acknowledged to nobody", p.torn)
	}
}

// trust returns the checkpoints that count: the anchored, and behind them
// those of the log that are signed and follow. It also returns what is wrong
// with the others.
func (v *verifier) trust(p *presence, anchored []sealAt) (trusted []sealAt, found []Finding) {
	trusted = slices.Clone(anchored)
	say := func(d Damage, s sealAt, format string, args ...any) {
		found = append(found, Finding{Damage: d, Epoch: p.epoch, Seq: s.seq, Text: fmt.Sprintf(format, args...)})
	}
	for _, s := range p.seals {
		if s.Epoch != p.epoch {
			say(Reordered, s, "record %d is a checkpoint of epoch %s", s.seq, s.Epoch)
			continue
		}
		if i := slices.IndexFunc(anchored, func(a sealAt) bool { return a.Number == s.Number }); i >= 0 {
			switch {
			case anchored[i].leaf == s.leaf:
			case anchored[i].hash == s.hash && !bytes.Equal(anchored[i].seal.Key, s.seal.Key) && s.seal.signedBy(nil):
				say(Resealed, s, "checkpoint %d is signed with another key than the one that is anchored", s.Number)
			case anchored[i].hash == s.hash:
				say(Edited, s, "what stands beside checkpoint %d, which is sound, is not what is anchored", s.Number)
			case s.seal.signedBy(nil):
				say(Resealed, s, "checkpoint %d is not the one that is anchored", s.Number)
			default:
				say(Edited, s, "checkpoint %d is not the one that is anchored, and its signature fits neither", s.Number)
			}
			continue
		}
		if n := len(anchored); n > 0 && s.Number < anchored[n-1].Number {
			continue // the anchor has lost it, which is found there
		}
		switch n := len(trusted); {
		case !s.seal.signedBy(nil):
			say(Edited, s, "the signature of checkpoint %d does not fit it", s.Number)
		case !s.seal.signedBy(v.cfg.Keys):
			say(WrongKey, s, "checkpoint %d is signed with another key than the one that was given", s.Number)
		case n > 0 && s.Number <= trusted[n-1].Number:
			say(Reordered, s, "checkpoint %d follows checkpoint %d", s.Number, trusted[n-1].Number)
		case n > 0 && s.Number == trusted[n-1].Number+1 && s.Previous != trusted[n-1].hash:
			say(Resealed, s, "checkpoint %d does not follow the checkpoint %d that is here", s.Number, trusted[n-1].Number)
		default:
			trusted = append(trusted, s)
		}
	}
	return trusted, found
}

// leaves returns what was sealed, as far as the lists of leaves give the signed
// roots, and findings where they do not.
func (v *verifier) leaves(p *presence, trusted []sealAt) (out []sealedLeaf, doubts []Finding) {
	var t tree
	var segment uint64
	for _, s := range trusted {
		if s.Segment != segment || s.From != segment+t.size {
			// The checkpoints before are not here: what is present stands in.
			t, segment = tree{}, s.Segment
			for seq := s.Segment; seq < s.From; seq++ {
				if i := p.index(seq); i >= 0 {
					t.add(p.records[i].leaf)
				}
			}
			if s.From != segment+t.size {
				segment = 0 // nor is that: the segment was removed, which shows elsewhere
				continue
			}
		}
		present := tree{size: t.size, roots: slices.Clone(t.roots)}
		for i := range int(s.To - s.From + 1) {
			t.add(s.seal.leaf(i))
		}
		if t.root() == s.Root {
			for i := range int(s.To - s.From + 1) {
				out = append(out, sealedLeaf{s.From + uint64(i), s.seal.leaf(i)})
			}
			continue
		}
		for seq := s.From; seq <= s.To; seq++ {
			if i := p.index(seq); i >= 0 {
				present.add(p.records[i].leaf)
			}
		}
		if t = present; present.root() == s.Root {
			doubts = append(doubts, Finding{Damage: Edited, Epoch: p.epoch, Seq: max(s.seq, s.From), Text: fmt.Sprintf("the hashes that checkpoint %d lists were changed; the records themselves are sound", s.Number)})
			for seq := s.From; seq <= s.To; seq++ {
				out = append(out, sealedLeaf{seq, p.records[p.index(seq)].leaf})
			}
			continue
		}
		segment = 0 // the next tree stands on its own
		doubts = append(doubts, Finding{Damage: Edited, Epoch: p.epoch, Seq: s.From, Text: fmt.Sprintf("records %d to %d are not what checkpoint %d was signed over, and the hashes that it lists were changed too: which record it is cannot be told", s.From, s.To, s.Number)})
	}
	return out, doubts
}

// index is the place of a record among those that are present, and -1.
func (p *presence) index(seq uint64) int {
	if n := len(p.records); n > 0 && seq >= p.records[0].seq {
		// Numbers are dense unless the log is damaged.
		if i := seq - p.records[0].seq; i < uint64(n) && p.records[i].seq == seq {
			return int(i)
		}
	}
	return slices.IndexFunc(p.records, func(r presentRecord) bool { return r.seq == seq })
}

// compare finds the first record that is not what was sealed, and says what
// happened to it. In a log that was sealed anew it passes over the checkpoints.
func (v *verifier) compare(p *presence, sealed []sealedLeaf, anew bool) (Finding, bool) {
	present := p.records
	at := Finding{Epoch: p.epoch}
	if len(sealed) == 0 {
		return at, false
	}
	for len(sealed) > 0 && (len(present) == 0 || sealed[0].seq < present[0].seq) && v.wasPruned(p.epoch, sealed[0].seq) {
		sealed = sealed[1:]
	}
	if len(sealed) == 0 {
		return at, false
	}
	if len(present) > 0 && sealed[0].seq > present[0].seq {
		// What stands before was never sealed, or no longer counts.
		present = present[max(p.index(sealed[0].seq), 0):]
	}
	base := len(p.records) - len(present)
	n := 0
	for j := 0; n < len(sealed); n, j = n+1, j+1 {
		if n > 0 && sealed[n].seq != sealed[n-1].seq+1 {
			// A hole that was there when it was sealed.
			for j < len(present) && present[j].seq < sealed[n].seq {
				j++
			}
		}
		if anew && j < len(present) && present[j].kind == KindCheckpoint && present[j].seq == sealed[n].seq {
			continue
		}
		if j >= len(present) || present[j].leaf != sealed[n].leaf || present[j].seq != sealed[n].seq {
			v.judge(p, &at, sealed, n, base+j)
			return at, true
		}
	}
	return at, false
}

// judge says what happened at sealed[n], where record i of p is now.
func (v *verifier) judge(p *presence, at *Finding, sealed []sealedLeaf, n, i int) {
	at.Seq, at.After = sealed[n].seq, v.eventBefore(p, i)
	was := map[Hash]bool{}
	for _, s := range sealed {
		was[s.leaf] = true
	}
	elsewhere := slices.ContainsFunc(p.records, func(r presentRecord) bool { return r.kind != 0 && r.leaf == sealed[n].leaf })
	if i >= len(p.records) {
		at.Damage, at.Text = Truncated, fmt.Sprintf("the log ends before record %d; records up to %d were sealed", at.Seq, sealed[len(sealed)-1].seq)
		return
	}
	now := p.records[i]
	at.ID, at.File = v.event(p, i), p.files[now.file]
	switch {
	case elsewhere && now.leaf == sealed[n].leaf:
		at.Damage, at.Text = Edited, fmt.Sprintf("record %d has the number %d now", at.Seq, now.seq)
	case elsewhere && was[now.leaf] && p.count(now.leaf) > count(sealed, now.leaf):
		at.Damage, at.Text = Edited, fmt.Sprintf("a copy of another record was put in before record %d", at.Seq)
	case elsewhere && was[now.leaf]:
		at.Damage, at.Text = Reordered, fmt.Sprintf("record %d is at another place now", at.Seq)
	case elsewhere:
		at.Damage, at.Text = Edited, fmt.Sprintf("something was put in before record %d", at.Seq)
	case was[now.leaf] || now.seq > at.Seq && now.kind != 0:
		at.Damage, at.Text = Dropped, fmt.Sprintf("record %d is gone, and later records are here", at.Seq)+v.unproven(p.epoch, at.Seq)
	case now.kind == 0:
		at.Damage, at.Text = Edited, fmt.Sprintf("record %d cannot be read", at.Seq)
	default:
		at.Damage, at.Text = Edited, fmt.Sprintf("record %d is not what was sealed", at.Seq)
	}
}

// count is how often a record is present.
func (p *presence) count(leaf Hash) (n int) {
	for _, r := range p.records {
		if r.kind != 0 && r.leaf == leaf {
			n++
		}
	}
	return n
}

func count(sealed []sealedLeaf, leaf Hash) (n int) {
	for _, s := range sealed {
		if s.leaf == leaf {
			n++
		}
	}
	return n
}

// wasPruned reports whether it is proven that the log removed a record itself.
func (v *verifier) wasPruned(epoch string, seq uint64) bool {
	return slices.ContainsFunc(v.pruned, func(r prunedRange) bool { return r.proven && r.has(epoch, seq) })
}

func (r prunedRange) has(epoch string, seq uint64) bool {
	return r.epoch == epoch && r.from <= seq && (seq <= r.to || r.to == 0)
}

// unproven is what to add about a record of which only somebody's word says
// that the log removed it.
func (v *verifier) unproven(epoch string, seq uint64) string {
	if slices.ContainsFunc(v.pruned, func(r prunedRange) bool { return !r.proven && r.has(epoch, seq) }) {
		return "; that the log removed it itself is only said by an event that is not signed and anchored yet: verify again when it is"
	}
	return ""
}

// heads compares the chain with what was signed: where leaves are right and
// the chain is not, somebody has made it anew.
func (v *verifier) heads(p *presence, trusted []sealAt) {
	for _, s := range trusted {
		if i := p.index(s.To); i >= 0 && p.records[i].chain != s.Head {
			v.find(Finding{Damage: Edited, Epoch: p.epoch, Seq: s.From, File: p.files[p.records[i].file], Text: fmt.Sprintf("the chain at record %d is not what checkpoint %d was signed over", s.To, s.Number)})
			return
		}
	}
}

// anchorsOf finds checkpoints that are missing at the anchor.
func (v *verifier) anchorsOf(p *presence, anchored, trusted []sealAt) {
	if v.cfg.Anchors == nil {
		return
	}
	last := uint64(0)
	if n := len(anchored); n > 0 {
		last = anchored[n-1].Number
	}
	c := v.cursor
	switch {
	case c.Epoch == p.epoch && c.Last > last:
		v.find(Finding{Damage: AnchorMissing, Epoch: p.epoch, Seq: c.To, Text: fmt.Sprintf("checkpoint %d was anchored, and is not at the anchor", c.Last)})
	case last == 0 && len(p.seals) > 0 && !slices.ContainsFunc(v.report.Findings, func(f Finding) bool { return f.Epoch == p.epoch && f.Damage == WrongKey }):
		v.find(Finding{Damage: AnchorMissing, Epoch: p.epoch, Seq: p.seals[0].From, Text: fmt.Sprintf("the log has %d checkpoints of this epoch, and none is at the anchor", len(p.seals))})
	}
	if len(trusted) == 0 || trusted[0].PreviousEpoch == "" {
		return
	}
	before := v.anchored[trusted[0].PreviousEpoch]
	i := slices.IndexFunc(before, func(s sealAt) bool { return s.hash == trusted[0].Previous })
	switch {
	case i < 0:
		v.find(Finding{Damage: AnchorMissing, Epoch: p.epoch, Seq: trusted[0].From, Text: fmt.Sprintf("the epoch follows a checkpoint of epoch %s that is not at the anchor", trusted[0].PreviousEpoch)})
	case i < len(before)-1:
		v.note("epoch %s follows checkpoint %d of epoch %s, and %d more were anchored after it", p.epoch, before[i].Number, before[i].Epoch, len(before)-1-i)
	}
}

// window counts the events that no checkpoint, and no anchored one, covers.
func (v *verifier) window(p *presence, rep *EpochReport) {
	for i, r := range p.records {
		if r.kind != KindEvent {
			continue
		}
		if r.seq > rep.Sealed {
			rep.Unsealed++
		}
		if r.seq > rep.Anchored {
			if rep.Open++; rep.Open == 1 {
				rep.FirstOpen = v.event(p, i)
			}
		}
	}
}
