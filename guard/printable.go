package guard

// quoted reads the word around the equals sign t[i] as quoted-printable, of which
// RFC 2045, section 6.7, says that =40 is an at sign.
func (l *level) quoted(i int) {
	t := l.t
	if i < l.quotedEnd || l.v.depth >= decodeDepth || !quotesByte(t, i) {
		return
	}
	start := i
	for start > 0 && i-start < maxLocal && t[start-1] > ' ' {
		start--
	}
	// One alone may as well be what is assigned to a name.
	sure, count, word := false, 0, true
	for p := i; p < len(t) && p-i < maxLocal && t[p] >= ' '; p++ {
		if word = word && t[p] != ' '; t[p] == '=' && quotesByte(t, p) {
			if word {
				count++
			}
			sure = sure || t[p+1] == '4' && t[p+2] == '0' || t[p+1] == '2' && t[p+2]|0x20 == 'd' || count == 3 || spacesDigits(t, p)
		}
	}
	if !sure {
		l.quotedEnd = i + 1
		return
	}
	next := &l.zone.levels[l.v.depth+1]
	v := &next.v
	text, from, to := v.spare.text[0][:0], v.spare.from[0][:0], v.spare.to[0][:0]
	p, gap := start, 0
	for p < len(t) && len(text) < maxApart {
		c, n := t[p], 1
		switch {
		case c == '=' && quotesByte(t, p):
			c, n = byte(hexDigit(t[p+1])<<4|hexDigit(t[p+2])), 3
		case c == '=' && p+1 < len(t) && t[p+1] == '\n':
			p += 2
			continue
		case c == '=' && p+2 < len(t) && t[p+1] == '\r' && t[p+2] == '\n':
			p += 3
			continue
		}
		if n == 3 {
			gap = 0
		} else if gap++; gap > maxLocal {
			break // the rest is as it stands
		}
		a, b := l.v.span(p, p+n)
		text, from, to = append(text, c), append(from, int32(a)), append(to, int32(b))
		p += n
	}
	v.spare.text[0], v.spare.from[0], v.spare.to[0] = text, from, to
	l.quotedEnd = p
	if len(text) >= minApart {
		l.readApart(next, start)
	}
}

// spacesDigits reports whether =20 at t[p] is the space between two groups of digits:
// names that something is assigned to end in a letter, mostly.
func spacesDigits(t []byte, p int) bool {
	return p > 0 && (isDigit(t[p-1]) || t[p-1] == ')') && t[p+1] == '2' && t[p+2] == '0' && p+3 < len(t) && isDigit(t[p+3])
}

// quotesByte reports whether =hh at t[i] is a printable character of ASCII.
func quotesByte(t []byte, i int) bool {
	return i+2 < len(t) && t[i+1] >= '2' && t[i+1] <= '7' && hexDigit(t[i+2]) >= 0
}
