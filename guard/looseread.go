package guard

import "bytes"

// grouping says how the parts of a number fit the groups that it is written in.
type grouping struct {
	borders int      // how many borders of groups are there
	all     bool     // all of them
	even    bool     // with the same between all groups
	kind    junkKind // the loosest of what is there
	extra   int      // cuts inside groups
	cut     junkKind // the loosest of these
	mixed   bool     // what cuts groups stands between them, too
	long    bool     // more than one byte is between two of them
	apart   bool     // all characters stand apart, with the same between them
	seam    bool     // which is something that lists and outlines do not have there
}

// fit compares the parts of x with groups of the given sizes.
func (x *looseNumber) fit(t []byte, sizes ...int) (s grouping) {
	border, at := uint64(0), 0
	for _, n := range sizes[:len(sizes)-1] {
		at += n
		border |= 1 << at
	}
	s.even, s.apart = true, x.parts == x.n
	mark := uint32(0)
	for k := 1; k < x.parts; k++ {
		j := &x.ps[k-1]
		s.apart = s.apart && j.mark == x.ps[0].mark
		if border>>x.starts[k]&1 == 0 {
			s.extra++
			s.cut = max(s.cut, j.kind)
			continue
		}
		if s.borders++; s.borders == 1 {
			mark = j.mark
		}
		s.even = s.even && j.mark == mark
		s.long = s.long || x.ps[k].start-j.end > 1
		s.kind = max(s.kind, j.kind)
	}
	if s.apart && x.parts > 1 {
		c := t[x.ps[0].end]
		s.seam = s.cut == junkSeam && c != '.' && c != '/' && c != ':'
	}
	s.all = s.borders == len(sizes)-1
	for k := 1; k < x.parts && s.borders > 0; k++ {
		s.mixed = s.mixed || border>>x.starts[k]&1 == 0 && x.ps[k-1].mark == mark
	}
	return s
}

// looseDigits records what the digits of x are, if anything.
func (l *level) looseDigits(x *looseNumber) {
	d := x.d[:x.n]
	start, end := x.ps[0].start, x.ps[x.parts-1].end
	det := l.zone.det
	if x.plus {
		for start--; l.t[start] != '+'; start-- {
		}
	} else if start > 0 && l.t[start-1] == '(' && x.parts > 1 && l.t[x.ps[0].end] == ')' {
		start--
	}
	record := func(rec *recognizer, score, with float32) {
		if max(score, with) < l.zone.min {
			return
		}
		said := l.context(start)
		switch {
		case said.has(rec.bit):
			score = max(score, with)
		case score < 0.8 && said.has(det.unlike.bit):
			return
		}
		if score >= 0.5 {
			l.add(rec, start, end, score)
		}
	}
	if x.n == 9 && ssnOK(d) {
		score, with := x.rateSSN(l.t)
		record(det.ssn, score, with)
	}
	if x.n >= 13 && !isFraction(l.t[start:end]) {
		if known, _ := cardScore(d); known >= 0.9 {
			score, with := x.rateCard(l.t)
			record(det.card, score, with)
		}
	}
	if x.n <= 13 {
		if score, with := x.ratePhone(l.t); with > 0 {
			record(det.phone, score, with)
		}
	}
}

// isFraction reports whether a number is one to three digits and what is behind its
// point.
func isFraction(number []byte) bool {
	point := bytes.IndexByte(number, '.')
	return point > 0 && point < 4 && isNumber(number[:point], 1, 3) && isNumber(number[point+1:], 1, len(number))
}

