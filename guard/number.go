package guard

// maxRun is how many groups of letters and digits are read as one run.
const maxRun = 64

// group is one of several runs of letters and digits with separators between.
type group struct {
	start, end int
	sep        byte // behind it, as in a form; 0: none
	numeric    bool
	letters    bool // letters alone
}

// number reads the identifiers around the digit t[i].
func (l *level) number(i int) {
	t := l.t
	start := i
	for start > l.runEnd && isAlnum(t[start-1]) {
		start--
	}
	start = l.leading(start)
	n := l.collect(start)
	gs := l.groups[:n]
	stop := n
	if n == maxRun {
		stop = n - maxGroups - 3 // the rest begins a run of its own
	}
	l.runEnd = gs[stop-1].end
	sum := summary(t, gs)
	for g := 0; g < stop; g++ {
		if gs[g].end-gs[g].start > maxFormSize {
			continue
		}
		l.readForms(gs, g, gs[g].start, false)
		if p := l.glued(gs[g]); p > 0 {
			l.readForms(gs, g, p, true)
		}
		l.readIBAN(gs, g)
		if isDigit(t[gs[g].start]) {
			l.readNumber(gs, g, gs[g].start, sum)
		} else if p := l.glued(gs[g]); p > 0 {
			l.readNumber(gs, g, p, sum)
		}
	}
	if n > 1 {
		if sum.dates {
			l.readDates(gs[:stop])
		}
	}
}

// runSummary tells, cheaply, what a run cannot be.
type runSummary struct {
	digits int  // in all
	points bool // there is a point between groups
	dates  bool // there is what separates days from months, or a word
}

func summary(t []byte, gs []group) (s runSummary) {
	for i := range gs {
		g := &gs[i]
		for _, c := range t[g.start:g.end] {
			if isDigit(c) {
				s.digits++
			}
		}
		s.points = s.points || g.sep == '.'
		s.dates = s.dates || g.sep == '/' || g.sep == '-' || g.sep == '.' || g.letters && g.end-g.start >= 3
	}
	return s
}

// readNumber tries what begins with a digit and has a matcher of its own.
func (l *level) readNumber(gs []group, g, start int, sum runSummary) {
	end := gs[g].end
	if sum.points {
		l.readIPv4(start)
	}
	if sum.digits >= 7 || start > 0 && (l.t[start-1] == '(' || l.t[start-1] == '+') || end < len(l.t) && l.t[end] == '(' || end+1 < len(l.t) && l.t[end+1] == '(' {
		l.readPhone(start)
	}
	if sum.digits >= 12 {
		l.readCard(gs, g, start)
	}
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
	return start
}

// collect reads the groups from start on and returns how many.
func (l *level) collect(start int) int {
	t := l.t
	words := 0
	for n := 0; ; n++ {
		g := group{start: start, numeric: true, letters: true}
		p := start
		for ; p < len(t) && isAlnum(t[p]); p++ {
			if isDigit(t[p]) {
				g.letters = false
			} else {
				g.numeric = false
			}
		}
		g.end = p
		if words++; !g.letters {
			words = 0
		}
		var next int
		g.sep, next = separator(t, p)
		if words > 2 || g.letters && p-start > 4 && month(t[start:p]) == 0 {
			// Words: the run ended before them.
			if n > 0 {
				return n
			}
			g.sep = 0
		}
		l.groups[n] = g
		if g.sep == 0 || n == maxRun-1 {
			return n + 1
		}
		start = next
	}
}

var isGroupSep = byteSet(" -./:_+\n\t")

// separator reads what is between two groups at t[p]. It returns its kind and
// where the next group begins, or 0.
func separator(t []byte, p int) (kind byte, next int) {
	if p >= len(t) || !isGroupSep[t[p]] {
		return 0, 0
	}
	kind = t[p]
	next = p + 1
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

// readForms tries every form on the groups from g on, the first of which begins
// at start.
func (l *level) readForms(gs []group, g, start int, glued bool) {
	var (
		t     = l.t
		c     = &l.chars
		seps  [maxGroups]byte
		n     int
		bits  uint64
		key   uint64
		first = start
	)
	left := l.joinedLeft(gs, g, start, glued)
	if left != 0 && left != ' ' && left != ':' {
		return // a part of something else
	}
	if gs[g].letters && (g+1 == len(gs) || gs[g+1].letters && g+2 == len(gs)) {
		return // words
	}
	for j := g; j < len(gs) && j-g < maxGroups; j++ {
		if gs[j].end-start+n > maxFormSize {
			return
		}
		size := 0
		for ; start < gs[j].end; start++ {
			if isLetter(t[start]) {
				bits |= 1 << n
			}
			c[n] = upper(t[start])
			n++
			size++
		}
		key = formKey(key, size)
		var forms []entry
		switch det := l.zone.det; {
		case j == g && size < len(det.single):
			forms = det.single[size]
		case det.mayBeForm(key):
			forms = det.forms[key]
		}
		for i := range forms {
			e := &forms[i]
			if bits&e.letters == e.letters && bits&e.digits == 0 && e.form.matches(c[:n], seps[:]) {
				l.tryForm(e.form, c[:n], gs, g, j, first, left, glued)
			}
		}
		if j+1 >= len(gs) || !l.zone.det.mayStartForm(key) {
			return
		}
		seps[j-g] = gs[j].sep
		start = gs[j+1].start
	}
}

// joinedLeft tells what joins a digit in front to the group that begins at
// start: a separator, or 0.
func (l *level) joinedLeft(gs []group, g, start int, glued bool) byte {
	t := l.t
	switch {
	case glued:
		return 0
	case g > 0:
		if gs[g-1].letters {
			return 0
		}
		return gs[g-1].sep
	case start == 0:
		return 0
	}
	switch c := t[start-1]; {
	case c == '$', c == 0xA3, c == 0xA5, c == '#' && false:
		return '$'
	case c == ',' && start > 1 && isDigit(t[start-2]):
		return ','
	case (c == '-' || c == '.' || c == '/' || c == '_') && start > 1 && isDigit(t[start-2]):
		return c
	}
	return 0
}

// tryForm records a match of f on the groups from g to j, which begins at start,
// if its surroundings and its check allow it.
func (l *level) tryForm(f *form, c []byte, gs []group, g, j, start int, left byte, glued bool) {
	rec := f.rec
	if glued && !f.numeric && !rec.glued {
		return
	}
	right := byte(0)
	if j+1 < len(gs) && !gs[j+1].letters {
		right = gs[j].sep
	}
	own := byte(0)
	if j > g {
		own = gs[g].sep
	}
	// What is joined to other digits is a part of something else.
	if right != 0 && right != ' ' && right != ':' {
		return
	}
	if own != 0 && (left == own && gs[g-1].numeric || right == own && gs[j+1].numeric) {
		return
	}
	if left == ':' && own == 0 && f.numeric && len(c) < 9 {
		return
	}
	end := gs[j].end
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
	// Numbers side by side, as in "Suite 680 36 4022 Oakridge Lane".
	aside := own == ' ' && f.numeric && l.context(start).has(l.zone.det.unlike.bit)
	if score == rec.score && (glued || aside) {
		score = min(score, 0.3)
	}
	l.add(rec, start, end, score)
}
