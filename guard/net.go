package guard

import (
	"bytes"
	"strings"
)

// readIPv4 reads an IPv4 address, with a prefix length or without, at t[start].
func (l *level) readIPv4(start int) {
	t := l.t
	if start > 1 && (t[start-1] == '.' || t[start-1] == '-' || t[start-1] == '_') && isAlnum(t[start-2]) {
		return
	}
	end, small := parseIPv4(t, start)
	if end == 0 {
		return
	}
	score := float32(0.95)
	switch {
	case end < len(t) && (isAlnum(t[end]) || t[end] == '_' && !emphasised(t, start, end)):
		return
	case end+1 < len(t) && (t[end] == '.' || t[end] == '-') && isAlnum(t[end+1]):
		score = 0.35
	case small || l.afterSection(start):
		score = 0.45
	}
	end = prefixLength(t, end, 32)
	l.add(l.zone.det.ip, start, end, l.rate(l.zone.det.ip, start, score, max(score, 0.6)))
}

// afterSection reports whether the word in front of t[i] says that a number of
// four parts is none of a host.
func (l *level) afterSection(i int) bool {
	b := l.t[:i]
	if l.v.from == nil && !l.v.blob {
		b = l.zone.raw[:l.zone.start+i]
	}
	end := len(b)
	for end > 0 && len(b)-end < 3 && strings.IndexByte(" .:#\n\t", b[end-1]) >= 0 {
		end--
	}
	if bytes.HasSuffix(b[:end], []byte("§")) {
		return true
	}
	p := end
	for p > 0 && end-p < 10 && isLetter(b[p-1]) {
		p--
	}
	switch strings.ToLower(string(b[p:end])) {
	case "section", "sections", "sec", "sect", "chapter", "clause", "version", "ver", "v", "release", "build", "revision":
		return true
	}
	return false
}

// emphasised reports whether t[start:end] has an underscore on either side and
// is no part of a longer name, as Markdown writes it.
func emphasised(t []byte, start, end int) bool {
	return start > 0 && t[start-1] == '_' && end < len(t) && t[end] == '_' && (start < 2 || !isAlnum(t[start-2])) && (end+1 == len(t) || !isAlnum(t[end+1]))
}

// parseIPv4 returns where the address at t[p] ends, or 0, and whether it looks
// like the number of a version.
func parseIPv4(t []byte, p int) (end int, small bool) {
	small = true
	for part := range 4 {
		v, n := 0, 0
		for p+n < len(t) && n < 3 && isDigit(t[p+n]) {
			v = v*10 + int(t[p+n]-'0')
			n++
		}
		if n == 0 || v > 255 || p+n < len(t) && isDigit(t[p+n]) {
			return 0, false
		}
		small = small && v < 10 && v > 0
		if p += n; part < 3 {
			if p >= len(t) || t[p] != '.' {
				return 0, false
			}
			p++
		}
	}
	return p, small
}

// prefixLength returns where "/24" at t[end] ends, or end.
func prefixLength(t []byte, end, most int) int {
	if end+1 >= len(t) || t[end] != '/' || !isDigit(t[end+1]) {
		return end
	}
	p, v := end+1, 0
	for p < len(t) && p-end < 5 && isDigit(t[p]) {
		v = v*10 + int(t[p]-'0')
		p++
	}
	if v > most || p < len(t) && (isAlnum(t[p]) || t[p] == '/') || p+1 < len(t) && (t[p] == '.' || t[p] == '-') && isDigit(t[p+1]) {
		return end
	}
	return p
}

