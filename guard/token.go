package guard

import (
	"bytes"
	"crypto/sha256"
	"strings"
)

// isTokenByte marks what tokens of services are made of.
var isTokenByte = func() (t [256]bool) {
	for c := range t {
		t[c] = isAlnum(byte(c)) || strings.IndexByte("_-.+/=~", byte(c)) >= 0
	}
	return t
}()

// tokenKind is the same, with numberByte for what numbers have and no other mark.
var tokenKind = func() (t [256]uint8) {
	for c := range t {
		switch {
		case isDigit(byte(c)) || c == '-' || c == '.':
			t[c] = numberByte
		case isTokenByte[c]:
			t[c] = 2
		}
	}
	return t
}()

const numberByte = 1

// tokenRule describes the tokens of a service that begin alike.
type tokenRule struct {
	prefix   string
	min, max int    // bytes behind the prefix
	more     string // what they may be besides letters and digits
	upper    bool   // and whether they have no small letters
	weak     bool   // whether other words begin like this, too
	numbered bool   // whether a number and a colon stand in front
	// lead is how many letters and digits stand in front, at most, with a point.
	lead int
	// shape, if not nil, reports whether what is behind the prefix is built as the
	// service builds it.
	shape func([]byte) bool
}

// token reads the secrets, wallets and encodings in the run of token characters
// around t[i].
func (l *level) token(i int) {
	t := l.t
	start, kinds := i, tokenKind[t[i]]
	for start > l.tokEnd && tokenKind[t[start-1]] != 0 {
		start--
		kinds |= tokenKind[t[start]]
	}
	end := i + 1
	for end < len(t) && tokenKind[t[end]] != 0 {
		kinds |= tokenKind[t[end]]
		end++
	}
	l.tokEnd = end
	if end-start < 8 {
		return
	}
	l.said(start, end)
	// A name in front that no trigger parts from it: "apiToken,…", "<token>…".
	if p := start - 1; p > 0 && (t[p] == ',' || isSpace(t[p]) || t[p] == '>') {
		for p > 0 && isSpace(t[p]) {
			p--
		}
		if (t[p] == ',' || t[p] == '>' || t[p] == '|') && start-p < 12 {
			l.assigned(p)
		}
	}
	if end-start < minBlob {
		return
	}
	l.sewnToken(start, end)
	if kinds == numberByte && end-start < 18 {
		return // a number
	}
	for p := start; p < end; {
		if !isAlnum(t[p]) {
			p++
			continue
		}
		q := l.named(p, end)
		if q == 0 {
			q = l.wallet(p, end)
		}
		for p < q || p < end && isAlnum(t[p]) {
			p++
		}
	}
	if p := start + bytes.IndexByte(t[start:end], '=') + 1; azureShape(t[p:end]) || discordShape(t[p:end]) || mailchimpShape(t[p:end]) || newRelicShape(t[p:end]) {
		l.add(l.zone.det.secret, p, end, 0.9)
	}
	for p := start; p < end; {
		if !isBlobByte[t[p]] {
			p++
			continue
		}
		q := min(blobEnd(t, p), end)
		if q == end && q-p >= blobLine && breakLine(t[q:]) > 0 {
			q = l.decodeLines(p, q)
		} else if !isPlainNumber(t[p:q]) {
			l.decode(t[p:q], p, q)
		}
		p = q
	}
}

// isPlainNumber reports whether b, which may be an encoding, is a number instead: too
// short for an encoding, or with hyphens.
func isPlainNumber(b []byte) bool {
	hyphen := false
	for _, c := range b {
		hyphen = hyphen || c == '-'
		if !isDigit(c) && c != '-' {
			return false
		}
	}
	return hyphen || len(b) < 18
}

// named reads a token that begins with a known prefix at t[p]. It returns its
// end, or 0.
func (l *level) named(p, end int) int {
	t := l.t
	for _, r := range l.zone.det.prefix[t[p]] {
		if end-p < len(r.prefix)+r.min || string(t[p:p+len(r.prefix)]) != r.prefix {
			continue
		}
		q := p + len(r.prefix)
		for q < end && q-p-len(r.prefix) < r.max && (isAlnum(t[q]) || strings.IndexByte(r.more, t[q]) >= 0) && !(r.upper && isLower(t[q])) {
			q++
		}
		if q-p-len(r.prefix) < r.min || r.max < 200 && goesOn(t[q:end]) || r.weak && (follows(t, p) || q < end && t[q] == '.' && goesOn(t[q+1:end])) {
			continue
		}
		for q > p && (t[q-1] == '.' || t[q-1] == '/') {
			q--
		}
		secret := t[p+len(r.prefix) : q]
		if placeholder(secret) || entropy(secret) < 2.5 || r.weak && !isRandom(secret) || r.shape != nil && !r.shape(secret) || r.shape == nil && counted(secret) || published(t[p:q]) {
			continue
		}
		start := p
		if r.lead > 0 && p > 0 && t[p-1] == '.' {
			for start--; start > 0 && p-start <= r.lead && isAlnum(t[start-1]); {
				start--
			}
		}
		if r.numbered {
			if start = numberBefore(t, p); start == p {
				continue
			}
		}
		l.add(l.zone.det.secret, start, q, 0.9)
		return q
	}
	return 0
}

