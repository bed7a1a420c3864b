package guard

import (
	"encoding/binary"
	"math/bits"
)

// maxRun is how many groups of letters and digits are read as one run.
const maxRun = 64

// group is one of several runs of letters and digits with separators between.
type group struct {
	start, end int
	sep        byte // behind it, as in a form; 0: none
	numeric    bool
	letters    bool // letters alone
	// at is where its characters are in chars, in upper case, and mask has a bit
	// for each that is a letter; -1 if it is too long for a form.
	at   int
	mask uint64
}

// number reads the identifiers around the digit t[i].
func (l *level) number(i int) {
	t := l.t
	start := i
	for start > l.runEnd && isAlnum(t[start-1]) {
		start--
	}
	if behindWord := start > 1 && t[start-1] == ' ' && isLetter(t[start-2]); !behindWord || !isLongNumber(t, start) {
		start = l.leading(start)
	}
	n, sum := l.collect(start)
	gs := l.groups[:n]
	stop := n
	if n == maxRun {
		stop = n - maxGroups - 3 // the rest begins a run of its own
	}
	l.runEnd = gs[stop-1].end
	sum.finish(t, gs)
	for g := 0; g < stop; g++ {
		size := gs[g].end - gs[g].start
		if size > maxFormSize {
			continue
		}
		start := gs[g].start
		l.readForms(&l.zone.det.forms, gs, g, start, false)
		switch {
		case gs[g].numeric:
			l.readNumber(gs, g, start, &sum)
		case !gs[g].letters:
			p := l.glued(gs[g])
			if p > 0 {
				l.readForms(&l.zone.det.forms, gs, g, p, true)
			}
			l.readIBAN(gs, g)
			if isDigit(t[start]) {
				l.readNumber(gs, g, start, &sum)
			} else if p > 0 {
				l.readNumber(gs, g, p, &sum)
			}
		}
		if gs[g].numeric {
			sum.digits -= size
		} else if !gs[g].letters {
			sum.digits -= digitsIn(&gs[g])
		}
	}
	if n > 1 && sum.dates {
		l.readDates(gs[:stop])
	}
	if l.zone.min < DefaultThreshold {
		l.readShapes(gs, stop)
	}
	if l.isStrange(gs[:stop]) {
		l.loose(gs[0].start)
	}
}

// readShapes tries the forms that are never findings on the first groups of gs.
func (l *level) readShapes(gs []group, stop int) {
	for g := range stop {
		if gs[g].end-gs[g].start > maxFormSize {
			continue
		}
		l.readForms(&l.zone.det.shapes, gs, g, gs[g].start, false)
		if p := l.glued(gs[g]); p > 0 {
			l.readForms(&l.zone.det.shapes, gs, g, p, true)
		}
	}
}

// runSummary tells, cheaply, what a run cannot be.
type runSummary struct {
	total  int  // digits
	digits int  // from the group on that is read
	goesOn bool // a telephone number may go on behind the run
	dates  bool // there is what separates days from months, or a word
}

func (s *runSummary) finish(t []byte, gs []group) {
	if s.total = s.digits; s.total < 7 {
		return
	}
	end := gs[len(gs)-1].end
	for _, c := range t[end:min(end+6, len(t))] {
		s.goesOn = s.goesOn || c == '(' || isDigit(c)
	}
}

// digitsIn returns how many digits g has, or more if it is too long for a form.
func digitsIn(g *group) int {
	switch {
	case g.letters:
		return 0
	case g.at < 0:
		return g.end - g.start
	}
	return g.end - g.start - bits.OnesCount64(g.mask)
}

