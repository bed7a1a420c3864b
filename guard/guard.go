package guard

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// DefaultThreshold is the score from which on a finding counts.
const DefaultThreshold = 0.5

// Finding is a span of text and what it is.
type Finding struct {
	// Start and End are offsets in bytes. The span is text[Start:End].
	Start, End int
	// Label is the kind of entity, by Presidio's name for it. [Entities] lists
	// them.
	Label string
	// Score says how sure the finding is, from 0 to 1. Without context a bare
	// number has a low one, even if its check digit is right.
	Score float64
}

// Policy says what to look for and what to do about it. The zero Policy looks
// for everything and redacts it.
type Policy struct {
	// Threshold is the lowest score that counts. Zero means [DefaultThreshold];
	// a negative one lets everything count.
	Threshold float64
	// Entities are the labels to look for. Nil means all; an empty list is refused.
	Entities []string
	// Actions say what is done, by label; a label that is not there gets Default.
	Actions map[string]Action
	// Default is the action for labels without one of their own. Zero means
	// [Redact].
	Default Action
	// AllowDomains are domains whose addresses, names and URLs are no findings.
	// They are compared as a whole: "tamshai.com" allows alice@tamshai.com and
	// https://tamshai.com/, and neither mail.tamshai.com nor
	// tamshai.com.evil.example. ".tamshai.com" allows what is below it.
	AllowDomains []string
	// Names is a dictionary of names of people and places. Nil means none: there
	// is no model here that would guess them.
	Names *Dictionary
	// Key makes the hashes of the action [Hash]. Needed for that action.
	Key []byte
}

// Guard finds and removes what its policy names. It is safe for use by several
// goroutines.
type Guard struct {
	policy    Policy
	det       *detector
	threshold float32
	allow     map[string]bool
	scanners  sync.Pool
}

// New returns a Guard. It fails if the policy names an entity or an action that
// does not exist, or needs a key and has none.
func New(p Policy) (*Guard, error) {
	if p.Entities != nil && len(p.Entities) == 0 {
		return nil, errors.New("guard: Entities is empty, so that nothing would be found; name some, or leave it out for all")
	}
	det, err := newDetector(p.Entities, p.Names)
	if err != nil {
		return nil, err
	}
	g := &Guard{policy: p, det: det, threshold: float32(p.Threshold), allow: map[string]bool{}}
	switch {
	case p.Threshold == 0:
		g.threshold = DefaultThreshold
	case !(p.Threshold <= 1): // NaN neither: no score would reach it
		return nil, fmt.Errorf("guard: a threshold of %g, want at most 1", p.Threshold)
	}
	if err := p.checkActions(det); err != nil {
		return nil, err
	}
	for _, domain := range p.AllowDomains {
		d := strings.ToLower(strings.TrimSuffix(domain, "."))
		if strings.ContainsAny(d, "@/: *") || !strings.Contains(strings.TrimPrefix(d, "."), ".") {
			return nil, fmt.Errorf("guard: %q in AllowDomains is no domain; write it as tamshai.com, or as .tamshai.com for what is below it", domain)
		}
		g.allow[d] = true
	}
	g.scanners.New = func() any { return &scanner{det: det} }
	return g, nil
}

// Scan returns the findings in text, in order. They do not overlap: where labels
// compete for the same characters, the better score wins, and the longer span
// among equals.
func (g *Guard) Scan(text []byte) []Finding { return g.scan(text, g.threshold, best) }

// Candidates returns what may be an entity with a score of min or more, in order
// of where it begins. Several labels may claim the same characters.
func (g *Guard) Candidates(text []byte, min float64) []Finding {
	return g.scan(text, float32(min), every)
}

// maxKept is how many findings a scanner has room for between scans.
const maxKept = 4096

