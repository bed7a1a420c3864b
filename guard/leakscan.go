package guard

import (
	"hash/maphash"
	"math"
	"unicode"
	"unicode/utf8"
)

// A word is one of a text, in lower case without apostrophes, and where it
// stands in the layer. A character of a script without spaces is a word.
type word struct {
	text       string
	start, end int
}

func splitWords(l *layer) []word {
	var words []word
	eachWord(l.text, func(text []byte, start, end int) bool {
		words = append(words, word{string(text), start, end})
		return true
	})
	return words
}

// eachWord calls f with the words of text until it returns false. It leaves
// out single letters and short numbers: markup and the numbers of lines.
func eachWord(text []byte, f func(folded []byte, start, end int) bool) {
	var buf [64]byte
	folded, start, digits := buf[:0], -1, true
	flush := func(end int) bool {
		ok := true
		if n := len(folded); n > 1 && (!digits || n > 4) {
			ok = f(folded, start, end)
		}
		folded, start, digits = folded[:0], -1, true
		return ok
	}
	for i := 0; i < len(text); {
		r, n := rune(text[i]), 1
		if r >= utf8.RuneSelf {
			r, n = utf8.DecodeRune(text[i:])
		}
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r >= utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r)):
			if start >= 0 && alone(r) && !flush(i) {
				return
			}
			if start < 0 {
				start = i
			}
			if r < '0' || r > '9' {
				digits = false
			}
			switch {
			case r >= 'A' && r <= 'Z':
				r += 'a' - 'A'
			case r >= utf8.RuneSelf:
				r = unicode.ToLower(r)
			}
			folded = utf8.AppendRune(folded, r)
			if alone(r) && !flush(i+n) {
				return
			}
		case r == '\'' && start >= 0: // don't
		default:
			if start >= 0 && !flush(i) {
				return
			}
		}
		i += n
	}
	if start >= 0 {
		flush(len(text))
	}
}

// alone reports whether r is of a script that has no spaces between words.
func alone(r rune) bool {
	return r >= 0x0E00 && unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Thai, unicode.Lao, unicode.Khmer, unicode.Myanmar)
}

// A track holds the best alignment that ends at each place of the line.
type track struct {
	score []float32
	seen  []int32 // the tick at which it ended there
	start []int32 // where it began in the text
	count []int32 // how many words or letters agree
	run   []int32 // how many of the last words agree without a gap
	tick  int32
	met   [reach + 2]meeting // the last ones, by tick
	last  lastLetters
}

// A meeting is a tick at which a word or a gram of the text was one of some places.
type meeting struct {
	tick   int32
	places []int32
}

func newTrack(n int) track {
	return track{score: make([]float32, n), seen: make([]int32, n), start: make([]int32, n), count: make([]int32, n), run: make([]int32, n)}
}

// begin forgets what was seen, in constant time but once in two thousand
// million ticks.
func (t *track) begin() {
	if t.tick > math.MaxInt32-2*window {
		clear(t.seen)
		clear(t.met[:])
		t.tick = 0
	}
	t.tick += reach + 2 + gram
}

func (t *track) meet(places []int32) {
	t.met[t.tick%int32(len(t.met))] = meeting{t.tick, places}
}

type scratch struct{ words, letters track }

func newScratch(x *index) *scratch {
	return &scratch{newTrack(len(x.places)), newTrack(len(x.letters))}
}

// An alignment is the best one so far, and the best one that may still grow.
type alignment struct {
	score      float32 // as a share of what is enough
	prompt     int32
	start, end int // in the layer; what begins before it is negative, in bytes of the original
	live       float32
	liveFrom   int
	liveTick   int32
}

// A verdict is what the layers of a text together say of it.
type verdict struct {
	best  Leak
	hold  int // from where on it may be the beginning of a leak: its length if it is not
	steps int // bytes looked at
}

// scan returns the best likeness in all layers of text.
func (x *index) scan(text []byte) verdict {
	s := x.scratch.Get().(*scratch)
	defer x.scratch.Put(s)
	v := verdict{hold: len(text)}
	r := readLayers(text, 0, func(_ kind, l *layer) bool {
		x.judge(&v, s, l, nil)
		return true
	})
	v.steps += r.steps
	return v
}

// judge adds to v what l says, which goes on what is before it.
func (x *index) judge(v *verdict, s *scratch, l *layer, before *past) {
	for _, a := range x.align(l.text, s, before) {
		if a.live > 0 {
			v.hold = min(v.hold, l.origin(a.liveFrom))
		}
		if score := float64(a.score / (a.score + 1)); score > v.best.Score {
			_, end := l.span(a.end-1, a.end)
			v.best = Leak{x.prompts[a.prompt].name, score, l.origin(a.start), end}
		}
	}
	v.steps += len(l.text)
}

// origin returns where what l.text[i] was made from begins; what is before l is where
// it is.
func (l *layer) origin(i int) int {
	if i < 0 || i >= len(l.text) {
		return i
	}
	start, _ := l.span(i, i+1)
	return start
}

// align aligns text, which goes on what is before it, by words, letters and steps.
func (x *index) align(text []byte, s *scratch, before *past) [3]alignment {
	if before == nil {
		before = &past{}
	}
	return [...]alignment{
		x.alignWords(text, &s.words, before.words),
		x.alignLetters(text, &s.letters, before.letters, false),
		x.alignLetters(text, &s.letters, before.steps, true),
	}
}

