package guard

const (
	// minApart is how many characters must stand apart to be read together.
	minApart = 7
	// maxApart bounds them.
	maxApart = 256
)

// spaced reads text whose characters stand apart, such as "2 1 9 - 0 9", around
// t[i], without the spaces.
func (l *level) spaced(i int) {
	t := l.t
	if i < l.apartEnd || l.v.depth >= decodeDepth || i > 0 && t[i-1] != ' ' || i+1 < len(t) && t[i+1] != ' ' {
		return
	}
	start := i
	for start >= 2 && start-2 >= l.apartEnd && t[start-1] == ' ' && (t[start-2] != ' ' || start >= 4 && t[start-4] != ' ') && (start == 2 || t[start-3] == ' ') {
		start -= 2
	}
	for t[start] == ' ' {
		start++
	}
	z := l.zone
	next := &z.levels[l.v.depth+1]
	v := &next.v
	v.spare.text[0], v.spare.from[0], v.spare.to[0] = v.spare.text[0][:0], v.spare.from[0][:0], v.spare.to[0][:0]
	p := start
	for n := 0; p < len(t) && (t[p] != ' ' || p+2 < len(t) && t[p+2] != ' ') && n < maxApart && (p+1 == len(t) || t[p+1] == ' ' || endsApart(t[p+1])); n++ {
		from, to := l.v.span(p, p+1)
		v.spare.text[0] = append(v.spare.text[0], t[p])
		v.spare.from[0], v.spare.to[0] = append(v.spare.from[0], int32(from)), append(v.spare.to[0], int32(to))
		if p+1 < len(t) && t[p+1] != ' ' {
			p++
			break
		}
		p += 2
	}
	l.apartEnd = p
	if len(v.spare.text[0]) < minApart {
		return
	}
	v.text, v.from, v.to, v.base = v.spare.text[0], v.spare.from[0], v.spare.to[0], 0
	v.blob, v.blobStart, v.blobEnd, v.depth = l.v.blob, l.v.blobStart, l.v.blobEnd, l.v.depth+1
	outer := z.outer
	z.outer = *l.context(start)
	next.read(z, 0)
	z.outer = outer
}

// endsApart reports whether c may stand right behind the last of the characters.
func endsApart(c byte) bool { return isStop[c] || c == '\n' || c == ')' || c == '"' }
