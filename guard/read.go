package guard

import "slices"

// zone reads one zone. Its buffers are used again.
type zone struct {
	det    *detector
	guard  *Guard
	min    float32 // the lowest score that counts
	mode   mode
	out    []candidate
	chosen []candidate
	levels [decodeDepth + 1]level
	raw    []byte // all of the text, for context
	start  int    // of the zone in it
	outer  mask   // context of a blob, from around it
	dots   bool   // the word dot is in it
}

// level is a view that is being read, and how far.
type level struct {
	zone         *zone
	v            view
	t            []byte // v.text
	blob         [maxBlob]byte
	groups       [maxRun]group
	chars        [(maxRun + 1) * maxFormSize]byte // of the groups, in upper case
	hit          int                              // the trigger that is known to be one
	runEnd       int                              // digits before it have been read
	tokEnd       int                              // a token before it has been read
	hostEnd      int                              // a host before it has been read
	urlEnd       int                              // and a URL
	authorityEnd int                              // the host of a URL, and who logs in there
	valueEnd     int                              // and the value of a secret
	apartEnd     int                              // characters that stand apart before it have been read
	partedEnd    int                              // and by other separators
	codesEnd     int                              // and their codes
	quotedEnd    int                              // and quoted-printable
	spelledEnd   int                              // and a spelled address
	looseEnd     int                              // and the parts of numbers
	parts        [maxParts]part
	number1      looseNumber
	ctxAt        int // where ctx is for, and whether letters are glued to it
	ctxOK        bool
	ctx          mask
}

// read returns the candidates in b[start:end], which the trigger at hit is in, in order,
// none of which has its trigger before first, and the first header of a private key, at
// which it stops.
func (z *zone) read(det *detector, b []byte, start, end, first, hit int) ([]candidate, pemHead) {
	z.det, z.out, z.raw, z.start, z.outer = det, z.out[:0], b, start, mask{}
	l := &z.levels[0]
	l.v.reset(b[start:end], start)
	if l.v.from != nil {
		first, hit = start, -1
	}
	head := l.read(z, first-start, hit-start)
	z.resolve()
	z.choose()
	return z.out, head
}

// read reads the view of l, from the trigger at t[from] on, to the end or to the header
// of a private key, whose place in the source it returns. That t[hit] is a trigger is
// known.
func (l *level) read(z *zone, from, hit int) pemHead {
	l.zone, l.t, l.hit = z, l.v.text, hit
	l.runEnd, l.tokEnd, l.hostEnd, l.urlEnd, l.authorityEnd, l.valueEnd, l.apartEnd, l.partedEnd, l.codesEnd, l.looseEnd, l.spelledEnd, l.quotedEnd, l.ctxOK = 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, false
	if z.det.names != nil {
		l.readNames()
	}
	t := l.t
	if z.dots || l.v.from != nil || l.v.blob {
		for i := nextDot(t, 0); i < len(t); i = nextDot(t, i+1) {
			l.dotWord(i)
		}
	}
	for i := skip(t, from); i < len(t); i = skip(t, i+1) {
		switch triggerOf[t[i]] {
		case trigWord, trigBig:
			start, end := wordAround(t, i)
			if i >= l.tokEnd && (encodes(t[start:end]) || z.det.marked(t, start, end)) {
				l.token(i)
			}
			i = end - 1
		case trigDigit:
			if i >= l.runEnd || i >= l.tokEnd {
				if end, hit := l.digit(i); !hit {
					i = end
					continue
				}
			}
			for i+1 < len(t) && isDigit(t[i+1]) {
				i++
			}
		case trigAt:
			l.email(i)
			l.oddAt(i)
			l.spaced(i)
			l.parted(i)
		case trigPoint:
			if i > 0 && i+1 < len(t) && isHostByte[t[i-1]] && isHostByte[t[i+1]] {
				l.host(i)
			}
		case trigColon, trigEqual, trigQuote:
			if t[i] == '=' {
				l.quoted(i)
			}
			if t[i] == ':' {
				l.colon(i)
			} else if t[i] == '"' && i+1 < len(t) && t[i+1] == ' ' {
				continue // behind a name: an operator says where the value is
			}
			if i >= l.tokEnd && padsBlob(t, i) {
				l.token(i - 1)
			}
			l.assigned(i)
		case trigDash:
			if macPairs(t, i-2, '-') {
				l.add(z.det.mac, i-2, i+15, l.rate(z.det.mac, i-2, 0.8, 1))
			} else if n := pemHeader(t[i:]); n > 0 && z.det.wants(z.det.pem) {
				if !l.v.blob {
					start, end := l.v.span(i, i+n)
					return pemHead{start, end}
				}
				if body, _ := pemBody(t, i+n, true); body {
					l.add(z.det.pem, i, len(t), 1)
					return pemHead{}
				}
			}
		}
	}
	return pemHead{}
}

