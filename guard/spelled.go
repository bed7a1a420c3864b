package guard

import "strings"

// Addresses whose marks are spelled, in brackets or apart: "alice at example dot
// com", "alice [at] example.com", "alice @ example . com".

// How an at sign is written, from what says least.
const (
	atWord    = iota + 1 // the word, between spaces
	atSign               // the sign, with spaces around it
	atGlued              // the word, between hyphens or underscores
	atBracket            // in brackets or the like
)

// isOpener and isCloser mark what stands around a spelled mark.
var isOpener, isCloser = byteSet("([{<*|\"'`_-~"), byteSet(")]}>*|\"'`_-~")

// spelled reads the address that the host label at t[p] is of, if its marks are
// spelled.
func (l *level) spelled(p int) {
	t := l.t
	if p < l.spelledEnd {
		return
	}
	// To the first label of the host.
	for range 8 {
		q := pointBefore(t, p)
		if q == p || q == 0 || !isHostByte[t[q-1]] {
			break
		}
		for p = q; p > 0 && q-p < 64 && isHostByte[t[p-1]] && !(t[p-1] == '-' && isGluedWord(t, p-1)); p-- {
		}
	}
	at, kind := atBefore(t, p)
	if kind == 0 || at == 0 || p >= len(t) || !isAlnum(t[p]) && t[p] < 0x80 {
		return
	}
	start := at
	for range 4 {
		q := start
		for start > 0 && at-start < maxLocal && (isAlnum(t[start-1]) || t[start-1] >= 0x80 || strings.IndexByte("._+-", t[start-1]) >= 0) && !(t[start-1] == '-' && isGluedWord(t, start-1)) {
			start--
		}
		if start == q {
			break
		}
		if q = pointBefore(t, start); q == start || q == 0 || !isAlnum(t[q-1]) || kind == atWord && t[q] == '.' {
			break
		}
		start = q
	}
	for start < at && !isAlnum(t[start]) && t[start] < 0x80 {
		start++
	}
	if start == at {
		return
	}
	// And on to its last.
	end, words := p, 0
	for q := p; ; {
		label := q
		for q < len(t) && q-label < 64 && isHostByte[t[q]] && !(t[q] == '-' && isGluedWord(t, q)) {
			q++
		}
		if q == label {
			break
		}
		if label > p && l.zone.det.isTLD(t[label:q]) && mayBeTLD(t[label:q]) {
			end = q
		}
		next, spelt := pointBehind(t, q)
		if next == q {
			break
		}
		if spelt {
			words++
		}
		q = next
	}
	if end == p {
		return
	}
	local, host := t[start:at], t[p:end]
	score := float32(0.95)
	switch kind {
	case atGlued:
		score = 0.7
	case atSign:
		if score = 0.8; words == 0 && isCommon(local) {
			score = 0.3
		}
	case atWord:
		switch said := l.context(start).has(l.zone.det.mail.bit); {
		case isCommon(host) || isCommon(local) && words == 0:
			score = 0.1
		case words > 0:
			score = 0.9
		case said || strings.ContainsAny(string(local), "._0123456789") || isMailHost(host):
			score = 0.7
		default:
			score = 0.3
		}
	}
	if words > 0 && kind < atBracket && !commonTLD(lastWord(host)) {
		score = min(score, 0.3)
	}
	l.spelledEnd = end
	l.add(l.zone.det.mail, start, end, score)
}

// lastWord returns the letters and digits at the end of b.
func lastWord(b []byte) []byte {
	p := len(b)
	for p > 0 && isAlnum(b[p-1]) {
		p--
	}
	return b[p:]
}

// isGluedWord reports whether the hyphen t[i] parts a spelled mark, as in
// alice-at-example-dot-com.
func isGluedWord(t []byte, i int) bool {
	is := func(p int, word string) bool {
		return p >= 0 && p+len(word) <= len(t) && strings.EqualFold(string(t[p:p+len(word)]), word)
	}
	return is(i, "-at-") || is(i, "-dot-") || is(i-3, "-at-") || is(i-4, "-dot-")
}

// bracketsBefore goes back over two signs at most that stand around a mark.
func bracketsBefore(t []byte, p int, is *[256]bool) int {
	for low := max(0, p-2); p > low && is[t[p-1]]; {
		p--
	}
	return p
}

// atBefore returns where the at sign begins that ends before t[p], with what is
// around it, and how it is written.
func atBefore(t []byte, p int) (start, kind int) {
	q := p
	space := q > 0 && isSpace(t[q-1])
	if space {
		q--
	}
	closed := q
	q = bracketsBefore(t, q, &isCloser)
	bracket := q < closed
	if bracket && q > 0 && t[q-1] == ' ' {
		q--
	}
	sign := q > 0 && t[q-1] == '@'
	switch {
	case sign:
		q--
	case q > 1 && t[q-1]|0x20 == 't' && t[q-2]|0x20 == 'a' && (q == 2 || !isAlnum(t[q-3])):
		q -= 2
	case bracket && q > 0 && t[q-1]|0x20 == 'a' && q > 1 && isOpener[t[q-2]]:
		q--
	default:
		return 0, 0
	}
	mark := q
	if bracket && q > 0 && t[q-1] == ' ' {
		q--
	}
	opened := q
	q = bracketsBefore(t, q, &isOpener)
	switch {
	case bracket && q < opened:
		kind = atBracket
		if c := t[opened-1]; !sign && (c == '-' || c == '_') {
			kind = atGlued
		}
	case bracket || q < opened:
		return 0, 0
	case sign:
		kind = atSign
	case space && mark > 0 && isSpace(t[mark-1]):
		kind = atWord
	default:
		return 0, 0
	}
	if q > 0 && isSpace(t[q-1]) {
		q--
	}
	return q, kind
}