// rateSSN says how sure it is that nine digits are a social security number,
// without and with context.
func (x *looseNumber) rateSSN(t []byte) (score, with float32) {
	s := x.fit(t, 3, 2, 4)
	with = 0.85
	if x.letters > 0 {
		switch {
		case s.all && s.even && s.extra == 0 && s.kind <= junkSeam:
			return 0.6, with
		case x.letters > 4 || s.extra > 0 || s.kind > junkSpace:
			return 0, 0
		}
		return 0, with
	}
	switch {
	case s.all && s.even && s.extra == 0:
		switch s.kind {
		case junkSeam, junkBreak, junkSpace:
			return 0.7, with
		case junkTight:
			return 0.5, with
		}
	case s.all && s.even && !s.mixed && s.extra <= 2 && s.kind != junkList && s.kind != junkOther:
		return 0.7, with
	case s.all && s.extra == 0 && s.kind <= junkBreak && s.long:
		return 0.6, with
	case s.apart && s.seam:
		return 0.5, with
	}
	if max(s.cut, s.kind) >= junkTight && !s.all && !s.apart {
		return 0, 0
	}
	return 0, with
}

// rateCard does the same for the digits of a card, whose check digit is right.
func (x *looseNumber) rateCard(t []byte) (score, with float32) {
	sizes := [...]int{4, 4, 4, 4, 4}
	of := sizes[:(x.n+3)/4]
	switch of[len(of)-1] = x.n - 4*(len(of)-1); x.n {
	case 14, 15:
		of = []int{4, 6, x.n - 10}
	}
	s := x.fit(t, of...)
	loosest := max(s.kind, s.cut)
	if loosest == junkOther {
		return 0, 0
	}
	if x.letters > 0 {
		if x.parts == 1 || s.all && s.even && s.extra == 0 && loosest <= junkSpace {
			return 0.7, 0.9
		}
		return 0, 0
	}
	switch {
	case s.all && s.even && s.extra == 0, s.apart && x.n >= 15:
		if loosest >= junkTight {
			return 0.6, 0.9
		}
		return 0.8, 0.9
	case s.all && s.even && !s.mixed && s.extra <= 3 && s.kind <= junkSpace:
		return 0.8, 0.9
	case s.borders >= len(of)-2 && s.borders+s.extra >= len(of)-1 && s.borders > 0 && s.extra <= 1 && !s.mixed && loosest <= junkTight && (x.n != 15 || s.all || loosest <= junkSeam):
		return 0.7, 0.9
	case s.borders == 0 && s.extra <= 2 && s.cut == junkSeam:
		return 0.8, 0.9
	case s.borders == 0 && s.extra == 1 && s.cut == junkBreak && x.n >= 15:
		return 0.5, 0.9
	}
	return 0, 0.9
}

// ratePhone says the same for a telephone number; 0 and 0 if it can be none.
func (x *looseNumber) ratePhone(t []byte) (score, with float32) {
	d := x.d[:x.n]
	nanp := func(d []byte) bool { return len(d) == 10 && d[0] >= '2' && d[3] >= '2' }
	var s grouping
	switch {
	case nanp(d):
		s = x.fit(t, 3, 3, 4)
	case d[0] == '1' && nanp(d[1:]):
		s = x.fit(t, 1, 3, 3, 4)
	case x.plus && x.n >= 10 && callingCode(d):
		s = x.fit(t, x.n)
	default:
		return 0, 0
	}
	loosest := max(s.kind, s.cut)
	switch {
	case loosest >= junkList:
		return 0, 0
	case x.letters > 0:
		if (s.all && s.borders > 0 && s.extra == 0 || x.plus) && loosest <= junkSpace && x.letters <= 4 {
			return 0.55, 0.7
		}
		return 0, 0
	case x.plus && loosest <= junkSpace:
		return 0.7, 0.9
	case s.borders > 0 && s.all && s.extra == 0 && loosest <= junkSeam:
		return 0.6, 0.8
	case s.borders > 0 && s.all && s.extra == 0 && loosest <= junkSpace:
		return 0.5, 0.8
	case s.borders > 0 && s.all && !s.mixed && s.extra <= 2 && loosest <= junkSpace:
		return 0.6, 0.8
	case s.apart && s.seam:
		return 0.5, 0.8
	}
	return 0, 0.7
}

