package guard

import (
	"bytes"
	"strings"
)

// callingCodes are the country calling codes of ITU-T E.164.
const callingCodes = " 1 7 20 27 30 31 32 33 34 36 39 40 41 43 44 45 46 47 48 49 51 52 53 54 55 56 57 58 60 61 62 63 64 65 66 81 82 84 86 90 91 92 93 94 95 98 " +
	"211 212 213 216 218 220 221 222 223 224 225 226 227 228 229 230 231 232 233 234 235 236 237 238 239 240 241 242 243 244 245 246 247 248 249 250 251 252 253 254 255 256 257 258 260 261 262 263 264 265 266 267 268 269 290 291 297 298 299 " +
	"350 351 352 353 354 355 356 357 358 359 370 371 372 373 374 375 376 377 378 379 380 381 382 383 385 386 387 389 420 421 423 " +
	"500 501 502 503 504 505 506 507 508 509 590 591 592 593 594 595 596 597 598 599 670 672 673 674 675 676 677 678 679 680 681 682 683 685 686 687 688 689 690 691 692 " +
	"800 808 850 852 853 855 856 870 878 880 881 882 883 886 888 960 961 962 963 964 965 966 967 968 970 971 972 973 974 975 976 977 979 992 993 994 995 996 998 "

// phoneNumber is digits as somebody has written them.
type phoneNumber struct {
	d      [17]byte
	n      int // digits
	plus   bool
	parens bool
	sizes  [8]int  // of the groups
	seps   [8]byte // behind the groups
	groups int
	shut   int // how many groups there were when the parenthesis was closed
}

// readPhone reads a telephone number whose first digit is t[start].
func (l *level) readPhone(start int) {
	t := l.t
	if start > 1 && partsDigits[t[start-1]] && isDigit(t[start-2]) {
		return // a part of something else
	}
	p := start
	var ph phoneNumber
	for p > 0 && start-p < 3 {
		if c := t[p-1]; c == '(' && !ph.parens {
			ph.parens = true
		} else if c == '+' && !ph.plus {
			ph.plus = true
		} else {
			break
		}
		p--
	}
	if p > 0 && !ph.plus {
		switch c := t[p-1]; {
		case c == '$', c == '#', c == '-' && p > 1 && isLetter(t[p-2]) && !l.namesPhone(p-1), p > 1 && partsDigits[c] && isDigit(t[p-2]), isDigit(c):
			return
		}
	}
	if ph.plus && p > 1 && (isDigit(t[p-1]) || lower(t[p-1]) == 'e' && isDigit(t[p-2])) {
		return // what is added, or an exponent
	}
	end, score, with := 0, float32(0), float32(0)
	open := ph.parens
	q := start
	for q < len(t) && ph.groups < len(ph.sizes) {
		size := 0
		for q < len(t) && isDigit(t[q]) && ph.n < len(ph.d) {
			ph.d[ph.n] = t[q]
			ph.n++
			size++
			q++
		}
		ph.sizes[ph.groups] = size
		ph.groups++
		if size == 0 || ph.n > 15 || q < len(t) && (isDigit(t[q]) || isLetter(t[q]) && extension(t[q:]) == 0) {
			break
		}
		close := q < len(t) && t[q] == ')' && open
		if close {
			open, ph.shut = false, ph.groups
			q++
		}
		// A group that makes it less sure is of something else.
		if s, w := ph.rate(); s > 0 && s >= score && !open && !(q+1 < len(t) && strings.IndexByte("-./:_", t[q]) >= 0 && isDigit(t[q+1]) && !(ph.plus && t[q] == '/')) {
			end, score, with = q, s, w
		}
		// To the next group.
		r := q + ph.sep(t[q:])
		if r+2 < len(t) && t[r] == '*' && t[r+1] == '*' { // bold text begins or ends
			if r += 2; r-2 == q {
				q, r = r, r+ph.sep(t[r:])
			}
		}
		if r < len(t) && t[r] == '(' && !ph.parens && ph.n <= 4 {
			open, ph.parens = true, true
			r++
		}
		if r >= len(t) || !isDigit(t[r]) || r == q && !close {
			break
		}
		switch {
		case r == q:
			ph.seps[ph.groups-1] = ')'
		case t[q] == ' ' && r-q > 1 && t[q+1] == '-':
			ph.seps[ph.groups-1] = '-'
		case t[q] == '\t' || t[q] == '\n' || t[q] == '+':
			ph.seps[ph.groups-1] = ' '
		default:
			ph.seps[ph.groups-1] = t[q]
		}
		q = r
	}
	if end == 0 {
		return
	}
	if t[p] == '(' && t[end-1] == ')' && bytes.IndexByte(t[p+1:end], '(') < 0 {
		p, end = p+1, end-1 // around the whole
	}
	if with > score {
		det := l.zone.det
		said := l.context(p)
		switch called, unlike := said.has(det.phone.bit), said.has(det.unlike.bit); {
		case called && (!unlike || score >= 0.3), phoneBehind(t[end:]):
			score = with
		case unlike && !called && ph.groups == 2 && ph.seps[0] == '-' && !ph.plus && !ph.parens:
			score = min(score, 0.3) // as orders and parcels have
		}
	}
	end += extension(t[end:])
	l.add(l.zone.det.phone, p, end, score)
	l.national(p, end, score, &ph)
}

