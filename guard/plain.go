package guard

// Most numbers in a text are part of nothing: "page 12", "64-bit", "in the 60s", "28 4376
// Port Road", the time of an entry in a log. To know them by their neighbours costs a
// tenth of reading their zone.

// numeral is a number, or a name with digits at its end, that is looked at for whether
// it may be part of a finding.
type numeral struct {
	b          []byte
	start, end int
	letters    int // in front of the digits
	digits     int
	own        bool // it is digits alone, and nothing was taken for a part of it
}

// plainNumber reports whether the number or name at the digit b[i] may be part of a
// finding that scores min or more; if not, also the last place of it. With zones set, b
// is more than one zone, and what is behind a hard break does not count.
func (d *detector) plainNumber(b []byte, i int, min float32, zones bool) (end int, hit bool) {
	if min <= 0.1 {
		return 0, true // any number may be of something
	}
	start := i
	for start > 0 && i-start < 12 && isLetter(b[start-1]) {
		start--
	}
	end = i + 1
	for end < len(b) && end-i <= 5 && isDigit(b[end]) {
		end++
	}
	if end-i > 5 {
		return 0, true
	}
	n := numeral{b: b, start: start, end: end, letters: i - start, digits: end - i}
	if n.letters == 0 {
		n.own = true
		if zones && min > 0.3 && d.plainDate(&n) {
			n.own = false
		} else if n.digits <= 4 {
			d.widen(&n)
		}
	}
	if n.end < len(b) && !mayFollow[b[n.end]] || n.start > 0 && !mayPrecede[b[n.start-1]] {
		return 0, true // most of those that are a part of something
	}
	if !d.isShort(&n) || d.joinsFront(&n) {
		return 0, true
	}
	return d.joinsBehind(&n, zones)
}

// isShort reports whether n alone is too short for anything. So are five digits unless
// they may be a postal code.
func (d *detector) isShort(n *numeral) bool {
	switch b := n.b; {
	case n.letters == 0:
		return n.digits <= 4 || n.digits == 5 && !postalBefore(b, n.start)
	case n.letters <= 2:
		return n.letters+n.digits <= 3 && !d.forms.prefixed[n.letters][n.digits] && likeDigit[b[n.start]] == 0 && likeDigit[b[n.start+n.letters-1]] == 0
	default:
		return n.letters <= 11 && n.digits <= 3 && !isWordOf(b[n.start:n.start+n.letters], d.forms.words...)
	}
}

// joinsFront reports whether what is in front of n may be of the same finding: a month,
// or the capitals of a number plate.
func (d *detector) joinsFront(n *numeral) bool {
	b := n.b
	if n.start == 0 || n.letters > 2 || !isSpace(b[n.start-1]) && b[n.start-1] != '(' {
		return false
	}
	p := n.start - 1
	for p > 0 && n.start-p < 11 && isLetter(b[p-1]) {
		p--
	}
	word := b[p : n.start-1]
	switch size := len(word); {
	case size == 0:
		return false
	case size <= 3 && isUpper(word[0]) && isUpper(word[size-1]):
		return n.digits < 5 || d.forms.joins(word, 5) || p > 0 && !isSpace(b[p-1])
	}
	return month(word) > 0
}

// joinsBehind reports whether what is behind n may be of the same finding; if not, also
// the last place that need not be looked at again.
func (d *detector) joinsBehind(n *numeral, zones bool) (end int, hit bool) {
	b, p := n.b, n.end
	if p < len(b) && !isSpace(b[p]) { // of mayFollow
		p++
		if isQuote(b[p-1]) && quotedOn(b, p) {
			return 0, true
		}
		if p < len(b) && !isSpace(b[p]) {
			closes := b[p-1] == ')' || b[p-1] == ']' || b[p-1] == '"' || b[p-1] == '\''
			switch {
			case closes && b[p] == '.' && p+1 < len(b) && isSpace(b[p+1]): // ends a sentence
				p++
			case !closes || isAlnum(b[p]) || isGroupSep[b[p]]:
				return 0, true
			default:
				return n.end - 1, false
			}
		}
	}
	for from := p; p < len(b) && p-from < 3 && isSpace(b[p]); p++ {
		if zones && b[p] == '\n' && d.isBreak(b, p+1) {
			return n.end - 1, false
		}
	}
	if p == len(b) {
		return n.end - 1, false
	}
	switch c := b[p]; {
	case isDigit(c):
		if n.own && p == n.end+1 && b[n.end] == ' ' {
			if q := d.plainPair(n, p); q > 0 {
				return q - 1, false
			}
		}
		return 0, true
	case c >= 0x80, c == '-', c == '/', c == '(', c == '_', c == '.' && (digitAt(b, p+1) || p > n.end && p+1 < len(b) && isSpace(b[p+1])):
		return 0, true
	}
	return n.end - 1, d.wordJoins(n, p)
}

