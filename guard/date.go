package guard

// readDates reads dates that begin with one of the groups. A date is personal
// data if it is somebody's day of birth, which context tells.
func (l *level) readDates(gs []group) {
	for g := 0; g < len(gs); g++ {
		if !l.mayBeDate(gs, g) {
			continue
		}
		end, n := l.date(gs, g)
		if n == 0 {
			if l.zone.min <= shapeScore {
				l.dateShape(gs[g:])
			}
			continue
		}
		start := gs[g].start
		if start > 0 && (l.t[start-1] == '.' || l.t[start-1] == '-' || l.t[start-1] == '/') && start > 1 && isDigit(l.t[start-2]) {
			continue
		}
		l.add(l.zone.det.date, start, end, l.rate(l.zone.det.date, start, 0.3, 0.85))
		g += n - 1
	}
}

// dateShape records what is written as a date and may be none: of a year that is far
// away, a day that its month does not have, or with a part missing.
func (l *level) dateShape(gs []group) {
	number := func(k, low, high, most int) bool {
		if k >= len(gs) {
			return false
		}
		text := l.t[gs[k].start:gs[k].end]
		return isNumber(text, low, high) && (most == 0 || num(text) >= 1 && num(text) <= most)
	}
	named := func(k int) bool { return k < len(gs) && gs[k].letters && month(l.t[gs[k].start:gs[k].end]) > 0 }
	year := func(k int) bool { return number(k, 2, 2, 0) || number(k, 4, 4, 0) }
	sep, last := gs[0].sep, 0
	same := len(gs) > 2 && gs[1].sep == sep
	switch {
	case sep != '/' && sep != '-' && sep != '.':
		return
	case same && number(0, 1, 2, 31) && number(1, 1, 2, 31) && year(2),
		same && number(0, 4, 4, 0) && number(1, 1, 2, 12) && number(2, 1, 2, 31),
		same && number(0, 1, 2, 31) && named(1) && year(2):
		last = 2
	case sep == '-' && (number(0, 1, 2, 31) && named(1) || named(0) && year(1)),
		sep == '/' && number(0, 1, 2, 12) && year(1):
		last = 1
	default:
		return
	}
	l.add(l.zone.det.date, gs[0].start, gs[last].end, shapeScore)
}

// mayBeDate reports, cheaply, whether a date may begin with group g.
func (l *level) mayBeDate(gs []group, g int) bool {
	if g+1 == len(gs) {
		return false
	}
	size, sep := gs[g].end-gs[g].start, gs[g].sep
	switch {
	case gs[g].letters:
		return size <= 9 && (sep == ' ' || sep == '-') && month(l.t[gs[g].start:gs[g].end]) > 0
	case !gs[g].numeric || size == 3 || size > 4:
		return false
	case sep == '/' || sep == '-' || sep == '.':
		return true
	}
	return size <= 2 && sep == ' ' && gs[g+1].letters
}