// looseIBAN records x if it is an IBAN, with letters read as digits if need be.
func (l *level) looseIBAN(x *looseNumber) {
	start, end := x.ps[0].start, x.ps[x.parts-1].end
	kind := junkNone
	for k := range x.parts - 1 {
		kind = max(kind, x.ps[k].kind)
	}
	if kind == junkOther || x.parts > 1 && (l.t[x.ps[0].end] == '/' || x.starts[1] == 1 && kind == junkSpace && x.parts < x.n) {
		return
	}
	c := x.c[:x.n]
	if !ibanSum(c) {
		var m [maxLoose]byte
		copy(m[:], c)
		like := 0
		first := digitsFrom(c[:2])
		for k := 2; k < x.n; k++ {
			if !isDigit(c[k]) && (k < 4 || k >= first) {
				if m[k] = x.d[k]; m[k] == 0 {
					return
				}
				like++
			}
		}
		if like == 0 || 2*like > x.n || !ibanSum(m[:x.n]) {
			return
		}
	}
	score := float32(0.9)
	if kind >= junkTight {
		score = 0.6
	}
	l.add(l.zone.det.iban, start, end, l.rate(l.zone.det.iban, start, score, 0.95))
}

// digitsFrom returns the place from which on the IBANs of a country have digits
// alone, or their length or more if they may have letters to the end.
func digitsFrom(country []byte) int {
	switch string(country) {
	case "AT", "BE", "CZ", "DE", "DK", "EE", "ES", "FI", "HR", "HU", "IS", "LT", "NO", "PL", "PT", "SE", "SI", "SK":
		return 4
	case "GB", "IE", "NL":
		return 8
	case "CH", "FR", "IT", "MC", "SM": // letters are seldom, in the number of the account
		return 5
	}
	return maxLoose
}

// looseIPv4 reads addresses whose points are spelled or cut, as in 10[.]0[.]0[.]1.
func (l *level) looseIPv4(ps []part) {
	for p := 0; p+4 <= len(ps); p++ {
		var (
			quad   [4]int
			n      int
			size   int
			odd    bool
			mark   uint32
			even   = true
			q      = p
			total  int  // digits
			broken bool // over two lines
		)
	read:
		for ; q < len(ps); q++ {
			for k := ps[q].start; k < ps[q].end; k++ {
				c := l.t[k]
				if !isDigit(c) {
					if c = likeDigit[c]; c == 0 {
						n = -1
						break read
					}
					odd = true
				}
				quad[n] = quad[n]*10 + int(c-'0')
				if total, size = total+1, size+1; size > 3 || quad[n] > 255 {
					n = -1
					break read
				}
			}
			j := &ps[q]
			broken = broken || j.kind == junkBreak
			switch {
			case j.kind == junkNone || !j.point && j.kind != junkSeam && j.kind != junkBreak:
				break read
			case j.point:
				if n == 3 {
					break read
				}
				if n == 0 {
					mark = j.mark
				}
				even = even && j.mark == mark
				n, size = n+1, 0
			}
		}
		if n != 3 || q >= len(ps) {
			continue
		}
		cuts := q - p - 3
		if before := p > 0 && (ps[p-1].point || ps[p-1].kind == junkSeam); before || ps[q].point && ps[q].kind == junkSeam && ps[q].end+1 < len(l.t) && isAlnum(l.t[ps[q].end+1]) {
			continue
		}
		if broken && total < 9 {
			continue // the numbers of sections
		}
		plain := l.t[ps[p].end] == '.' && isAlnum(l.t[ps[p].end+1])
		if !even && cuts > 2 || even && plain && cuts == 0 && !odd || odd && cuts > 0 {
			continue // as it is usually written, which others read
		}
		l.add(l.zone.det.ip, ps[p].start, ps[q].end, l.rate(l.zone.det.ip, ps[p].start, 0.6, 0.9))
		p = q
	}
}
