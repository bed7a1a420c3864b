package auditlog

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"
)

// VerifyConfig is what a log is verified against.
type VerifyConfig struct {
	// Keys are the public keys that checkpoints may be signed with. Without
	// one the key that each checkpoint names is believed: that finds
	// accidents, and no attacker.
	Keys []ed25519.PublicKey

	// Anchors has the anchored checkpoints under their names, each in its
	// oldest version. nil: they are not compared, so that who has the signing
	// key could have sealed another history.
	Anchors fs.FS

	// AllEpochs says that every epoch that is anchored must be here, as in an
	// archive. Without it an old epoch may be missing if a newer one, which is
	// here, is anchored too: so it looks on a host that was wiped and made
	// again.
	AllEpochs bool
}

// A Damage is a way in which a log is not what it was.
type Damage string

// The ways. Their order is that of the exit codes of "phoenix audit verify",
// from 10.
const (
	Edited        Damage = "edited"         // a record was changed, or put in
	Dropped       Damage = "dropped"        // a record is missing, and later ones are there
	Reordered     Damage = "reordered"      // records, segments or epochs have changed places
	Truncated     Damage = "truncated"      // the end is missing
	Resealed      Damage = "re-sealed"      // another history was signed than the one that is anchored
	WrongKey      Damage = "wrong key"      // a checkpoint is signed with another key
	AnchorMissing Damage = "anchor missing" // a checkpoint that was anchored is not there
)

// ExitCode is what "phoenix audit verify" ends with, 10 to 16.
func (d Damage) ExitCode() int {
	return 10 + max(slices.Index([]Damage{Edited, Dropped, Reordered, Truncated, Resealed, WrongKey, AnchorMissing}, d), 0)
}

// A Finding is damage at a place.
type Finding struct {
	Damage Damage `json:"damage"`
	Epoch  string `json:"epoch"`
	Seq    uint64 `json:"seq"`             // the first bad record
	ID     string `json:"event,omitempty"` // of the event that is there now
	After  string `json:"after,omitempty"` // the last sound event before it
	File   string `json:"file,omitempty"`
	Text   string `json:"text"`
}

// An EpochReport is what there is of an epoch.
type EpochReport struct {
	Epoch     string     `json:"epoch"`
	Service   string     `json:"service,omitempty"`
	Host      string     `json:"host,omitempty"`
	Began     *time.Time `json:"began,omitempty"`
	First     uint64     `json:"first"` // records in the directory; 0: it is known from anchors alone
	Last      uint64     `json:"last"`
	Events    uint64     `json:"events"`
	Sealed    uint64     `json:"sealed"`                     // last record under a valid checkpoint
	Anchored  uint64     `json:"anchored"`                   // last record under an anchored one
	Unsealed  uint64     `json:"unsealed"`                   // events after Sealed: the window that nothing proves yet
	Open      uint64     `json:"unanchored"`                 // events after Anchored: the window that root can still cut off
	Closed    bool       `json:"closed"`                     // its last checkpoint says that the log was closed
	Follows   string     `json:"follows,omitempty"`          // the epoch that its first checkpoint names
	FirstOpen string     `json:"first_unanchored,omitempty"` // the first event after Anchored
}

// A Report is the outcome of [Verify]. It is sound if it has no findings.
type Report struct {
	Findings []Finding     `json:"findings"` // in the order of the log
	Epochs   []EpochReport `json:"epochs"`
	Notes    []string      `json:"notes,omitempty"` // what is no damage, and good to know
	Records  uint64        `json:"records"`
	Events   uint64        `json:"events"`
	Bytes    int64         `json:"bytes"`
}

// Err returns nil if the log is sound, and else what is wrong first.
func (r *Report) Err() error {
	if len(r.Findings) == 0 {
		return nil
	}
	f := r.Findings[0]
	return fmt.Errorf("auditlog: %s: epoch %s, record %d: %s", f.Damage, f.Epoch, f.Seq, f.Text)
}

// Verify reads a whole log and compares it with itself, with its checkpoints
// and with what is anchored. An error is returned only if it cannot be read:
// what is wrong with it is in the report.
//
// Up to the last anchored checkpoint every change is found. Behind it an
// attacker with the signing key can have signed something else, and behind the
// last checkpoint a root can have changed anything: the report names both
// windows. A half-written end, as a crash leaves it, is no damage.
//
// The log may be written to meanwhile: what comes while it is read is verified
// the next time.
func Verify(ctx context.Context, fsys fs.FS, cfg VerifyConfig) (*Report, error) {
	for try := 0; ; try++ {
		report, err := verifyOnce(ctx, fsys, cfg)
		if !errors.Is(err, errRemoved) || try == 5 {
			return report, err
		}
	}
}