// wordJoins reports whether the word at b[p], behind n, may be of the same finding, as a
// month, the letters of a number plate and "dot" are.
func (d *detector) wordJoins(n *numeral, p int) bool {
	b, q := n.b, p
	for q < len(b) && q-p < 10 && isLetter(b[q]) {
		q++
	}
	word := b[p:q]
	size := len(word)
	switch {
	case size == 0:
		return false
	case digitAt(b, q), month(word) > 0:
		return true
	case size > 3:
		return false
	case isWordOf(word, "dot") && q+1 < len(b) && (b[q] == ' ' || b[q] == ')'):
		return true // 10 dot 0 dot 0 dot 1
	case n.letters > 0 && n.letters < 3 && size == 3 && isUpper(word[0]):
		return true
	case q < len(b) && isGroupSep[b[q]] && digitAt(b, q+1):
		return n.letters > 0 || n.digits < 3 || size < 2 || d.forms.numberWord[n.digits][size] || !isPlainWord(word)
	}
	return false
}

// widen makes n the word that its digits are a part of, as in "UTF-8", "60s", "14th",
// "64-bit", "3.14" and "-1", if no form begins with such a one. That has fewer than eight
// bytes, as no secret has.
func (d *detector) widen(n *numeral) {
	const most = 7
	b, start, end := n.b, n.start, n.end
	ends := func(p int) bool { return p-start <= most && (p == len(b) || mayFollow[b[p]]) }
	switch {
	case end+1 >= len(b):
	case isLetter(b[end]):
		q := lettersEnd(b, end)
		if word := b[end:q]; len(word) <= 3 && ends(q) && !d.forms.suffixed[n.digits][len(word)] && isPlainWord(word) && (len(word) == 3 || likeDigit[word[0]] == 0 && likeDigit[b[q-1]] == 0) {
			n.end, n.own = q, false
			return
		}
	case b[end] == '-' && isLetter(b[end+1]):
		q := lettersEnd(b, end+1)
		if q-end > 3 && ends(q) && !digitAt(b, q+1) && isPlainWord(b[end+1:q]) {
			n.end, n.own = q, false
			return
		}
	case b[end] == '.' && isDigit(b[end+1]):
		q := end + 1
		for q < len(b) && q-start <= most && isDigit(b[q]) {
			q++
		}
		if ends(q) && !(b[end] == '.' && q < len(b) && b[q] == '.' && digitAt(b, q+1)) && !d.forms.ofNumbers(n.digits, q-end-1) {
			n.end, n.own = q, false
			return
		}
	}
	switch {
	case start < 2 || b[start-1] != '-':
	case mayPrecede[b[start-2]]:
		n.start, n.own = start-1, false // a minus sign
	case isLetter(b[start-2]):
		p := start - 2
		for p > 0 && end-p <= most && isLetter(b[p-1]) {
			p--
		}
		if word := b[p : start-1]; end-p <= most && (p == 0 || mayPrecede[b[p-1]]) && !d.forms.joins(word, n.digits) && month(word) == 0 {
			n.start, n.own = p, false
		}
	}
}

