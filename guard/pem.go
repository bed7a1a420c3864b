package guard

import (
	"bytes"
	"strings"
)

// Private keys in PEM and in OpenPGP's armour. A header alone is what code and prose
// about keys have: it counts before a body. A body is unbounded, so that the scanner
// keeps in mind that it is in one.

const (
	// pemLook is how many bytes behind a header may be before the body: other headers,
	// quotation marks and the ends of lines.
	pemLook = 256
	// pemRun is the shortest run of base64 that a body is told by.
	pemRun = 10
	// pemMark is the longest line that begins or ends a key.
	pemMark = 80
)

// pemHead is where a text has the header of a private key. None has no end.
type pemHead struct{ start, end int }

// pemHeader returns the length of the header of a private key at the start of b,
// or 0.
func pemHeader(b []byte) int {
	const begin, key = "-----BEGIN ", "PRIVATE KEY"
	if !bytes.HasPrefix(b, []byte(begin)) {
		return 0
	}
	head := b[:min(len(b), pemMark)]
	end := bytes.Index(head[len(begin):], []byte("-----"))
	if end < 0 || !bytes.Contains(head[:len(begin)+end], []byte(key)) {
		return 0
	}
	return len(begin) + end + 5
}

// pemBody reports whether the body of a private key begins in b[from:], behind a
// header. Until eof more may follow, and it may not be decided yet.
func pemBody(b []byte, from int, eof bool) (body, decided bool) {
	end := min(len(b), from+pemLook)
	for p := from; p < end; p++ {
		switch c := b[p]; {
		case isAlnum(c):
			run := p
			for p < end && isBase64Byte[b[p]] {
				p++
			}
			if isKeyData(b[run:p]) {
				return true, true
			}
			p--
		case c == '-' && p > from && b[p-1] == '-':
			return false, true // the end of the key
		case !inPEM(b, p):
			return false, true
		}
	}
	return false, eof || end == from+pemLook
}

// isKeyData reports whether run is no word, but may be of a key.
func isKeyData(run []byte) bool {
	if len(run) < pemRun {
		return false
	}
	capitals, shouted, small := 0, false, false
	for _, c := range run {
		if isDigit(c) {
			return true
		}
		if isUpper(c) {
			capitals++
		} else {
			capitals = 0
		}
		shouted = shouted || capitals == 3
		small = small || isLower(c)
	}
	return shouted && small
}

// pemEnd returns how far b[from:] is the body of a private key, and whether it
// ended there. The body of a key that breaks off ends where text begins that
// cannot be one.
func pemEnd(b []byte, from int, eof bool) (next int, ended bool) {
	const tail = "-----END"
	for p := from; p < len(b); p++ {
		if b[p] != '-' {
			if !isAlnum(b[p]) && !inPEM(b, p) {
				return p, true
			}
			continue
		}
		rest := b[p:min(len(b), p+pemMark)]
		if len(rest) < pemMark && !eof {
			return p, false
		}
		if !bytes.HasPrefix(rest, []byte(tail)) {
			continue
		}
		if n := bytes.Index(rest[len(tail):], []byte("-----")); n >= 0 {
			return p + len(tail) + n + 5, true
		}
		return p + len(tail), true
	}
	return len(b), eof
}

var (
	isBase64Byte = byteSet("+/=ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
	// isPEMByte marks what else may be in a key: white space and its escapes, headers,
	// what strings and their sums are written with, the marks of quoted lines, and tags.
	isPEMByte = byteSet("+/= \t\r\n\\-:,;\"'`%&#<>|*")
)

// inPEM reports whether b[p], which is no letter or digit, may be in a key.
func inPEM(b []byte, p int) bool {
	if isPEMByte[b[p]] || b[p] == '.' && b[p-1] == ' ' { // which adds strings
		return true
	}
	// The headers of an armour, as in "Version: GnuPG v2.0.22 (GNU/Linux)".
	line := b[max(0, p-pemMark):p]
	line = line[bytes.LastIndexByte(line, '\n')+1:]
	name, _, ok := bytes.Cut(line, []byte(": "))
	if !ok {
		return false
	}
	switch strings.TrimLeft(string(name), "> ") {
	case "Version", "Comment", "Hash", "Charset", "MessageID":
		return true
	}
	return false
}