// errRemoved says that a segment went away while it was verified. The log does
// that itself to make room, and it must then be read again.
var errRemoved = errors.New("a segment was removed meanwhile")

func verifyOnce(ctx context.Context, fsys fs.FS, cfg VerifyConfig) (*Report, error) {
	v := verifier{ctx: ctx, fs: fsys, cfg: cfg, report: &Report{Findings: []Finding{}, Epochs: []EpochReport{}}, anchored: map[string][]sealAt{}, misplaced: map[string]string{}}
	v.mark, v.marked = readMark(fsys)
	var err error
	if v.cursor, err = readCursor(fsys, anchorCursor); err != nil {
		return nil, fmt.Errorf("auditlog: verify: %w", err)
	}
	// The log comes last: a log that goes on meanwhile has more than is
	// compared with it, and never less.
	if err := v.loadAnchors(); err != nil {
		return nil, err
	}
	epochs, err := epochsIn(fsys)
	if err != nil {
		return nil, fmt.Errorf("auditlog: verify: %w", err)
	}
	known := slices.Clone(epochs)
	for epoch := range v.anchored {
		if !slices.Contains(known, epoch) {
			known = append(known, epoch)
		}
	}
	slices.Sort(known)
	var all []*presence
	for _, epoch := range epochs {
		p, err := v.load(epoch)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	for _, p := range all {
		v.provePruned(p)
	}
	for i, epoch := range known {
		if j := slices.Index(epochs, epoch); j >= 0 {
			v.epoch(all[j])
			if len(all[j].records) == 0 && j < len(epochs)-1 && len(v.anchored[epoch]) == 0 {
				v.find(Finding{Damage: Truncated, Epoch: epoch, Seq: 1, Text: "the epoch has no records, and there is a later one"})
			}
		} else {
			v.absent(epoch, epochs)
		}
		if i > 0 && !v.report.Epochs[i-1].Closed {
			v.note("epoch %s was never closed: its host was wiped, or killed and not started again", known[i-1])
		}
	}
	v.checkMark(known)
	if len(cfg.Keys) == 0 && v.sealed {
		v.note("no key was given: the checkpoints were checked with the keys that they name themselves, which an attacker would have replaced")
	}
	if cfg.Anchors == nil {
		if v.cursor.Last > 0 {
			v.note("the log is anchored, and the anchors were not compared: who has the signing key could have sealed another history")
		}
	}
	slices.SortStableFunc(v.report.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Seq, b.Seq))
	})
	return v.report, nil
}

type verifier struct {
	ctx       context.Context
	fs        fs.FS
	cfg       VerifyConfig
	report    *Report
	anchored  map[string][]sealAt // by epoch, in the order of their numbers
	misplaced map[string]string   // the directories of epochs that are in that of another
	sealed    bool                // there are checkpoints at all
	mark      cleanMark
	marked    bool
	cursor    cursor // of the anchor
	pruned    []prunedRange
}

// A sealAt is a checkpoint and where it stands.
type sealAt struct {
	Checkpoint
	seal *Seal
	hash Hash
	leaf Hash   // of the whole of it, with what is not signed
	seq  uint64 // of its record; 0 in an anchor
}

// A prunedRange is what the log says it removed itself. Anybody who is root can
// write that: it counts when it is signed, and anchored if there are anchors.
type prunedRange struct {
	epoch    string
	from, to uint64
	at       string // the epoch of the record that says so
	seq      uint64 // and its number
	proven   bool
}

func (v *verifier) note(format string, args ...any) {
	v.report.Notes = append(v.report.Notes, fmt.Sprintf(format, args...))
}

func (v *verifier) find(f Finding) { v.report.Findings = append(v.report.Findings, f) }

