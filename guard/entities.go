package guard

import (
	"slices"
	"strings"
)

// Entity is a kind of thing that a [Guard] finds.
type Entity struct {
	// Label is its name in findings and policies.
	Label string `json:"label"`
	// Checked says that values prove themselves, by a check digit or a rule.
	Checked bool `json:"checked"`
	// Score is the best that a value reaches without context; WithContext, with
	// one of the words of Context before it.
	Score       float64 `json:"score"`
	WithContext float64 `json:"with_context"`
	// Context are the words that raise a score.
	Context []string `json:"context"`
}

// Entities lists what is supported, by label. Names from a [Dictionary] come on
// top.
func Entities() []Entity {
	det, err := newDetector(nil, nil)
	if err != nil {
		return nil // the tables are constant, and a test compiles them
	}
	byLabel := map[string]*Entity{}
	for _, r := range det.recs {
		if r.label == "" {
			continue
		}
		e := byLabel[r.label]
		if e == nil {
			e = &Entity{Label: r.label}
			byLabel[r.label] = e
		}
		score, with := r.score, r.with
		if r.forms == "" {
			score, with = r.best, r.bestWith
		}
		e.Checked = e.Checked || r.check != nil || r.checked
		e.Score = max(e.Score, float64(int(score*100+0.5))/100)
		e.WithContext = max(e.WithContext, float64(int(with*100+0.5))/100)
		for word := range strings.FieldsSeq(r.words) {
			if !slices.Contains(e.Context, word) {
				e.Context = append(e.Context, word)
			}
		}
	}
	all := make([]Entity, 0, len(byLabel))
	for _, e := range byLabel {
		slices.Sort(e.Context)
		all = append(all, *e)
	}
	slices.SortFunc(all, func(a, b Entity) int { return strings.Compare(a.Label, b.Label) })
	return all
}