// readNumber tries what begins with a digit and has a matcher of its own.
func (l *level) readNumber(gs []group, g, start int, sum *runSummary) {
	end := gs[g].end
	if gs[g].sep == '.' && end-start <= 3 {
		l.readIPv4(start)
	}
	if sum.total >= 20 && isParcel(l.t, gs, g) {
		return
	}
	if gs[g].numeric && end-start > 15 {
		// no telephone number has as many in a row
	} else if sum.digits >= 7 || sum.digits == 6 && end-start == 2 && gs[g].sep == ' ' || sum.total >= 7 && sum.goesOn || start > 0 && (l.t[start-1] == '(' || l.t[start-1] == '+') || end < len(l.t) && l.t[end] == '(' || end+1 < len(l.t) && l.t[end+1] == '(' {
		l.readPhone(start)
	}
	if sum.digits >= 12 {
		l.readCard(gs, g, start)
	}
}

// isLongNumber reports whether the first twelve characters of t[i:] are digits: no form
// has a word in front of as many.
func isLongNumber(t []byte, i int) bool {
	_, first := alnumsIn(eightOf(t, i))
	_, last := alnumsIn(eightOf(t, i+4))
	return first&last == highBits
}

// leading returns where a run that contains the token at start begins, if one or
// two short groups of letters are before it.
func (l *level) leading(start int) int {
	t := l.t
	for range 2 {
		p := start
		for p > l.runEnd && start-p < 2 && isGroupSep[t[p-1]] {
			p--
		}
		end := p
		for p > l.runEnd && end-p < 10 && isLetter(t[p-1]) {
			p--
		}
		if p == end || end-p > 4 && month(t[p:end]) == 0 || end == start || p > 0 && (isAlnum(t[p-1]) || t[p-1] >= 0x80) {
			break
		}
		if _, next := separator(t, end); next != start {
			break // collect would not get here
		}
		start = p
	}
	if p := start - 5; p >= l.runEnd && isAlnum(t[start-2]) && mayBeIBAN(t[p:start-1]) {
		if _, next := separator(t, start-1); next == start {
			return p
		}
	}
	return start
}

// mayBeIBAN reports whether b is a country and what may be meant for its check digits.
func mayBeIBAN(b []byte) bool {
	digit := func(c byte) bool { return isDigit(c) || likeDigit[c] != 0 }
	return digit(b[3]) && digit(b[2]) && (isDigit(b[2]) || isDigit(b[3])) && isLetter(b[1]) && isLetter(b[0]) && ibanSize([]byte{upper(b[0]), upper(b[1])}) > 0
}

// collect reads the groups from start on and returns how many, and what they cannot be.
func (l *level) collect(start int) (int, runSummary) {
	t := l.t
	words, at := 0, 0
	mixed, number := false, false // whether there was a group of both, and one of digits
	var sum runSummary
	for n := 0; ; n++ {
		g := &l.groups[n]
		p, letters := l.alnums(start, at)
		size := p - start
		*g = group{start: start, end: p, at: at, mask: letters}
		digits := size // or more, in one that is too long for a form
		if size > maxFormSize {
			g.at = -1
			g.numeric, g.letters = kindsOf(t[start:p])
			if g.letters {
				digits = 0
			}
		} else {
			at += size
			digits -= bits.OnesCount64(letters)
			g.numeric, g.letters = letters == 0, digits == 0
		}
		if words++; !g.letters {
			words, mixed, number = 0, mixed || !g.numeric, true
		}
		plain := number && !mixed
		if plain && words == 2 && l.groups[n-1].end-l.groups[n-1].start > 1 {
			return n - 1, sum // the run ended before them
		}
		var next int
		g.sep, next = separator(t, p)
		if words > 2 || g.letters && (size > 4 || size == 4 && plain) && month(t[start:p]) == 0 {
			if n > 0 {
				return n, sum
			}
			g.sep = 0
		}
		sum.digits += digits
		sum.dates = sum.dates || g.sep == '/' || g.sep == '-' || g.sep == '.' || g.letters && size >= 3
		if g.sep == 0 || n == maxRun-1 {
			return n + 1, sum
		}
		start = next
	}
}