// pointBefore returns where the point begins that ends before t[p], spelled or not,
// with what is around it, or p.
func pointBefore(t []byte, p int) int {
	q := p
	space := q > 0 && isSpace(t[q-1])
	if space {
		q--
	}
	closed := q
	q = bracketsBefore(t, q, &isCloser)
	bracket := q < closed
	word := false
	switch {
	case q > 0 && t[q-1] == '.':
		q--
	case q > 3 && isDot(t, q-3):
		q -= 3
		word = true
	default:
		return p
	}
	opened := q
	q = bracketsBefore(t, q, &isOpener)
	if bracket != (q < opened) {
		return p
	}
	before := q > 0 && isSpace(t[q-1])
	if !bracket && (word && !(space && before) || !word && space != before) {
		return p
	}
	if before {
		q--
	}
	return q
}

// pointBehind returns where the label behind a point at t[q] begins, or q, and
// whether the point is other than one alone.
func pointBehind(t []byte, q int) (next int, spelt bool) {
	p := q
	space := p < len(t) && isSpace(t[p])
	if space {
		p++
	}
	opened := p
	for p < len(t) && p-opened < 2 && isOpener[t[p]] {
		p++
	}
	bracket := p > opened
	word := false
	switch {
	case p < len(t) && t[p] == '.':
		p++
	case p > 0 && isDot(t, p):
		p += 3
		word = true
	default:
		return q, false
	}
	closed := p
	for p < len(t) && p-closed < 2 && isCloser[t[p]] {
		p++
	}
	if bracket != (p > closed) {
		return q, false
	}
	behind := p < len(t) && isSpace(t[p])
	if !bracket && (word && !(space && behind) || !word && space != behind) {
		return q, false
	}
	if behind {
		p++
	}
	return p, word || bracket || space
}

// isDot reports whether the word at t[p], where 0 < p, is dot.
func isDot(t []byte, p int) bool {
	return p+3 <= len(t) && t[p]|0x20 == 'd' && t[p+1]|0x20 == 'o' && t[p+2]|0x20 == 't' && !isAlnum(t[p-1]) && (p+3 == len(t) || !isAlnum(t[p+3]))
}

// isCommon reports whether a word is in front of "at" in prose more often than it
// is a name, or behind it no name of a host.
func isCommon(word []byte) bool {
	switch strings.ToLower(string(word)) {
	case "us", "me", "you", "it", "them", "him", "her", "look", "looking", "looks", "looked", "find", "found", "hosted", "available", "is", "are", "was", "were", "be", "live", "lives", "here", "see", "visit", "online",
		"up", "out", "site", "website", "page", "pages", "blog", "docs", "code", "repo", "project", "source", "read", "more", "work", "works", "working", "stay", "and", "or", "not", "only", "start", "starts", "located", "published", "documentation", "meet", "met", "arrive", "arrived", "point", "points", "pointing", "reach", "contact", "now", "article", "api", "server", "service", "running", "runs", "home", "email", "mail":
		return true
	}
	first, _, _ := strings.Cut(strings.ToLower(string(word)), " ")
	switch first {
	case "the", "a", "an", "this", "that", "each", "any", "every", "all", "our", "your", "my", "his", "its":
		return true
	}
	return false
}

// isMailHost reports whether a host has mail for everybody.
func isMailHost(host []byte) bool {
	name, _, _ := strings.Cut(strings.ToLower(string(host)), ".")
	switch name {
	case "gmail", "googlemail", "yahoo", "hotmail", "outlook", "live", "icloud", "aol", "gmx", "fastmail", "protonmail", "proton", "posteo", "mailbox", "zoho", "yandex", "mail", "example":
		return true
	}
	return false
}

// isDotAt reports whether the word dot, which may be the point of an address, is at
// t[i].
func isDotAt(t []byte, i int) bool {
	return i > 1 && t[i]|0x20 == 'd' && isDot(t, i)
}

// dotWord reads the address that the point spelled at t[i] is in.
func (l *level) dotWord(i int) {
	t := l.t
	p := i
	for p > 0 && i-p < 3 && (isSpace(t[p-1]) || isOpener[t[p-1]]) {
		p--
	}
	for q := p; p > 0 && q-p < 64 && isHostByte[t[p-1]] && !(t[p-1] == '-' && isGluedWord(t, p-1)); p-- {
	}
	l.spelled(p)
}

// oddAt reads the address around the at sign t[i] if it is not as addresses are.
func (l *level) oddAt(i int) {
	t := l.t
	if i < l.authorityEnd || i+2 >= len(t) {
		return
	}
	p := i - 1
	for p >= 0 && i-p < maxLocal && (isAlnum(t[p]) || t[p] == '.' || t[p] == '_' || t[p] == '-' || t[p] == '+') {
		p--
	}
	end := i + 1
	for end < len(t) && end-i < maxHost && (isHostByte[t[end]] || t[end] == '.') {
		end++
	}
	whole := p < i-1 && end > i+1 && l.zone.det.endsHost(t[i+1:end])
	if seam := func(p int) bool {
		return p >= 0 && p < len(t) && isSeam[t[p]] && (!whole || !isSpace(t[p]) || wordGoesOn(t, p+1))
	}; seam(p) || seam(end) {
		l.sewn(i)
	}
	if whole {
		return
	}
	q := i + 1
	for q < len(t) && q-i < 4 && (isSpace(t[q]) || isCloser[t[q]]) {
		q++
	}
	l.spelled(q)
}