// namesPhone reports whether the word that ends before t[p] says that a telephone number
// is behind it, as in "Tel-030 123456": others name a standard, or a hole in something.
func (l *level) namesPhone(p int) bool {
	start := p
	for start > 0 && p-start < 12 && isLetter(l.t[start-1]) {
		start--
	}
	var said mask
	l.zone.det.words.lookWord(l.t, start, p, &said)
	return said.has(l.zone.det.phone.bit)
}

// partsDigits marks what joins a number to another that is in front.
var partsDigits = byteSet("-./,_:")

// sep returns how long the separator of groups is at the start of b: up to two
// characters, or a hyphen with white space around it. What has a plus sign or
// parentheses may go on in another line, and have plus signs for spaces as forms
// of the web do.
func (ph *phoneNumber) sep(b []byte) int {
	n, marks := 0, 0
	for n < len(b) && n < 3 {
		switch c := b[n]; {
		case c == ' ', c == '\t', c == '\n' && n > 0 && b[n-1] == '-', (c == '\n' || c == '+') && n == 0 && (ph.plus || ph.parens):
		case c == '-' || c == '.' || c == '/' || c == '_':
			if marks++; marks > 1 {
				return n
			}
		default:
			return n
		}
		n++
	}
	if n == 3 && marks == 0 {
		return 2
	}
	return n
}

// national adds the labels of countries that have one of their own.
func (l *level) national(p, end int, score float32, whole *phoneNumber) {
	var buf [16]byte
	d := buf[:0]
	for _, c := range l.t[p:end] {
		if isDigit(c) && len(d) < 16 {
			d = append(d, c)
		}
	}
	trunk := len(d) == 11 && d[0] == '0'
	if n := d[max(0, len(d)-10):]; len(n) == 10 {
		abroad := len(d) == 12 && whole.plus
		if n[0] >= '2' && n[0] <= '5' && n[1] != '0' && (len(d) == 10 || trunk || abroad && d[0] == '9' && d[1] == '0') {
			l.add(l.zone.det.phoneTR, p, end, min(score, 0.4))
		}
		if n[0] == '9' && n[1] != '0' && (trunk || abroad && d[0] == '6' && d[1] == '3') || trunk && n[0] == '8' && n[1] == '1' {
			l.add(l.zone.det.phonePH, p, end, min(score, 0.4))
		}
	}
}

// rate says how sure it is that the groups so far are a whole telephone number,
// without and with context.
func (ph *phoneNumber) rate() (score, with float32) {
	d, n, g, s := ph.d[:ph.n], ph.n, ph.groups, ph.sizes[:ph.groups]
	last := s[g-1]
	switch {
	case n == 6 && g == 3 && s[0] == 2 && s[1] == 2 && ph.seps[0] == ' ' && ph.seps[1] == ' ':
		return 0.05, 0.7
	case n < 7 || last < 2 || sameDigits(d):
		return 0, 0
	case ph.plus:
		if g == 2 && ph.seps[0] == '.' {
			return 0.05, 0.3 // a decimal fraction
		}
		if n < 8 || !callingCode(d) {
			return 0.3, 0.6
		}
		return 0.75, 0.95
	case ph.notPhone():
		return 0, 0
	case g == 1 && n <= 9 && string(d[n-4:]) == "0000":
		return 0, 0 // a round amount
	}
	nanp := func(d []byte) bool { return d[0] >= '2' && d[3] >= '2' }
	for i, sep := range ph.seps[:g-1] {
		if (sep == '/' || sep == '_') && ph.shut != i+1 {
			if n == 10 && g == 3 && s[0] == 3 && s[1] == 3 && nanp(d) {
				return 0.5, 0.85
			}
			return 0.1, 0.6
		}
	}
	three := g >= 3 && s[g-1] == 4 && s[g-2] == 3 && s[g-3] == 3 || ph.parens && n == 10 && s[0] == 3
	switch {
	case three && n == 10:
		if nanp(d) {
			return 0.7, 0.95
		}
		return 0.5, 0.85
	case three && (n == 11 && (d[0] == '1' || d[0] == '0' && ph.parens) || n == 13 && string(d[:3]) == "001"):
		return 0.7, 0.95
	case three && n <= 13:
		return 0.5, 0.85
	case d[0] == '0' && d[1] == '0' && n >= 10 && callingCode(d[2:]):
		return 0.6, 0.9
	case ph.parens && g >= 2 && n <= 13 && ph.shut >= 1 && ph.shut <= 2 && ph.shut < g && s[ph.shut-1] <= 5:
		return 0.6, 0.9
	case d[0] == '0' && d[1] != '0' && g >= 2 && g <= 5 && n >= 9 && n <= 13 && s[0] >= 2 && s[0] <= 5:
		return 0.55, 0.9
	case g == 3 && s[0] == 2 && last == 4 && ph.seps[0] == ' ' && ph.seps[1] == '-' && (n == 10 || n == 11 && d[2] == '9'):
		return 0.5, 0.85 // Brazil
	case g >= 2 && n <= 12:
		if g > 5 || s[0] == 1 && n < 10 {
			return 0.05, 0.3
		}
		return 0.25, 0.7
	case g >= 2:
		return 0.05, 0.4
	case n == 10 && nanp(d), n == 11 && d[0] == '1' && nanp(d[1:]):
		return 0.35, 0.75
	case d[0] == '0' && d[1] != '0' && (n == 10 || n == 11):
		return 0.4, 0.75
	case n <= 13:
		return 0.05, 0.55
	}
	return 0, 0
}

