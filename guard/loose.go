package guard

// Numbers are read a second time, loosely: as parts of digits and letters with
// anything that is not a word between them, and with letters that look like
// digits. What so little says has to be said by something else: a check digit, the
// lengths of the groups, or a word in front.

const (
	// maxParts is how many parts are read together.
	maxParts = 40
	// maxJunk is how many bytes may be between two of them, and maxTag how many
	// a tag of HTML among these may have.
	maxJunk = 14
	maxTag  = 48
	// maxLoose is the longest number: an IBAN.
	maxLoose = 34
)

// junkKind says what stands between two parts.
type junkKind uint8

const (
	junkNone  junkKind = iota
	junkSeam           // what a writer puts into a value to cut it, such as ** or " + "
	junkBreak          // the end of a line
	junkSpace          // white space
	junkTight          // a comma, a semicolon or a bar, without spaces
	junkList           // what stands between the items of a list
	junkOther          // what ends a sentence, or an operator
)

// part is a run of letters and digits, and what stands behind it.
type part struct {
	start, end int
	letters    bool // letters alone, none of which looks like a digit
	kind       junkKind
	point      bool   // the junk spells a full stop
	mark       uint32 // the same for the same junk
}

// loose reads numbers in the parts from t[i] on.
func (l *level) loose(i int) {
	if i < l.looseEnd {
		return
	}
	t := l.t
	start := i
	for start > l.looseEnd && i-start < maxFormSize && isAlnum(t[start-1]) {
		start--
	}
	start = l.countryBefore(start)
	ps := l.parts[:0]
	digits, words := 0, 0
	for p := start; ; {
		pc := part{start: p, letters: true}
		for p < len(t) && isAlnum(t[p]) {
			if isDigit(t[p]) {
				digits++
				pc.letters = false
			}
			p++
		}
		if pc.letters && p-pc.start <= 4 {
			pc.letters = false
			for k := pc.start; k < p; k++ {
				pc.letters = pc.letters || likeDigit[t[k]] == 0
			}
		}
		pc.end = p
		if words++; !pc.letters {
			words = 0
		}
		if p-pc.start > maxFormSize || pc.letters && p-pc.start > 4 || words > 2 {
			break
		}
		next := 0
		pc.kind, pc.point, pc.mark, next = junkBehind(t, p)
		ps = append(ps, pc)
		if next == 0 || len(ps) == maxParts {
			break
		}
		p = next
	}
	for len(ps) > 0 && ps[len(ps)-1].letters {
		ps = ps[:len(ps)-1]
	}
	if len(ps) == 0 {
		l.looseEnd = i + 1
		return
	}
	l.looseEnd = ps[len(ps)-1].end
	if len(ps) == maxParts { // the rest begins another
		l.looseEnd = ps[maxParts/2].start
	}
	ps[len(ps)-1].kind = junkNone
	if len(ps) >= 4 && digits >= 4 {
		l.looseIPv4(ps)
	}
	for p := 0; p < len(ps) && digits >= 4; p++ {
		l.looseFrom(ps, p)
		for k := ps[p].start; k < ps[p].end; k++ {
			if isDigit(t[k]) {
				digits--
			}
		}
	}
}

// isStrange reports whether a run is not as numbers usually are: with letters that
// look like digits, different separators, or digits behind other things than
// separators.
func (l *level) isStrange(gs []group) bool {
	t := l.t
	if end := gs[0].end; len(gs) == 1 && gs[0].numeric && end+1 < len(t) && t[end] == ' ' && isLetter(t[end+1]) && t[end+1]|0x20 != 'd' && likeDigit[t[end+1]] == 0 {
		return false // as most are
	}
	single := 0
	for i := range gs {
		g := &gs[i]
		if g.end-g.start > 1 {
			single = 0
		} else if single++; single == 9 {
			return true
		}
		if i+2 < len(gs) && !g.letters && g.sep != gs[i+1].sep && gs[i+1].sep != ':' && !gs[i+1].letters && !gs[i+2].letters {
			return true
		}
		if g.sep > ' ' && i+1 < len(gs) && gs[i+1].start-g.end > 1 && (g.sep == '.' || t[g.end] == '\n' || t[gs[i+1].start-1] == '\n') {
			return true
		}
		if g.letters && g.end-g.start == 3 && i > 0 && string(l.chars[g.at:g.at+3]) == "DOT" {
			return true
		}
		if !g.numeric && !g.letters && g.end-g.start <= maxFormSize {
			if c := l.chars[g.at : g.at+g.end-g.start]; len(c) > 14 && ibanSize(c[:2]) == len(c) && ibanSum(c) {
				continue
			}
			for k := g.start; k < g.end; k++ {
				if likeDigit[t[k]] != 0 {
					return true
				}
			}
		}
	}
	end := gs[len(gs)-1].end
	if end < len(t) && t[end] == ')' { // and on to the end of what is behind an area code
		for last := min(len(t), end+12); end < last && (isDigit(t[end]) || t[end] == ')' || isGroupSep[t[end]]); {
			end++
		}
		if end < len(t) && likeDigit[t[end]] != 0 && isDigit(t[end-1]) {
			return true
		}
	}
	for q := end; q < len(t) && q-end < maxJunk; q++ {
		switch c := t[q]; {
		case isDigit(c):
			return q > end && (t[q-1] != ' ' || q-end > 1 && t[end] != '.')
		case isLetter(c):
			return q > end && (t[q-1] == '"' || t[q-1] == '<' || t[q-1] == '/' || likeDigit[c] != 0 && q+1 < len(t) && isDigit(t[q+1]) || c|0x20 == 'd' && q+2 < len(t) && t[q+1]|0x20 == 'o' && t[q+2]|0x20 == 't')
		}
	}
	return false
}