func (g *Guard) scan(text []byte, low float32, m mode) []Finding {
	s := g.scanners.Get().(*scanner)
	defer g.scanners.Put(s)
	s.start(g, low, m)
	all := s.findings[:0]
	s.scan(text, 0, true, func(c candidate) {
		if n := len(all); c.runOn && n > 0 && all[n-1].End == c.start {
			all[n-1].End = c.end
			return
		}
		if n := len(all); n == cap(all) && n >= maxKept { // as many again in as much text
			all = slices.Grow(all, min(3*n, int(float64(n)*float64(len(text)-c.end)/float64(c.end))+maxKept))
		}
		all = append(all, Finding{Start: c.start, End: c.end, Label: c.rec.label, Score: float64(int(c.score*1000+0.5)) / 1000})
	})
	if cap(all) > maxKept {
		return all
	}
	if s.findings = all; len(all) == 0 {
		return nil
	}
	return slices.Clone(all)
}

// start makes s ready for a text.
func (s *scanner) start(g *Guard, min float32, m mode) {
	s.zone.guard, s.zone.min, s.zone.mode = g, min, m
	s.header, s.inPEM, s.runOn, s.searched, s.dot, s.dotTo = 0, false, nil, 0, -1, 0
}

// mode says which of several candidates for the same characters count.
type mode int

const (
	every mode = iota // all of them
	best              // the best; the others are dropped
	union             // the best, for all characters that any of them claims
)

// choose leaves of the candidates, which are in order, those that z.mode wants.
func (z *zone) choose() {
	if z.mode == every || len(z.out) < 2 {
		return
	}
	kept := z.chosen[:0]
	for i := 0; i < len(z.out); {
		// A cluster: candidates that overlap, one with the next.
		end, j := z.out[i].end, i+1
		for j < len(z.out) && z.out[j].start < end {
			end = max(end, z.out[j].end)
			j++
		}
		cluster := z.out[i:j]
		i = j
		if len(cluster) == 1 {
			kept = append(kept, cluster[0])
			continue
		}
		start := cluster[0].start
		slices.SortStableFunc(cluster, better)
		if z.mode == union {
			cluster[0].start, cluster[0].end = start, end
			kept = append(kept, cluster[0])
			continue
		}
		first := len(kept)
		for _, c := range cluster {
			// What is kept does not overlap: look at the neighbours.
			at, _ := slices.BinarySearchFunc(kept[first:], c.start, func(k candidate, start int) int { return k.start - start })
			at += first
			if (at == first || kept[at-1].end <= c.start) && (at == len(kept) || kept[at].start >= c.end) {
				kept = slices.Insert(kept, at, c)
			}
		}
	}
	z.out, z.chosen = kept, z.out
}

// better orders candidates by score, length and place in the table.
func better(a, b candidate) int {
	switch {
	case a.score != b.score:
		if a.score > b.score {
			return -1
		}
		return 1
	case a.end-a.start != b.end-b.start:
		return (b.end - b.start) - (a.end - a.start)
	}
	return a.rec.topic - b.rec.topic
}

// allowed reports whether the policy allows the domain of a finding.
func (g *Guard) allowed(label string, text []byte) bool {
	if len(g.allow) == 0 {
		return false
	}
	var host []byte
	switch label {
	case "EMAIL_ADDRESS":
		_, after, _ := strings.Cut(string(text), "@")
		host = []byte(after)
	case "URL", "DOMAIN_NAME":
		host = urlHost(text)
	default:
		return false
	}
	name := strings.ToLower(strings.TrimSuffix(string(host), "."))
	if g.allow[name] {
		return true
	}
	for {
		_, after, ok := strings.Cut(name, ".")
		if !ok {
			return false
		}
		if name = after; g.allow["."+name] {
			return true
		}
	}
}

// urlHost returns the name of the host in a URL or the name itself.
func urlHost(text []byte) []byte {
	s := string(text)
	if _, after, ok := strings.Cut(s, "://"); ok {
		s = after
	}
	if i := strings.IndexAny(s, "/?#"); i >= 0 {
		s = s[:i]
	}
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		s = s[i+1:]
	}
	s, _, _ = strings.Cut(s, ":")
	return []byte(s)
}