// date returns where the date ends that begins with group g, and how many groups
// it has.
func (l *level) date(gs []group, g int) (end, groups int) {
	t := l.t
	field := func(k int) (text []byte, sep byte) {
		if g+k >= len(gs) {
			return nil, 0
		}
		return t[gs[g+k].start:gs[g+k].end], gs[g+k].sep
	}
	a, s1 := field(0)
	b, s2 := field(1)
	c, s3 := field(2)
	dateSep := func(s byte) bool { return s == '/' || s == '-' || s == '.' }
	// 2024-03-15T14:30:00.123Z
	if len(a) == 4 && gs[g].numeric && dateSep(s1) && s1 == s2 && isNumber(b, 1, 2) && len(c) >= 1 {
		n := 0
		for n < len(c) && n < 3 && isDigit(c[n]) {
			n++
		}
		if n == 0 || n > 2 || !validDate(num(a), num(b), num(c[:n])) || num(a) < 1000 {
			return 0, 0
		}
		if n == len(c) {
			if s3 == ' ' {
				if e := clock(t, gs[g+2].end+1); e > 0 {
					return e, 3
				}
			}
			return gs[g+2].end, 3
		}
		if c[n] == 'T' || c[n] == 't' {
			if e := clock(t, gs[g+2].start+n+1); e > 0 {
				return e, 3
			}
		}
		return 0, 0
	}
	year := func(b []byte) bool { return isNumber(b, 2, 2) || isNumber(b, 4, 4) && (b[0] == '1' || b[0] == '2') }
	joined := func(s byte, k int) bool { return s != 0 && s != ' ' && s != ':' && g+k < len(gs) && gs[g+k].numeric }
	if isNumber(a, 1, 2) {
		switch {
		case dateSep(s1) && s1 == s2 && isNumber(b, 1, 2) && year(c) && !joined(s3, 3):
			if dayAndMonth(a, b) || s1 != '.' && len(a) == 2 && len(c) == 2 && dayAndMonth(b, c) {
				return gs[g+2].end, 3
			}
		case (dateSep(s1) || s1 == ' ') && month(b) > 0 && s1 == s2 && year(c) && num(a) <= 31:
			return gs[g+2].end, 3
		case s1 == '/' && isNumber(b, 1, 2) && !joined(s2, 2):
			if dayAndMonth(a, b) {
				return gs[g+1].end, 2
			}
		case s1 == '/' && isNumber(b, 4, 4) && year(b) && !joined(s2, 2) && num(a) >= 1 && num(a) <= 12:
			return gs[g+1].end, 2
		}
		return 0, 0
	}
	if month(a) > 0 {
		switch {
		case s1 == '-' && year(b) && !joined(s2, 2):
			return gs[g+1].end, 2
		case s1 == ' ' && isNumber(b, 1, 2) && num(b) >= 1 && num(b) <= 31:
			// "March 3, 1980"
			p := gs[g+1].end
			if s2 == ' ' && len(c) == 4 && year(c) {
				return gs[g+2].end, 3
			}
			if p+6 <= len(t) && t[p] == ',' && t[p+1] == ' ' && year(t[p+2:p+6]) && (p+6 == len(t) || !isAlnum(t[p+6])) {
				return p + 6, 2
			}
		}
	}
	return 0, 0
}

func isNumber(b []byte, low, high int) bool {
	for _, c := range b {
		if !isDigit(c) {
			return false
		}
	}
	return len(b) >= low && len(b) <= high
}

// dayAndMonth reports whether one of a and b may be a day and the other a month.
func dayAndMonth(a, b []byte) bool {
	x, y := num(a), num(b)
	return x >= 1 && y >= 1 && x <= 31 && y <= 31 && (x <= 12 || y <= 12)
}

// month returns the month that word names in English, in full or by three
// letters, or 0.
func month(word []byte) int {
	if len(word) < 3 || len(word) > 9 || monthStarts[word[0]&31]&(1<<(word[1]&31)) == 0 {
		return 0
	}
	const short = "janfebmaraprmayjunjulaugsepoctnovdec"
	a, b, c := lower(word[0]), lower(word[1]), lower(word[2])
	for m := 0; m < len(short); m += 3 {
		if short[m] != a || short[m+1] != b || short[m+2] != c {
			continue
		}
		rest := [...]string{"uary", "ruary", "ch", "il", "", "e", "y", "ust", "tember", "ober", "ember", "ember"}[m/3]
		if len(word) == 3 || m == 24 && len(word) == 4 && lower(word[3]) == 't' {
			return m/3 + 1
		}
		if len(word) != 3+len(rest) {
			return 0
		}
		for i := range len(rest) {
			if lower(word[3+i]) != rest[i] {
				return 0
			}
		}
		return m/3 + 1
	}
	return 0
}

// monthStarts has, for the first letter of a month, a bit for each second one.
var monthStarts = func() (t [32]uint32) {
	for _, m := range [...]string{"ja", "fe", "ma", "ap", "ju", "au", "se", "oc", "no", "de"} {
		t[m[0]&31] |= 1 << (m[1] & 31)
	}
	return t
}()

// clock returns where the time of day at t[p] ends, with fractions and a zone,
// or 0.
func clock(t []byte, p int) int {
	two := func(p int) bool { return p+1 < len(t) && isDigit(t[p]) && isDigit(t[p+1]) }
	if !two(p) || p+2 >= len(t) || t[p+2] != ':' || !two(p+3) {
		return 0
	}
	p += 5
	if p < len(t) && t[p] == ':' && two(p+1) {
		p += 3
		if p+1 < len(t) && t[p] == '.' && isDigit(t[p+1]) {
			for p++; p < len(t) && isDigit(t[p]); p++ {
			}
		}
	}
	switch {
	case p < len(t) && (t[p] == 'Z' || t[p] == 'z'):
		p++
	case p < len(t) && (t[p] == '+' || t[p] == '-') && two(p+1):
		p += 3
		if p < len(t) && t[p] == ':' {
			p++
		}
		if two(p) {
			p += 2
		}
	}
	if p < len(t) && isAlnum(t[p]) {
		return 0
	}
	return p
}
