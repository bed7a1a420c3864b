package guard

// readCard reads a payment card number from group g on, whose digits begin at
// start.
func (l *level) readCard(gs []group, g, start int) {
	var c [19]byte
	n, sep := 0, byte(0)
	even := true // the groups are of four, but for the last or for Amex
	for j, from := g, start; ; j++ {
		if n+gs[j].end-from > len(c) || !isNumber(l.t[from:gs[j].end], 1, len(c)) {
			return
		}
		n += copy(c[n:], l.t[from:gs[j].end])
		// A number that goes on behind a hyphen or a point is another one.
		joined := j+1 < len(gs) && gs[j+1].numeric && gs[j].sep != ' ' && gs[j].sep != '/'
		// Groups of no scheme are of a table if there are more of them.
		table := j > g && !even && (g > 0 && gs[g-1].numeric && gs[g-1].sep == sep || j+1 < len(gs) && gs[j+1].numeric && gs[j].sep == sep)
		fraction := j == g+1 && sep == '.' && gs[g].end-start < 4
		if n >= 12 && !joined && !table && !fraction {
			l.addCard(c[:n], start, gs[j].end, j == g || even)
		}
		if j+1 == len(gs) || sep != 0 && gs[j].sep != sep || gs[j].sep == '.' && gs[j].end-from == 1 {
			return // or behind the point of a fraction
		}
		even = even && (gs[j].end-from == 4 || gs[j].end-from == 6 && j == g+1)
		sep, from = gs[j].sep, gs[j+1].start
	}
}

// isParcel reports whether gs[g] is in the number of a parcel of the United States
// Postal Service: 20 or 22 digits in groups of four, the first of which begin with
// 91 to 95 (Publication 199).
func isParcel(t []byte, gs []group, g int) bool {
	first := g
	for first > 0 && gs[first-1].numeric && gs[first-1].end-gs[first-1].start == 4 && gs[first-1].sep == ' ' {
		first--
	}
	start, digits := gs[first].start, 0
	if gs[first].end-start != 4 || t[start] != '9' || t[start+1] < '1' || t[start+1] > '5' {
		return false
	}
	for k := first; k < len(gs) && gs[k].numeric; k++ {
		digits += gs[k].end - gs[k].start
		if gs[k].sep != ' ' || gs[k].end-gs[k].start != 4 {
			break
		}
	}
	return digits == 20 || digits == 22
}

// addCard records the digits d if they are a card number.
func (l *level) addCard(d []byte, start, end int, even bool) {
	score, with := cardScore(d)
	if score == 0 || start > 0 && (l.t[start-1] == '.' || l.t[start-1] == '-' || l.t[start-1] == '/' || l.t[start-1] == '$') && (start < 2 || !isLetter(l.t[start-2]) && !(l.t[start-1] == '/' && isDigit(l.t[start-2]))) {
		return
	}
	if score < 0.5 && l.context(start).has(l.zone.det.unlike.bit) {
		with = score // ISBNs and the like
	}
	switch {
	case !even && len(d) < 16:
		score = min(score, 0.3)
	case !even:
		score = min(score, 0.5)
	}
	l.add(l.zone.det.card, start, end, l.rate(l.zone.det.card, start, score, with))
}

// cardScore says how sure it is that digits d are a payment card, without and
// with context. The ranges are those of ISO/IEC 7812 as the schemes publish
// them; all have a Luhn check digit.
func cardScore(d []byte) (score, with float32) {
	if !luhn(d) || sameDigits(d) {
		return 0, 0
	}
	n, p2, p3, p4 := len(d), num(d[:2]), num(d[:3]), num(d[:4])
	if d[0] == '0' {
		if p4 == 604 { // Maestro, of old
			return 0.2, 0.9
		}
		return 0, 0
	}
	long := n >= 16 && n <= 19
	switch {
	case d[0] == '4' && (n == 13 || n == 16 || n == 19), // Visa
		p2 >= 51 && p2 <= 55 && n == 16, p4 >= 2221 && p4 <= 2720 && n == 16, // Mastercard
		(p2 == 34 || p2 == 37) && n == 15, // American Express
		(p3 >= 300 && p3 <= 305 || p3 == 309 || p2 == 36 || p2 == 38 || p2 == 39) && n == 14, // Diners Club
		(p4 == 6011 || p2 == 65 || p3 >= 644 && p3 <= 649) && long,                           // Discover
		p4 >= 3528 && p4 <= 3589 && long, p2 == 35 && n == 16,                                // JCB, and what test data has for it
		(p4 == 2131 || p4 == 1800) && n == 15,              // and of old
		p2 == 62 && long, p4 >= 2200 && p4 <= 2204 && long, // UnionPay, Mir
		(p2 == 60 || p2 == 81 || p2 == 82 || p3 == 508) && n == 16, // RuPay
		p4 == 9792 && n == 16, p2 == 36 && long: // Troy, Diners
		return 0.95, 1
	case (p2 == 50 || p2 >= 56 && p2 <= 69) && n >= 12: // Maestro
		if n >= 16 {
			return 0.9, 1
		}
		return 0.55, 0.95
	case n >= 13:
		return 0.2, 0.8
	}
	return 0, 0
}