// countryBefore returns where the letters of a country begin that stand apart in
// front of t[start], as in "G B29" and "DE 89", or start.
func (l *level) countryBefore(start int) int {
	t, first := l.t, start
	for letters := 0; letters < 2; letters++ {
		p := first
		for p > l.looseEnd && first-p < 3 && !isAlnum(t[p-1]) && t[p-1] < 0x80 {
			p--
		}
		if p == first || p == l.looseEnd || !isLetter(t[p-1]) {
			break
		}
		if p-2 >= l.looseEnd && isLetter(t[p-2]) {
			if letters == 0 && (p-3 < l.looseEnd || !isAlnum(t[p-3])) && ibanSize([]byte{upper(t[p-2]), upper(t[p-1])}) > 0 {
				return p - 2
			}
			break
		}
		first = p - 1
		if letters == 1 && (first == 0 || !isAlnum(t[first-1])) {
			return first
		}
		if letters == 0 && isLetter(t[start]) && (first == 0 || !isAlnum(t[first-1])) && ibanSize([]byte{upper(t[first]), upper(t[start])}) > 0 {
			return first
		}
	}
	return start
}

// junkBehind reads what is between the part that ends at t[p] and the next, which
// begins at next; 0 if there is none.
func junkBehind(t []byte, p int) (kind junkKind, point bool, mark uint32, next int) {
	mark = 2166136261
	var comma, quote, space, feed, sentence, plus, other, dotted bool
	q := p
	for room := maxJunk; room > 0 && q < len(t); room-- {
		c := t[q]
		switch {
		case isAlnum(c):
			if q > p && !isAlnum(t[q-1]) && q+3 < len(t) && c|0x20 == 'd' && t[q+1]|0x20 == 'o' && t[q+2]|0x20 == 't' && !isAlnum(t[q+3]) {
				point = true
				q += 3
				continue
			}
			switch {
			case q == p:
				return junkNone, false, 0, 0
			case point && feed:
				kind = junkBreak
			case point:
				kind = junkSeam
			case quote && plus && !comma:
				kind = junkSeam // "219" + "09"
			case sentence:
				kind = junkOther
			case comma && (space || feed || quote):
				kind = junkList
			case comma:
				kind = junkTight
			case feed:
				kind = junkBreak
			case space && !other && !quote:
				kind = junkSpace
			case space:
				kind = junkOther
			default:
				kind = junkSeam
			}
			return kind, point, mark, q
		case c == '<':
			n := tagLength(t[q:])
			if n == 0 {
				return junkNone, false, 0, 0
			}
			mark = (mark ^ 't') * 16777619
			q += n
			continue
		case c == '"':
			quote = true
			if n := keyLength(t[q:]); n > 0 {
				comma = true
				mark = (mark ^ 'k') * 16777619
				q += n
				continue
			}
		case c == ' ' || c == '\t':
			space = true
			if q > p && t[q-1] == '.' {
				point = point && !quote && q > p+1 && t[q-2] == ' ' // with a space on either side
				sentence = q < p+2
			}
		case c == '\n' || c == '\r':
			if q > p && (t[q-1] == '\\' || t[q-1] == '=') { // the line goes on
				mark = (mark ^ uint32(c)) * 16777619
				q++
				continue
			}
			feed = true
		case c == ',' || c == ';' || c == '|':
			comma = true
		case c == '?' || c == '!' || c == '%' || c == '$' || c == '@':
			sentence = true
		case c == ':':
			sentence = sentence || space || q+1 < len(t) && isSpace(t[q+1])
		case c == '\'':
			quote = true
		case c == '+' || c == '.':
			plus = plus || quote
			other = true
			if c == '.' {
				point = !dotted
				dotted = true
			}
		case c == ')' && q == p, (c == '\\' || c == '=') && breakLine(t[q+1:]) > 0:
			// of an area code, or the line goes on
		case c < 0x80:
			other = true
		default:
			n := punctuation(t[q:])
			if n == 0 {
				return junkNone, false, 0, 0
			}
			other = true
			for range n {
				mark = (mark ^ uint32(t[q])) * 16777619
				q++
			}
			continue
		}
		mark = (mark ^ uint32(c)) * 16777619
		q++
	}
	return junkNone, false, 0, 0
}

