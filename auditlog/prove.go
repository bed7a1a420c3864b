package auditlog

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// A Proof shows that an event is in a log, to anybody who has the public key
// and nothing else of the log. Its JSON form is what "phoenix audit prove"
// prints: what was hashed and signed is text in it, so that no tool reformats it.
//
// To check it: Signature is Ed25519 over "phoenix audit checkpoint v1\n" and
// Checkpoint, which is JSON with segment, to and root. The leaf is SHA-256 of a zero
// byte, "E" and Event. Path leads from it to root as RFC 9162 says in section
// 2.1.3.2, for leaf number Seq - segment in a tree of to - segment + 1.
type Proof struct {
	Epoch      string `json:"epoch"`
	Seq        uint64 `json:"seq"`
	Event      string `json:"event"`      // as it stands in the log
	Path       []Hash `json:"path"`       // RFC 6962, section 2.1.1, from the leaf up
	Checkpoint string `json:"checkpoint"` // as it was signed
	Key        []byte `json:"key"`
	Signature  []byte `json:"signature"`
}

// ErrNotSealed says that no checkpoint covers the event yet.
var ErrNotSealed = errors.New("auditlog: no checkpoint covers the event yet")

// Prove returns the proof of the event with an ID. It is fs.ErrNotExist if it
// is not in the log, and ErrNotSealed if it is too new.
func Prove(fsys fs.FS, id string) (*Proof, error) {
	epoch, seq, event, err := findEvent(fsys, id)
	if err != nil {
		return nil, err
	}
	f := follower{fs: fsys, epoch: epoch, next: seq + 1}
	defer f.close()
	for {
		r, err := f.read()
		if errors.Is(err, io.EOF) || err == nil && f.epoch != epoch {
			return nil, fmt.Errorf("%w: %s", ErrNotSealed, id)
		}
		if err != nil {
			return nil, err
		}
		if r.kind != KindCheckpoint {
			continue
		}
		s, c, err := ParseSeal(r.payload)
		if err != nil || seq < c.From || seq > c.To {
			continue
		}
		leaves, err := leavesOf(fsys, epoch, c.Segment, c.To)
		if err != nil {
			return nil, err
		}
		if rootOf(leaves) != c.Root {
			return nil, fmt.Errorf("auditlog: records %d to %d are not what checkpoint %d was signed over; phoenix audit verify tells more", c.Segment, c.To, c.Number)
		}
		return &Proof{
			Epoch: epoch, Seq: seq, Event: string(event), Path: inclusionPath(int(seq-c.Segment), leaves),
			Checkpoint: string(s.Checkpoint), Key: s.Key, Signature: s.Signature,
		}, nil
	}
}

// Check returns nil if the event was in the log when a holder of one of keys
// signed its checkpoint. At least one key must be given.
func (p *Proof) Check(keys []ed25519.PublicKey) error {
	var c Checkpoint
	if err := json.Unmarshal([]byte(p.Checkpoint), &c); err != nil {
		return fmt.Errorf("auditlog: the proof has no checkpoint: %w", err)
	}
	s := Seal{Checkpoint: []byte(p.Checkpoint), Key: p.Key, Signature: p.Signature}
	switch {
	case len(keys) == 0:
		return errors.New("auditlog: a proof is checked with a public key from elsewhere; none was given")
	case !s.signedBy(keys):
		return errors.New("auditlog: the proof's checkpoint is not signed with the key that was given")
	case c.Epoch != p.Epoch || p.Seq < c.Segment || p.Seq > c.To:
		return fmt.Errorf("auditlog: the proof's checkpoint is about other records than %d of epoch %s", p.Seq, p.Epoch)
	}
	var h leafHasher
	root, ok := rootFromPath(h.leaf(KindEvent, []byte(p.Event)), p.Seq-c.Segment, c.To-c.Segment+1, p.Path)
	if !ok || root != c.Root {
		return errors.New("auditlog: the event is not the one that was signed, or the path was changed")
	}
	return nil
}

func findEvent(fsys fs.FS, id string) (epoch string, seq uint64, event []byte, err error) {
	for e, err := range Read(fsys, nil) {
		if err != nil {
			return "", 0, nil, err
		}
		if e.Kind == KindEvent && e.ID == id {
			return e.Epoch, e.Seq, append([]byte(nil), e.JSON...), nil
		}
	}
	return "", 0, nil, fmt.Errorf("auditlog: event %.80q: %w", id, fs.ErrNotExist)
}

// leavesOf returns the leaves of records from to to of an epoch.
func leavesOf(fsys fs.FS, epoch string, from, to uint64) ([]Hash, error) {
	f := follower{fs: fsys, epoch: epoch, next: from}
	defer f.close()
	var h leafHasher
	var out []Hash
	for f.next <= to {
		r, err := f.read()
		if err != nil || f.epoch != epoch {
			return nil, fmt.Errorf("auditlog: records up to %d of epoch %s cannot all be read: %w", to, epoch, err)
		}
		if r.seq != from+uint64(len(out)) {
			return nil, fmt.Errorf("auditlog: record %d of epoch %s is missing", from+uint64(len(out)), epoch)
		}
		out = append(out, h.leaf(r.kind, r.payload))
	}
	return out, nil
}
