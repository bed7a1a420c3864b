package guard

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// Action is what is done with a finding.
type Action string

const (
	// Redact puts the label in angle brackets in place of the value: <US_SSN>.
	Redact Action = "redact"
	// Block refuses the text as a whole, with a [BlockedError].
	Block Action = "block"
	// Mask puts an asterisk in place of each letter and digit but the last four;
	// of a value of fewer than nine, of all.
	Mask Action = "mask"
	// Hash puts a keyed hash in place of the value, equal for equal values.
	Hash Action = "hash"
	// Pseudonymise puts a placeholder in place of the value, which the
	// [Conversation] that made it can put back. Without one it is Redact.
	Pseudonymise Action = "pseudonymise"
	// Audit leaves the value where it is and counts it.
	Audit Action = "audit"
)

// BlockedError says that a text has what its policy does not let pass.
type BlockedError struct {
	// Counts are the findings that were to be blocked, by label. The values are
	// not kept.
	Counts map[string]int
}

func (e *BlockedError) Error() string {
	labels := strings.Join(slices.Sorted(maps.Keys(e.Counts)), ", ")
	return fmt.Sprintf("guard: the text was refused because of what is in it: %s; remove it, or change the policy's action for it", labels)
}

func (p Policy) checkActions(det *detector) error {
	known := map[string]bool{}
	for _, r := range det.recs {
		known[r.label] = true
	}
	valid := func(a Action) error {
		switch a {
		case "", Redact, Block, Mask, Pseudonymise, Audit:
			return nil
		case Hash:
			if len(p.Key) < 16 {
				return errors.New("guard: the action hash needs a Key of 16 bytes or more")
			}
			return nil
		}
		return fmt.Errorf("guard: there is no action %q; use redact, block, mask, hash, pseudonymise or audit", a)
	}
	if err := valid(p.Default); err != nil {
		return err
	}
	for label, a := range p.Actions {
		if !known[label] {
			return fmt.Errorf("guard: there is no entity %q; Entities lists them", label)
		}
		if err := valid(a); err != nil {
			return err
		}
	}
	return nil
}

func (g *Guard) action(label string) Action {
	if a := g.policy.Actions[label]; a != "" {
		return a
	}
	if g.policy.Default != "" {
		return g.policy.Default
	}
	return Redact
}

// Result says what was found in a text. It has no values.
type Result struct {
	// Counts are the findings, by label.
	Counts map[string]int
}

func (r *Result) count(label string) {
	if r.Counts == nil {
		r.Counts = map[string]int{}
	}
	r.Counts[label]++
}

// Redact returns text with the findings replaced as the policy says. If the
// policy blocks one of them, it returns no text and a [BlockedError].
func (g *Guard) Redact(text []byte) ([]byte, Result, error) { return g.redact(nil, text) }

func (g *Guard) redact(c *Conversation, text []byte) ([]byte, Result, error) {
	return newRedactor(g, c).all(text)
}

// all redacts a whole text, and closes r.
func (r *redactor) all(text []byte) ([]byte, Result, error) {
	defer r.close()
	out := r.next(make([]byte, 0, len(text)), text, true)
	if err := r.err(); err != nil {
		return nil, r.result, err
	}
	return out, r.result, nil
}

// redactor redacts text that comes in pieces.
type redactor struct {
	g       *Guard
	conv    *Conversation
	known   bool // pseudonyms only for values that conv knows
	scanner *scanner
	buf     []byte // text that is not decided yet, and some before it
	done    int    // how much of buf is decided and written
	open    bool   // the last finding ended where done is, and may run on
	result  Result
	blocked map[string]int
}

func newRedactor(g *Guard, c *Conversation) *redactor {
	s := g.scanners.Get().(*scanner)
	s.start(g, g.threshold, union)
	return &redactor{g: g, conv: c, scanner: s}
}

func (r *redactor) close() {
	if r.scanner != nil {
		r.g.scanners.Put(r.scanner)
		r.scanner = nil
	}
}

func (r *redactor) err() error {
	if r.blocked == nil {
		return nil
	}
	return &BlockedError{Counts: r.blocked}
}

// next takes the next piece of text, appends to dst what can leave now, and
// returns it. With eof all of it can.
func (r *redactor) next(dst, piece []byte, eof bool) []byte {
	buf := piece
	if len(r.buf) > 0 || !eof {
		r.buf = append(r.buf, piece...)
		buf = r.buf
	}
	at := r.done
	done := r.scanner.scan(buf, r.done, eof, func(c candidate) {
		dst = append(dst, buf[at:c.start]...)
		if !c.runOn || at != c.start || !r.open {
			dst = r.replace(dst, c, buf[c.start:c.end])
		} else if r.g.action(c.rec.label) == Audit {
			dst = append(dst, buf[c.start:c.end]...)
		}
		at, r.open = c.end, true
	})
	if done > at {
		r.open = false
	}
	dst = append(dst, buf[at:done]...)
	r.done = done
	// Keep what gives context, and move the rest seldom.
	if drop := done - history; drop > len(r.buf)/2 && drop > 512 && !eof {
		r.buf = r.buf[:copy(r.buf, r.buf[drop:])]
		r.done -= drop
		r.scanner.searched = max(0, r.scanner.searched-drop)
		r.scanner.dot, r.scanner.dotTo = max(-1, r.scanner.dot-drop), max(0, r.scanner.dotTo-drop)
	}
	return dst
}

// replace appends what stands in for value.
func (r *redactor) replace(dst []byte, c candidate, value []byte) []byte {
	label := c.rec.label
	r.result.count(label)
	switch r.g.action(label) {
	case Audit:
		return append(dst, value...)
	case Block:
		if r.blocked == nil {
			r.blocked = map[string]int{}
		}
		r.blocked[label]++
	case Mask:
		return appendMask(dst, value)
	case Hash:
		mac := hmac.New(sha256.New, r.g.policy.Key)
		mac.Write([]byte(label))
		mac.Write([]byte{0})
		mac.Write(value)
		dst = append(append(append(dst, '<'), label...), ':')
		dst = hex.AppendEncode(dst, mac.Sum(nil)[:16])
		return append(dst, '>')
	case Pseudonymise:
		if r.conv != nil {
			return r.conv.appendPlaceholder(dst, label, value, r.known)
		}
	}
	return append(append(append(dst, '<'), label...), '>')
}

// appendMask appends value with asterisks for its letters and digits, but for
// the last four of nine or more.
func appendMask(dst, value []byte) []byte {
	total := 0
	isText := func(r rune) bool { return r >= utf8.RuneSelf || isAlnum(byte(r)) }
	for _, r := range string(value) {
		if isText(r) {
			total++
		}
	}
	show := 4
	if total < 9 {
		show = 0
	}
	for _, r := range string(value) {
		if !isText(r) {
			dst = utf8.AppendRune(dst, r)
			continue
		}
		if total--; total < show {
			dst = utf8.AppendRune(dst, r)
		} else {
			dst = append(dst, '*')
		}
	}
	return dst
}