// notPhone knows what has digits in groups but is no telephone number: dates,
// years, amounts, addresses of the internet, social security numbers.
func (ph *phoneNumber) notPhone() bool {
	d, s, sep := ph.d[:ph.n], ph.sizes[:ph.groups], ph.seps[0]
	year := func(d []byte) bool { return d[0] == '1' && d[1] == '9' || d[0] == '2' && d[1] == '0' }
	if k := ph.shut - 1; k >= 0 && k < 2 && s[k] == 4 && year(d[k*s[0]:]) {
		return true // of a publication, as in "33 (1979) 1361"
	}
	same := true
	for i := range s[:len(s)-1] {
		same = same && ph.seps[i] == sep
	}
	switch len(s) {
	case 1:
		return false
	case 2:
		return sep == '.' && !ph.parens || s[0] == 4 && s[1] == 4 && year(d) && year(d[4:]) || s[0] == 5 && s[1] == 4 && sep == '-'
	case 3:
		switch {
		case !same:
		case s[0] == 4 && s[1] <= 2 && s[2] <= 2:
			return true
		case s[0] <= 2 && s[1] <= 2 && s[2] == 4 && sep != ' ':
			return num(d[:s[0]]) <= 31 && num(d[s[0]:s[0]+s[1]]) <= 31
		case s[0] == 3 && s[1] == 2 && s[2] == 4, sep == '_' && s[1] == 3 && s[2] == 3:
			return true
		}
	case 4:
		if s[1] == 4 && s[2] == 2 && s[3] == 2 && ph.seps[1] == '-' && ph.seps[2] == '-' {
			return true // a date behind a number
		}
		return same && sep == '.' && s[0] <= 3 && s[1] <= 3 && s[2] <= 3 && s[3] <= 3
	}
	return false
}

func callingCode(d []byte) bool {
	for n := 1; n <= 3; n++ {
		if strings.Contains(callingCodes, " "+string(d[:n])+" ") {
			return true
		}
	}
	return false
}

// extension returns how long the extension at the start of b is, as in "x506"
// and " ext. 12", or 0.
func extension(b []byte) int {
	p := 0
	if p < len(b) && b[p] == ' ' {
		p++
	}
	switch {
	case p < len(b) && lower(b[p]) == 'x':
		p++
	case len(b) >= p+3 && strings.EqualFold(string(b[p:p+3]), "ext"):
		if p += 3; p < len(b) && b[p] == '.' {
			p++
		}
	default:
		return 0
	}
	if p < len(b) && b[p] == ' ' {
		p++
	}
	digits := 0
	for p+digits < len(b) && isDigit(b[p+digits]) {
		digits++
	}
	if digits == 0 || digits > 6 || p+digits < len(b) && isAlnum(b[p+digits]) {
		return 0
	}
	return p + digits
}

// phoneBehind reports whether the word behind a number says what it is.
func phoneBehind(b []byte) bool {
	p := 0
	for p < len(b) && p < 3 && (b[p] == ' ' || b[p] == '-' || b[p] == '(' || b[p] == ',') {
		p++
	}
	end := p
	for end < len(b) && end-p < 10 && isLetter(b[end]) {
		end++
	}
	if p == 0 {
		return false
	}
	switch strings.ToLower(string(b[p:end])) {
	case "office", "fax", "mobile", "cell", "home", "work", "phone", "tel":
		return true
	}
	return false
}