// alnums reads letters and digits from t[start] on and returns where they end. The first
// maxFormSize are put into chars at at, in upper case; letters has a bit for each of
// them that is one.
func (l *level) alnums(start, at int) (end int, letters uint64) {
	room := (*[maxFormSize]byte)(l.chars[at:])
	for n := 0; n < maxFormSize; n += 8 {
		w := eightOf(l.t, start+n)
		letter, digit := alnumsIn(w)
		size := bits.TrailingZeros64(^(letter|digit)&highBits) / 8
		binary.LittleEndian.PutUint64(room[n:n+8], w&^(letter>>2))
		letters |= bitsOf(letter) & (1<<size - 1) << n
		if size < 8 {
			return start + n + size, letters
		}
	}
	for end = start + maxFormSize; end < len(l.t) && isAlnum(l.t[end]); {
		end++
	}
	return end, letters
}

// kindsOf reports whether b, of letters and digits, has only some of them.
func kindsOf(b []byte) (numeric, letters bool) {
	numeric, letters = true, true
	for _, c := range b {
		numeric, letters = numeric && isDigit(c), letters && isLetter(c)
	}
	return numeric, letters
}

var isGroupSep = byteSet(" -./:_+\n\t")

// separator reads what is between two groups at t[p]. It returns its kind and
// where the next group begins, or 0.
func separator(t []byte, p int) (kind byte, next int) {
	if p+2 < len(t) && t[p] == '*' && t[p+1] == '*' {
		p += 2 // bold in Markdown
	}
	if p >= len(t) || !isGroupSep[t[p]] {
		return 0, 0
	}
	kind = t[p]
	next = p + 1
	if next+2 < len(t) && t[next] == '*' && t[next+1] == '*' {
		next += 2
	}
	if next < len(t) && !isAlnum(t[next]) {
		switch c := t[next]; {
		case isSpace(kind) && c == '-', isSpace(kind) && (c == '/' || c == ' ' || c == '_' || c == '.'), kind == '-' && isSpace(c):
			if c != ' ' || !isSpace(kind) {
				kind = '-'
				if c == '/' || c == '_' || c == '.' {
					kind = c
				}
			}
			if next++; next < len(t) && isSpace(t[next]) {
				next++
			}
		}
	}
	if next >= len(t) || !isAlnum(t[next]) {
		return 0, 0
	}
	if kind == '\n' || kind == '\t' {
		kind = ' '
	}
	return kind, next
}

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\t' || c == '\r' }

// glued returns where the digits of a token begin that has letters in front, as
// in "SSN219", or 0.
func (l *level) glued(g group) int {
	if !isLetter(l.t[g.start]) || g.letters {
		return 0
	}
	p := g.start
	for isLetter(l.t[p]) {
		p++
	}
	if p-g.start < 2 || p-g.start == 2 && isUpper(l.t[g.start]) && isUpper(l.t[g.start+1]) && !l.context(p).has(l.zone.det.phone.bit) {
		return 0
	}
	return p
}

// readForms tries every form of an index on the groups from g on, the first of which
// begins at start.
func (l *level) readForms(index *formIndex, gs []group, g, start int, glued bool) {
	if gs[g].letters {
		switch next := gs[g+1:]; {
		case len(next) == 0, len(next) == 1 && next[0].letters:
			return // words
		case next[0].numeric && !index.joins(l.t[start:gs[g].end], next[0].end-next[0].start):
			return // a word and a number
		}
	}
	var (
		skip  = start - gs[g].start
		from  = gs[g].at + skip
		n     = gs[g].end - start
		bits  = gs[g].mask >> skip
		key   = uint64(n)
		forms = index.single[n]
	)
	if bits == 0 {
		forms = index.numbers[n]
	}
	if len(forms) == 0 && (g+1 == len(gs) || !index.goesOn[n]) {
		return
	}
	left := l.joinedLeft(gs, g, start, glued)
	if left != 0 && left != ' ' && left != ':' && !(isOther(left) && gs[g].sep == '-') {
		return // a part of something else
	}
	for j := g; ; {
		if len(forms) > 0 && apart(gs, g, j, left) {
			c := l.chars[from : from+n]
			for i := range forms {
				e := &forms[i]
				if bits&e.letters == e.letters && bits&e.digits == 0 && e.form.matches(c, gs[g:]) {
					l.tryForm(e.form, c, gs, g, j, start, left, glued)
				}
			}
		}
		if j == g && !index.goesOn[n] {
			return
		}
		if j++; j >= len(gs) || j-g >= maxGroups || !index.mayStart(key) || gs[j].at < 0 {
			return
		}
		size := gs[j].end - gs[j].start
		if size+n > maxFormSize {
			return
		}
		bits |= gs[j].mask << n
		n += size
		key = formKey(key, size)
		forms = index.find(key)
	}
}