// goesOn reports whether a token that ends before b is a part of a longer word.
func goesOn(b []byte) bool {
	return len(b) > 0 && (isAlnum(b[0]) || len(b) > 1 && b[0] == '_' && isAlnum(b[1]))
}

// follows reports whether what begins at t[p] goes on a name in front of it.
func follows(t []byte, p int) bool {
	return p > 1 && strings.IndexByte("_-.", t[p-1]) >= 0 && isAlnum(t[p-2])
}

// numberBefore returns where a number of eight digits or more begins that a colon
// parts from t[p], or p. In the address of a bot, "bot" stands before it.
func numberBefore(t []byte, p int) int {
	start := p - 1
	for start > 0 && p-start < 18 && isDigit(t[start-1]) {
		start--
	}
	if p-start < 9 || t[p-1] != ':' || start > 0 && isAlnum(t[start-1]) && !bytes.HasSuffix(t[:start], []byte("bot")) {
		return p
	}
	return start
}

// decodeLines reads what the lines from t[p:q] on are an encoding of together, and
// returns where they end.
func (l *level) decodeLines(p, q int) int {
	t := l.t
	if l.v.depth >= decodeDepth {
		return q
	}
	spare := &l.zone.levels[l.v.depth+1].v.spare
	lines := append(spare.text[0][:0], t[p:q]...)
	for width := q - p; ; {
		next := q + breakLine(t[q:])
		end := blobEnd(t, next)
		size := end - next
		if t[q-1] == '=' || size == 0 || size > width || size < width && size%4 != 0 || len(lines)+size > maxBlob {
			break
		}
		lines, q = append(lines, t[next:end]...), end
		if size < width {
			break // the last
		}
	}
	spare.text[0] = lines
	l.tokEnd = max(l.tokEnd, q)
	l.decode(lines, p, q)
	return q
}

// decode reads what code, from t[p:q], is an encoding of.
func (l *level) decode(code []byte, p, q int) {
	if len(code) < minBlob || l.v.depth >= decodeDepth {
		return
	}
	z := l.zone
	next := &z.levels[l.v.depth+1]
	plain := decodeBlob(next.blob[:0], code)
	if plain == nil {
		return
	}
	start, end := l.v.span(p, q)
	outer := z.outer
	z.outer = *l.context(p)
	next.v.reset(plain, 0)
	next.v.blob, next.v.blobStart, next.v.blobEnd, next.v.depth = true, start, end, l.v.depth+1
	next.read(z, 0, -1)
	z.outer = outer
}

// wallet reads an address of a cryptocurrency at t[p]. It returns its end, or 0.
func (l *level) wallet(p, end int) int {
	t := l.t
	q := p
	for q < end && isAlnum(t[q]) {
		q++
	}
	b := t[p:q]
	ok := false
	switch {
	case len(b) == 42 && b[0] == '0' && (b[1] == 'x' || b[1] == 'X'):
		ok = true
		for _, c := range b[2:] {
			ok = ok && hexDigit(c) >= 0
		}
	case len(b) >= 26 && len(b) <= 35 && strings.IndexByte("13LMD", b[0]) >= 0, len(b) == 34 && (b[0] == 'T' || b[0] == 'r'):
		ok = base58Check(b)
	case len(b) >= 26 && len(b) <= 90 && (b[0]|0x20 == 'b' || b[0]|0x20 == 'l'):
		ok = bech32OK(b)
	}
	if !ok || p > 0 && (t[p-1] == '_' || t[p-1] == '/') {
		return 0
	}
	score := float32(0.9)
	if len(b) == 42 && b[1]|0x20 == 'x' {
		score = 0.6 // no check digit without Keccak
	}
	l.add(l.zone.det.crypto, p, q, l.rate(l.zone.det.crypto, p, score, 1))
	return q
}

// base58Check reports whether b is base58 with the double SHA-256 checksum of
// Bitcoin addresses.
func base58Check(b []byte) bool {
	const alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
	var n [25]byte
	for _, c := range b {
		carry := strings.IndexByte(alphabet, c)
		if carry < 0 {
			return false
		}
		for i := len(n) - 1; i >= 0; i-- {
			carry += 58 * int(n[i])
			n[i] = byte(carry)
			carry >>= 8
		}
		if carry != 0 {
			return false
		}
	}
	sum := sha256.Sum256(n[:21])
	sum = sha256.Sum256(sum[:])
	return bytes.Equal(sum[:4], n[21:])
}

// bech32OK checks the addresses of BIP 173 and BIP 350.
func bech32OK(b []byte) bool {
	const alphabet = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
	sep := bytes.LastIndexByte(b, '1')
	if sep != 2 && sep != 3 || len(b)-sep < 8 {
		return false
	}
	sum := uint32(1)
	step := func(v uint32) {
		top := sum >> 25
		sum = (sum&0x1ffffff)<<5 ^ v
		for i, g := range [...]uint32{0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3} {
			if top>>i&1 == 1 {
				sum ^= g
			}
		}
	}
	for _, c := range b[:sep] {
		step(uint32(lower(c)) >> 5)
	}
	step(0)
	for _, c := range b[:sep] {
		step(uint32(lower(c)) & 31)
	}
	for _, c := range b[sep+1:] {
		v := strings.IndexByte(alphabet, lower(c))
		if v < 0 {
			return false
		}
		step(uint32(v))
	}
	return sum == 1 || sum == 0x2bc830a3
}