// readIPv6 reads the IPv6 address that the colon t[i] is in.
func (l *level) readIPv6(i int) {
	t := l.t
	start := i
	for start > 0 && i-start < 5 && hexDigit(t[start-1]) >= 0 {
		start--
	}
	if start > 0 && isLetter(t[start-1]) && i+1 < len(t) && t[i+1] != ':' && lettersBefore(t, i) {
		start = i + 1 // a key in front
	} else if start > 0 && (isAlnum(t[start-1]) || t[start-1] == ':' || t[start-1] == '.' || t[start-1] == '_' && start > 1 && isAlnum(t[start-2])) {
		return // not the first colon of it
	}
	end := start
	for end < len(t) && end-start < 46 && (hexDigit(t[end]) >= 0 || t[end] == ':') {
		end++
	}
	groups, sizes, short, digits, mixed := 0, 0, false, false, false
	p := start
	for p < end {
		if t[p] == ':' {
			if p+1 < end && t[p+1] == ':' {
				if short {
					return
				}
				short = true
				p += 2
				continue
			}
			if p == start || p+1 == end {
				if p+1 == end && groups > 0 { // a colon behind the address
					end = p
					break
				}
				return
			}
			p++
			continue
		}
		if v4, _ := parseIPv4(t, p); v4 > 0 && groups >= 0 && (groups == 6 || short) {
			groups += 2
			mixed, digits = true, true
			end = v4
			break
		}
		n := p
		for p < end && hexDigit(t[p]) >= 0 {
			digits = digits || isDigit(t[p])
			p++
		}
		if p-n > 4 {
			return
		}
		sizes += p - n
		groups++
	}
	if end < len(t) && (isAlnum(t[end]) || t[end] == '_' && !emphasised(t, start, end) || t[end] == ':') || end+1 < len(t) && t[end] == '.' && isDigit(t[end+1]) {
		return
	}
	if !short && groups != 8 || short && groups > 7 || end-start < 2 {
		return
	}
	score, with := float32(0.9), float32(1)
	switch {
	case mixed:
		score = 0.96 // better than the IPv4 address in it
	case groups == 0:
		score, with = 0.1, 0.45
	case short && sizes < 2:
		score, with = 0.55, 0.8
		if !digits {
			score, with = 0.1, 0.5
		}
	case !digits || sizes < 5:
		score, with = 0.4, 0.9
	}
	if end+1 < len(t) && t[end] == '%' && isAlnum(t[end+1]) {
		for end++; end < len(t) && isAlnum(t[end]); end++ {
		}
	}
	end = prefixLength(t, end, 128)
	l.add(l.zone.det.ip, start, end, l.rate(l.zone.det.ip, start, score, with))
}

// lettersBefore reports whether a word of letters alone, and not a long one, ends
// at t[i].
func lettersBefore(t []byte, i int) bool {
	p := i
	for p > 0 && i-p < 20 && isLetter(t[p-1]) {
		p--
	}
	return p < i && (p == 0 || !isAlnum(t[p-1]))
}

// macPairs reports whether six pairs of hex digits, sep between them, begin at
// t[p].
func macPairs(t []byte, p int, sep byte) bool {
	if p < 0 || p+17 > len(t) || p > 0 && (isAlnum(t[p-1]) || t[p-1] == sep && !(sep == ':' && keyEnds(t, p-1))) || p+17 < len(t) && (isAlnum(t[p+17]) || t[p+17] == sep) {
		return false
	}
	for i := range 17 {
		if c := t[p+i]; i%3 == 2 && c != sep || i%3 != 2 && hexDigit(c) < 0 {
			return false
		}
	}
	return true
}

// keyEnds reports whether letters that are no hex digits end in front of t[p], as
// those of a key do.
func keyEnds(t []byte, p int) bool {
	word := false
	for p--; p >= 0 && isLetter(t[p]); p-- {
		word = word || hexDigit(t[p]) < 0
	}
	return word
}

// macQuads reports whether three groups of four hex digits, with points between
// them, begin at t[p].
func macQuads(t []byte, p int) bool {
	if p < 0 || p+14 > len(t) || p > 0 && (isAlnum(t[p-1]) || t[p-1] == '.') || p+14 < len(t) && isAlnum(t[p+14]) {
		return false
	}
	for i := range 14 {
		if c := t[p+i]; (i == 4 || i == 9) != (c == '.') || c != '.' && hexDigit(c) < 0 {
			return false
		}
	}
	return !(p+15 < len(t) && t[p+14] == '.' && isAlnum(t[p+15]))
}