// plainPair returns where a second number at b[p] ends, behind n and a space, if a word
// is behind it and no form is of two such numbers. It returns 0 if both may be part of
// something.
func (d *detector) plainPair(n *numeral, p int) int {
	b, end := n.b, p+1
	for end < len(b) && end-p < 5 && isDigit(b[end]) {
		end++
	}
	if n.digits+end-p > 6 || end+5 > len(b) || b[end] != ' ' || d.forms.ofNumbers(n.digits, end-p) {
		return 0
	}
	for _, c := range b[end+1 : end+5] {
		if !isLetter(c) {
			return 0
		}
	}
	return end
}

// plainDate makes n the date that begins with its digits, with the time of day if there
// is one, and reports whether it could, and nothing says that it is a date of birth.
func (d *detector) plainDate(n *numeral) bool {
	b := n.b
	if n.end == len(b) || b[n.end] != '/' && b[n.end] != '-' || n.start > 0 && !mayPrecede[b[n.start-1]] {
		return false
	}
	end := dateEnd(b, n.start)
	if end == 0 || end < len(b) && !mayFollow[b[end]] || isDirty(b[max(0, n.start-contextBytes):n.start]) {
		return false
	}
	if words := d.words.before(b[:n.start]); words.has(d.date.bit) {
		return false
	}
	n.end, n.digits = end, 1
	return true
}

// dateEnd returns where a date of digits at b[p], with four for the year, ends, with the
// time of day if there is one; or 0.
func dateEnd(b []byte, p int) int {
	var field, size [3]int
	sep := byte(0)
	for k := range field {
		start := p
		for p < len(b) && p-start < 5 && isDigit(b[p]) {
			p++
		}
		field[k], size[k] = num(b[start:p]), p-start
		if k == 2 {
			break
		}
		if p == len(b) || b[p] != '/' && b[p] != '-' || k == 1 && b[p] != sep {
			return 0
		}
		sep = b[p]
		p++
	}
	inYear := func(month, day int) bool { return month >= 1 && month <= 12 && day >= 1 && day <= 31 }
	switch {
	case size == [3]int{4, 2, 2} && inYear(field[1], field[2]):
	case size[0] >= 1 && size[0] <= 2 && size[1] >= 1 && size[1] <= 2 && size[2] == 4 && (inYear(field[0], field[1]) || inYear(field[1], field[0])):
	default:
		return 0
	}
	if p < len(b) && (b[p] == ' ' || b[p] == 'T') {
		if end := clock(b, p+1); end > 0 {
			return end
		}
	}
	return p
}

// postalBefore reports whether the word before b[i] may announce a postal code.
func postalBefore(b []byte, i int) bool {
	for low := max(0, i-24); i > low && !isLetter(b[i-1]); {
		i--
	}
	p := i
	for low := max(0, i-24); p > low && isLetter(b[p-1]); {
		p--
	}
	return p < i && lower(b[p]) == 'p'
}

// mayPrecede and mayFollow mark what stands right before and behind a number that is
// part of nothing.
var mayPrecede, mayFollow = byteSet(" \n\t(\"'[{,#*|$"), byteSet(" \n\t\r,;)]}\"'!?*|.:")

// quotedOn reports whether behind the closing quote before b[p] is another that
// opens a number, as in a list or a sum of strings.
func quotedOn(b []byte, p int) bool {
	for low := p; p < len(b) && p-low < 5; p++ {
		switch c := b[p]; {
		case isQuote(c):
			return p+1 < len(b) && (isDigit(b[p+1]) || isGroupSep[b[p+1]] && p+2 < len(b) && isDigit(b[p+2]))
		case c != ' ' && c != '+' && c != ',' && c != '.' && c != '|':
			return false
		}
	}
	return false
}

func digitAt(b []byte, p int) bool { return p < len(b) && isDigit(b[p]) }

// lettersEnd returns where the letters from b[p] on end, of which it reads eight.
func lettersEnd(b []byte, p int) int {
	q := p
	for q < len(b) && q-p < 8 && isLetter(b[q]) {
		q++
	}
	return q
}

// isPlainWord reports whether word is neither a month nor letters that all look like
// digits.
func isPlainWord(word []byte) bool {
	for _, c := range word {
		if likeDigit[c] == 0 {
			return month(word) == 0
		}
	}
	return false
}
