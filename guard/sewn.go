package guard

import "strings"

// seams are what cuts a value in two without leaving a mark in what is shown, or
// in what a program makes of it.
var seams = []string{"**", "``", "`", "~~", "*", "{}", "[]", "()", "${''}", `"+"`, `" + "`, "'+'", "' + '", `"."`, `" . "`, "'.'", "' . '", `" "`, "' '", "' || '", `" & "`, "\\\n", "\\\r\n", "=\n", "=\r\n"}

// isSeam marks the bytes that a seam may begin or end with.
var isSeam = byteSet("*`~{}[]()$\"'\\=\r\n")

// sewn reads the address around the at sign t[i] without the seams in it.
func (l *level) sewn(i int) {
	t := l.t
	if l.v.depth >= decodeDepth {
		return
	}
	start, cut := i, false
	for start > 0 && i-start < maxLocal {
		c := t[start-1]
		if isAlnum(c) || c >= 0x80 || c == '.' || c == '_' || c == '-' || c == '+' {
			start--
			continue
		}
		n := seamBefore(t, start)
		if n == 0 {
			break
		}
		start -= n
		cut = true
	}
	next := &l.zone.levels[l.v.depth+1]
	v := &next.v
	text, from, to := v.spare.text[0][:0], v.spare.from[0][:0], v.spare.to[0][:0]
	for p := start; p < len(t) && p-i < maxLocal; {
		c := t[p]
		if p == i || isHostByte[c] || c == '.' || p < i && (c == '_' || c == '+') {
			a, b := l.v.span(p, p+1)
			text, from, to = append(text, c), append(from, int32(a)), append(to, int32(b))
			p++
			continue
		}
		n := seamBehind(t, p)
		if n == 0 && p > i && c == '\n' && p+1 < len(t) && isHostByte[t[p+1]] && !l.zone.det.endsHost(t[i+1:p]) {
			n = 1
		}
		if n == 0 || p > i && text[len(text)-1] == '@' && n > 2 {
			break
		}
		cut = true
		p += n
	}
	v.spare.text[0], v.spare.from[0], v.spare.to[0] = text, from, to
	if cut && len(text) >= minApart {
		l.readApart(next, start)
	}
}

// begins returns how long the token of a service is, at least, that begins in
// t[start:end] by its prefix, from start on; or 0.
func (l *level) begins(start, end int) int {
	for p := start; p < end; p++ {
		if p > start && isAlnum(l.t[p-1]) {
			continue
		}
		for _, r := range l.zone.det.prefix[l.t[p]] {
			if !r.weak && p+len(r.prefix) <= end && string(l.t[p:p+len(r.prefix)]) == r.prefix {
				return p - start + len(r.prefix) + r.min
			}
		}
	}
	return 0
}

// sewnToken reads the token that t[start:end] is a part of without the seams in it, if
// there is one on either side.
func (l *level) sewnToken(start, end int) {
	const longest = 16 // of what is in front, in bytes
	t := l.t
	if start > 2 && endsSeam(t, start) {
		if last := start - max(seamBefore(t, start), lineBefore(t, start)); last < start {
			first := last
			for first > 0 && last-first < longest && isTokenByte[t[first-1]] {
				first--
			}
			if least := l.begins(first, last); least > 0 {
				l.sew(first, last, least)
				return
			}
		}
	}
	if t[end-1] == '=' && end-1 > start {
		end-- // of quoted-printable
	}
	if end < len(t) && isSeam[t[end]] {
		if least := l.begins(start, end); least > 0 {
			l.sew(start, end, least)
		}
	}
}

// sew reads the token of least bytes or more that begins in t[start:end] without the
// seams in it, of which the first is at t[end].
func (l *level) sew(start, end, least int) {
	const most = 4 // seams
	t := l.t
	seam := func(p, size int) int {
		if n := seamBehind(t, p); n > 0 || size >= least {
			return n
		}
		return breakLine(t[p:]) // what is whole does not go on in the next line
	}
	if l.v.depth >= decodeDepth || seam(end, end-start) == 0 {
		return
	}
	next := &l.zone.levels[l.v.depth+1]
	v := &next.v
	text, from, to := v.spare.text[0][:0], v.spare.from[0][:0], v.spare.to[0][:0]
	for p, seams := start, 0; p < len(t) && len(text) < maxApart; {
		n := seam(p, len(text))
		if isTokenByte[t[p]] && n == 0 {
			a, b := l.v.span(p, p+1)
			text, from, to = append(text, t[p]), append(from, int32(a)), append(to, int32(b))
			p++
			continue
		}
		if seams++; n == 0 || seams > most {
			break
		}
		p += n
	}
	v.spare.text[0], v.spare.from[0], v.spare.to[0] = text, from, to
	l.readApart(next, start)
}

// endsSeam reports, cheaply, whether a seam may end before t[p], where 2 < p.
func endsSeam(t []byte, p int) bool {
	switch t[p-1] {
	case '"', '\'':
		before := t[p-2]
		if before == ' ' {
			before = t[p-3]
		}
		return strings.IndexByte("+.&|\"'", before) >= 0
	case '*', '`', '~', '}', ']', ')', '\n':
		return true
	}
	return false
}

// lineBefore returns the length of the end of a line before t[p], or 0.
func lineBefore(t []byte, p int) int {
	switch {
	case t[p-1] != '\n':
		return 0
	case t[p-2] == '\r':
		return 2
	}
	return 1
}

// endsHost reports whether host ends with a known domain.
func (d *detector) endsHost(host []byte) bool {
	label := lastLabel(host)
	return len(label) < len(host) && d.isTLD(label)
}

// seamBehind returns the length of the seam at t[p] that something goes on behind, or 0.
func seamBehind(t []byte, p int) int {
	if !isSeam[t[p]] {
		return 0
	}
	best := 0
	for _, s := range seams {
		if n := len(s); n > best && p+n < len(t) && string(t[p:p+n]) == s && (isHostByte[t[p+n]] || t[p+n] == '.' || t[p+n] == '@') {
			best = n
		}
	}
	return best
}

// seamBefore does the same for one that ends before t[p].
func seamBefore(t []byte, p int) int {
	if !isSeam[t[p-1]] {
		return 0
	}
	best := 0
	for _, s := range seams {
		if n := len(s); n > best && p > n && string(t[p-n:p]) == s && (isAlnum(t[p-n-1]) || strings.IndexByte("._-+", t[p-n-1]) >= 0) {
			best = n
		}
	}
	return best
}