// loadAnchors reads the anchors and checks their signatures and their order.
func (v *verifier) loadAnchors() error {
	if v.cfg.Anchors == nil {
		return nil
	}
	names, err := anchorsIn(v.cfg.Anchors)
	if errors.Is(err, fs.ErrNotExist) {
		names, err = nil, nil
	}
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := v.ctx.Err(); err != nil {
			return err
		}
		data, err := readAnchor(v.cfg.Anchors, name)
		if err != nil && !errors.Is(err, errForeign) {
			return fmt.Errorf("auditlog: the anchor: %w", err)
		}
		s, c, err := ParseSeal(data)
		if err != nil || AnchorName(c) != name {
			epoch := name[:min(len(name), 36)]
			v.find(Finding{Damage: AnchorMissing, Epoch: epoch, File: name, Text: "what is anchored as " + name + " is not that checkpoint; look at older versions of it"})
			continue
		}
		if !s.signedBy(v.cfg.Keys) {
			v.find(Finding{Damage: WrongKey, Epoch: c.Epoch, Seq: c.From, File: name, Text: fmt.Sprintf("anchored checkpoint %d is not signed with the key that was given", c.Number)})
			continue
		}
		v.anchored[c.Epoch] = append(v.anchored[c.Epoch], sealAt{Checkpoint: c, seal: s, hash: s.Hash(), leaf: new(leafHasher).leaf(KindCheckpoint, data)})
	}
	for epoch, seals := range v.anchored {
		for i, s := range seals {
			if i == 0 && s.Number != 1 || i > 0 && s.Number != seals[i-1].Number+1 {
				v.find(Finding{Damage: AnchorMissing, Epoch: epoch, Seq: s.From, Text: fmt.Sprintf("checkpoint %d is anchored, and the one before is not", s.Number)})
			} else if i > 0 && s.Previous != seals[i-1].hash {
				v.find(Finding{Damage: Resealed, Epoch: epoch, Seq: s.From, Text: fmt.Sprintf("anchored checkpoint %d does not follow checkpoint %d", s.Number, seals[i-1].Number)})
			}
		}
	}
	return nil
}

// absent reports an epoch that is anchored and has no directory.
func (v *verifier) absent(epoch string, present []string) {
	seals := v.anchored[epoch]
	last := seals[len(seals)-1]
	v.report.Epochs = append(v.report.Epochs, EpochReport{Epoch: epoch, Sealed: last.To, Anchored: last.To, Closed: last.Closed, Follows: seals[0].PreviousEpoch})
	gone := func(d Damage, why string) {
		v.find(Finding{Damage: d, Epoch: epoch, Seq: 1, Text: fmt.Sprintf("the epoch, with %d anchored records, is not here, %s", last.To, why)})
	}
	// Who can write to the directory can put any epoch there, but not have it
	// anchored.
	follows := slices.ContainsFunc(present, func(e string) bool { return e > epoch && len(v.anchored[e]) > 0 })
	switch {
	case v.wasPruned(epoch, last.To):
		v.note("epoch %s was removed by the log itself, when everything in it was delivered and anchored", epoch)
	case v.misplaced[epoch] != "":
		gone(Reordered, "and its records are in the directory of epoch "+v.misplaced[epoch])
	case len(present) == 0 || epoch > present[len(present)-1]:
		gone(Truncated, "and none is newer")
	case !follows:
		gone(Truncated, "and no newer one that is here is anchored: another log stands in its place, or the host was made anew and its first checkpoint is still to be anchored")
	case epoch > present[0]:
		gone(Dropped, "and those before and after it are")
	case v.cfg.AllEpochs:
		gone(Dropped, "and later ones are")
	default:
		v.note("epoch %s, with %d anchored records, is not in this directory, and a later one that is anchored is: it is of an earlier life of the host, unless somebody removed it", epoch, last.To)
	}
}

// checkMark compares the end of the log with the mark of its last close.
func (v *verifier) checkMark(known []string) {
	if !v.marked {
		return
	}
	for i, epoch := range known {
		if r := v.report.Epochs[i]; epoch == v.mark.Epoch && r.Last >= v.mark.Seq || r.First == 0 && epoch == v.mark.Epoch {
			return
		}
	}
	at := Finding{Damage: Truncated, Epoch: v.mark.Epoch, Seq: 1, Text: fmt.Sprintf("the epoch ended at record %d when it was closed, and is gone", v.mark.Seq)}
	if i := slices.Index(known, v.mark.Epoch); i >= 0 {
		at.Seq = v.report.Epochs[i].Last + 1
		at.Text = fmt.Sprintf("the log ended at record %d when it was closed, and ends at record %d now", v.mark.Seq, at.Seq-1)
	}
	if !slices.ContainsFunc(v.report.Findings, func(f Finding) bool { return f.Epoch == at.Epoch && f.Damage != AnchorMissing }) {
		v.find(at)
	}
}