func (x *index) alignWords(text []byte, t *track, before *tail) alignment {
	t.begin()
	a := t.resume(before)
	eachWord(text, func(folded []byte, start, end int) bool {
		t.tick++
		places := x.words[maphash.Bytes(x.seed, folded)]
		if len(places) > 0 {
			t.meet(places)
		}
		for _, j := range places {
			p := x.places[j]
			score, from, count, run := t.before(x, j)
			if score <= 0 {
				if p.alone < 0.3 && !p.opens {
					continue // such a word begins nothing
				}
				score, from, count, run = 0, int32(start), 0, 0
			}
			worth := p.alone
			if run++; run > 2 {
				worth = p.inRun
			}
			score, count = score+worth, count+1
			if age := t.tick - t.seen[j]; t.seen[j] == 0 || age > reach || score >= t.score[j]-float32(age)*skipCost {
				t.score[j], t.seen[j], t.start[j], t.count[j], t.run[j] = score, t.tick, from, count, run
			}
			a.take(score/x.prompts[p.prompt].enough, p.prompt, int(from), end, t.tick, count >= holdWords)
		}
		if a.live > 0 && t.tick-a.liveTick > reach {
			a.live = 0
		}
		return true
	})
	return a
}

// before returns the best alignment that a match at place j continues.
func (t *track) before(x *index, j int32) (score float32, start, count, run int32) {
	for d := int32(1); d <= reach+1 && d <= j; d++ {
		i := j - d
		if x.places[i].prompt < 0 {
			break
		}
		age := t.tick - t.seen[i]
		if t.seen[i] == 0 || age < 1 || age > reach+1 {
			continue
		}
		if s := t.score[i] - float32(max(d, age)-1)*skipCost; s > score {
			score, start, count, run = s, t.start[i], t.count[i], 0
			if d == 1 && age == 1 {
				run = t.run[i]
			}
		}
	}
	return score, start, count, run
}

// alignLetters finds runs of letters that agree, whatever is between them. With
// steps set it reads, for each letter from A to Z, how far that is behind the one
// before: this stays the same when all are shifted, as Caesar did.
func (x *index) alignLetters(text []byte, t *track, past *tail, steps bool) alignment {
	t.begin()
	a := t.resume(past)
	var last lastLetters
	if past != nil {
		last = past.last
	}
	for i := 0; i < len(text); {
		r, n := rune(text[i]), 1
		if r >= utf8.RuneSelf {
			r, n = utf8.DecodeRune(text[i:])
		}
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
		case r >= 'A' && r <= 'Z':
			r += 'a' - 'A'
		case r >= utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r)):
			r = unicode.ToLower(r)
		default:
			i += n
			continue
		}
		if steps {
			if r < 'a' || r > 'z' {
				i += n
				continue
			}
			r, last.before = stride(last.before, r), r
		}
		t.tick++
		last.starts[last.roll.n%gram] = int32(i)
		i += n
		h, ok := last.roll.next(r)
		if !ok || x.filter[h>>filterShift/64]&(1<<(h>>filterShift%64)) == 0 {
			continue
		}
		places := x.grams[h]
		t.meet(places)
		for _, j := range places {
			var score float32
			var from int32
			if j > 0 && t.seen[j-1] == t.tick-1 && t.seen[j-1] > 0 {
				score, from = t.score[j-1]+x.letters[j].weight, t.start[j-1]
			} else {
				for k := range int32(gram) {
					score += x.letters[j-k].weight
				}
				from = last.starts[last.roll.n%gram] // of the first letter of the gram
			}
			t.score[j], t.seen[j], t.start[j] = score, t.tick, from
			p := x.letters[j].prompt
			a.take(score/x.prompts[p].enough, p, int(from), i, t.tick, false)
		}
		if a.live > 0 && t.tick != a.liveTick {
			a.live = 0
		}
	}
	t.last = last
	return a
}

// lastLetters are those that the next gram begins with.
type lastLetters struct {
	roll   roller
	starts [gram]int32 // of each, in the order of roll
	before rune        // the last one, if steps are read
}

// take notes an alignment that just grew; hold: a stream must hold it back in
// any case.
func (a *alignment) take(score float32, prompt int32, start, end int, tick int32, hold bool) {
	if score > a.score {
		a.score, a.prompt, a.start, a.end = score, prompt, start, end
	}
	if tick != a.liveTick && a.live > 0 && score < a.live/2 {
		return // the stronger one may still grow
	}
	if (hold || score > holdFrom) && (tick != a.liveTick || score > a.live) {
		a.live, a.liveFrom, a.liveTick = score, start, tick
	}
}

// A stream holds back from this share of what is enough on, and from so many
// words.
const (
	holdFrom  = 0.25
	holdWords = 4
)

// A roller hashes the last letters of a text, polynomially.
type roller struct {
	ring [gram]uint64
	n    int
	sum  uint64
}

const rollBase = 0x9E3779B97F4A7C15 | 1

var rollOut = func() uint64 { // rollBase to the power of gram
	p := uint64(1)
	for range gram {
		p *= rollBase
	}
	return p
}()

// next adds r and returns the hash of the last gram letters, if there are.
func (l *roller) next(r rune) (uint64, bool) {
	at := l.n % gram
	in := uint64(r) + 1
	l.sum = l.sum*rollBase + in - l.ring[at]*rollOut
	l.ring[at] = in
	l.n++
	return l.sum, l.n >= gram
}