// digit reads what the digit t[i] is in, the first of some. If that may be part of
// nothing, hit is false, and end the last place of it.
func (l *level) digit(i int) (end int, hit bool) {
	if i >= l.runEnd && i != l.hit {
		if end, hit := l.zone.det.plainNumber(l.t, i, l.zone.min, false); !hit {
			return end, false
		}
	}
	if i >= l.tokEnd {
		l.token(i)
	}
	if i >= l.runEnd {
		l.number(i)
	}
	if i+1 == len(l.t) || !isAlnum(l.t[i+1]) {
		l.spaced(i)
		l.parted(i)
	}
	l.codes(i)
	return i, true
}

// add records what the source of t[i:j] is.
func (l *level) add(rec *recognizer, i, j int, score float32) {
	if l.v.blob && score < 0.5 {
		return // a weak one in a blob may be chance
	}
	start, end := l.v.span(i, j)
	l.zone.add(rec, start, end, score)
}

func (z *zone) add(rec *recognizer, start, end int, score float32) {
	if score <= 0 || score < z.min || !z.det.wants(rec) || z.guard.allowed(rec.label, z.raw[start:end]) {
		return
	}
	z.out = append(z.out, candidate{start: start, end: end, rec: rec, score: score})
}

// context returns which recognizers have a word before t[i].
func (l *level) context(i int) *mask {
	if l.ctxOK && l.ctxAt == i {
		return &l.ctx
	}
	words := &l.zone.det.words
	if l.v.from == nil && !l.v.blob {
		l.ctx = words.before(l.zone.raw[:l.zone.start+i])
	} else {
		l.ctx = words.before(l.t[:i])
		if i < contextBytes && !l.v.blob {
			l.ctx.union(words.before(l.zone.raw[:l.zone.start]))
		}
		l.ctx.union(l.zone.outer)
	}
	// Letters right before it, as in "ssn219099999".
	j := i
	for j > 0 && i-j < 32 && isLetter(l.t[j-1]) {
		j--
	}
	if j < i {
		words.within(l.t[j:i], &l.ctx)
	}
	l.ctxAt, l.ctxOK = i, true
	return &l.ctx
}

// rate returns the score of rec at t[i], which is with if a word of rec is
// before it.
func (l *level) rate(rec *recognizer, i int, score, with float32) float32 {
	if with != score && max(score, with) >= l.zone.min && l.context(i).has(rec.bit) {
		return with
	}
	return score
}

// beats reports whether c, of the same label, says nothing beside o. What is likely
// and has all of the other beats even a surer one, of which the rest would be left.
func (o *candidate) beats(c candidate) bool {
	size, other := o.end-o.start, c.end-c.start
	switch {
	case size > other && o.start <= c.start && o.end >= c.end && o.score >= DefaultThreshold:
		return true
	case other > size && c.start <= o.start && c.end >= o.end && c.score >= DefaultThreshold:
		return false
	}
	return o.score > c.score || o.score == c.score && size >= other
}

// resolve puts the candidates in order and leaves, of those of one label that
// overlap, the best.
func (z *zone) resolve() {
	if len(z.out) < 2 {
		return
	}
	slices.SortStableFunc(z.out, func(a, b candidate) int {
		switch {
		case a.start != b.start:
			return a.start - b.start
		case a.score != b.score:
			return int((b.score - a.score) * 1000)
		case a.end != b.end:
			return b.end - a.end
		}
		return a.rec.topic - b.rec.topic
	})
	kept := z.out[:0]
	for _, c := range z.out {
		lost := false
		for k := len(kept) - 1; k >= 0 && k >= len(kept)-32; k-- {
			o := &kept[k]
			if o.rec == nil || o.rec.label != c.rec.label || o.end <= c.start {
				continue
			}
			if lost = o.beats(c); lost {
				break
			}
			o.rec = nil // c is better
		}
		if !lost {
			kept = append(kept, c)
		}
	}
	z.out = slices.DeleteFunc(kept, func(c candidate) bool { return c.rec == nil })
}