// apart reports whether the groups from g to j, which left joins to a digit in
// front, are no part of something else.
func apart(gs []group, g, j int, left byte) bool {
	right, own := byte(0), byte(0)
	if j+1 < len(gs) && !gs[j+1].letters {
		right = gs[j].sep
	}
	if j > g {
		own = gs[g].sep
	}
	for _, side := range [...]byte{left, right} {
		if side != 0 && side != ' ' && side != ':' && !(isOther(side) && own == '-') {
			return false
		}
	}
	return own == 0 || !(left == own && gs[g-1].numeric || right == own && gs[j+1].numeric)
}

// isOther reports whether sep stands between two values, each with hyphens of
// its own, as in "219-09-9999/219-09-9998".
func isOther(sep byte) bool { return sep == '/' || sep == '_' }

// joinedLeft tells what joins a digit in front to the group that begins at
// start: a separator, or 0.
func (l *level) joinedLeft(gs []group, g, start int, glued bool) byte {
	switch {
	case glued, g > 0 && gs[g-1].letters, start == 0:
		return 0
	case g > 0:
		return gs[g-1].sep
	}
	t := l.t
	switch c := t[start-1]; {
	case c == '$', c == 0xA3, c == 0xA5:
		return '$'
	case c == ',' && start > 1 && isDigit(t[start-2]):
		return ','
	case (c == '-' || c == '.' || c == '/' || c == '_') && start > 1 && isDigit(t[start-2]):
		return c
	}
	return 0
}

// tryForm records a match of f on the groups from g to j, which begins at start,
// if its check allows it.
func (l *level) tryForm(f *form, c []byte, gs []group, g, j, start int, left byte, glued bool) {
	rec := f.rec
	if glued && !f.numeric && !rec.glued {
		return
	}
	if t := l.t; !f.numeric && rec.score <= 0.3 && start > 1 && t[start-1] == '_' && isLetter(t[start-2]) && (start == 2 || !isAlnum(t[start-3])) {
		return // a name in a program, as in "C_US12CON"
	}
	own := byte(0)
	if j > g {
		own = gs[g].sep
	}
	if left == ':' && own == 0 && f.numeric && len(c) < 9 {
		return
	}
	end := gs[j].end
	if own == '.' && f.numeric && end+1 < len(l.t) && l.t[end] == ',' && isDigit(l.t[end+1]) {
		return // an amount, as in "938.033.719,00"
	}
	if rec.capitals {
		for _, k := range l.t[start:end] {
			if isLower(k) {
				return
			}
		}
	}
	if rec.check != nil && !rec.check(c) {
		return
	}
	score := l.rate(rec, start, rec.score, rec.with)
	switch {
	case score != rec.score:
	case own == ' ' && f.numeric && score > 0.3 && l.context(start).has(l.zone.det.unlike.bit):
		score = 0.3 // numbers side by side, as in "Suite 680 36 4022 Oakridge Lane"
	case glued && own == '-' && j > g+1: // "value599-34-5017"
		score = min(score, 0.5)
	case glued:
		score = min(score, 0.3)
	}
	l.add(rec, start, end, score)
}