// tagLength returns the length of the tag or comment of HTML at the start of b, or 0.
func tagLength(b []byte) int {
	if len(b) < 3 || !isLetter(b[1]) && b[1] != '/' && b[1] != '!' {
		return 0
	}
	for i := 2; i < min(len(b), maxTag); i++ {
		switch b[i] {
		case '>':
			return i + 1
		case '<', '\n':
			return 0
		}
	}
	return 0
}

// keyLength returns the length of the key of a JSON object at the start of b, with
// quotes and colon, or 0.
func keyLength(b []byte) int {
	p := 1
	for p < len(b) && p < 24 && (isAlnum(b[p]) || b[p] == '_' || b[p] == '-') {
		p++
	}
	if p == 1 || p >= len(b) || b[p] != '"' || !isLetter(b[1]) {
		return 0
	}
	for p++; p < len(b) && b[p] == ' '; p++ {
	}
	if p >= len(b) || b[p] != ':' {
		return 0
	}
	return p + 1
}

// punctuation returns the length of a mark of punctuation that is not ASCII at the
// start of b, or 0.
func punctuation(b []byte) int {
	switch {
	case len(b) > 2 && b[0] == 0xE2 && (b[1] == 0x80 || b[1] == 0x81 || b[1] >= 0x94 && b[1] <= 0x97), len(b) > 2 && b[0] == 0xE3 && b[1] == 0x80:
		return 3
	case len(b) > 1 && b[0] == 0xC2 && b[1] >= 0xA0:
		return 2
	}
	return 0
}

// likeDigit has the digit that a letter is taken for, or 0.
var likeDigit = func() (t [256]byte) {
	const pairs = "O0o0Q0l1I1i1Z2S5B8"
	for i := 0; i < len(pairs); i += 2 {
		t[pairs[i]] = pairs[i+1]
	}
	return t
}()

// looseNumber is what some parts say, read as one.
type looseNumber struct {
	c       [maxLoose]byte // in upper case
	d       [maxLoose]byte // with digits for letters that look like them
	n       int
	letters int // how many of c are letters
	odd     int // and how many of d
	starts  [maxLoose]int16
	parts   int
	ps      []part
	plus    bool
}

// looseFrom tries the numbers that begin with ps[p].
func (l *level) looseFrom(ps []part, p int) {
	t := l.t
	x, start := &l.number1, ps[p].start
	x.n, x.letters, x.odd, x.parts = 0, 0, 0, 0
	if start > 0 && t[start-1] == '$' {
		return
	}
	x.plus = start > 0 && t[start-1] == '+' || start > 1 && t[start-1] == ' ' && t[start-2] == '+'
	iban := 0
	for q := p; q < len(ps); q++ {
		if ps[q].end-ps[q].start > maxLoose-x.n {
			return
		}
		if ps[q].letters && (q == p && ps[q].end-ps[q].start > 2) {
			return
		}
		x.starts[x.parts] = int16(x.n)
		x.parts++
		for k := ps[q].start; k < ps[q].end; k++ {
			c := t[k]
			x.c[x.n], x.d[x.n] = upper(c), c
			if !isDigit(c) {
				x.letters++
				if x.d[x.n] = likeDigit[c]; x.d[x.n] == 0 {
					x.odd++
				}
			}
			x.n++
		}
		if x.n >= 4 && iban == 0 {
			if iban = ibanSize(x.c[:2]); iban == 0 {
				iban = -1
			}
		}
		if x.odd > 0 && iban < 0 {
			return
		}
		x.ps = ps[p : q+1]
		if x.n == iban {
			l.looseIBAN(x)
		}
		if x.n < 9 || x.n > 19 || x.odd > 0 || 2*x.letters > x.n || !l.looseEdges(ps, p, q) {
			continue
		}
		l.looseDigits(x)
	}
}

// looseEdges reports whether what is around ps[p:q+1] does not join it to others
// as its own parts are joined.
func (l *level) looseEdges(ps []part, p, q int) bool {
	joined := func(at int) bool {
		j := &ps[at]
		if j.kind == junkNone {
			return false
		}
		if l.t[j.end] != ' ' && j.kind == junkSeam && !j.point {
			return true
		}
		for k := p; k < q; k++ {
			if ps[k].mark == j.mark {
				return true
			}
		}
		return j.kind == junkTight
	}
	return !(p > 0 && !ps[p-1].letters && joined(p-1)) && !(q+1 < len(ps) && !ps[q+1].letters && joined(q))
}
