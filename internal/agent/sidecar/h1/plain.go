package h1

import (
	"bytes"
	"strings"
)

// A verdict is what a server thinks of the bytes that it has.
type verdict int

const (
	unfinished verdict = iota // the rest may come
	plain                     // a whole request that net/http reads in one way
	other                     // anything else
)

// methods are those of plain requests.
var methods = []string{"GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"}

// odd are headers that change how a request is read, or ask for more than an
// answer.
var odd = []string{"Transfer-Encoding", "Trailer", "Upgrade", "Expect"}

// classes of bytes, by what RFC 9110, section 5.5 and 5.6.2, and RFC 9112,
// section 3.2, say of them
const (
	inName   = 1 << iota // tchar
	inValue              // VCHAR, obs-text, SP and HTAB
	inTarget             // VCHAR
	inHost               // what hosts and ports are written in
)

var classes = func() (table [256]byte) {
	for c := range table {
		switch letter := 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9'; {
		case letter:
			table[c] |= inName | inHost
		case strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) && c < 0x80:
			table[c] |= inName
		}
		if strings.ContainsRune("-._:[]", rune(c)) && c < 0x80 {
			table[c] |= inHost
		}
		if c >= ' ' && c != 0x7f || c == '\t' {
			table[c] |= inValue
		}
		if c > ' ' && c < 0x7f {
			table[c] |= inTarget
		}
	}
	return table
}()

func only[T string | []byte](text T, class byte) bool {
	for i := range len(text) {
		if classes[text[i]]&class == 0 {
			return false
		}
	}
	return true
}

func onlyName[T string | []byte](text T) bool { return len(text) > 0 && only(text, inName) }

var (
	crlf   = []byte("\r\n")
	ending = []byte("\r\n\r\n")
)

// look judges the request that data begin with. A plain one has a head of that
// many bytes, the empty line included, and a body of that many. Both together
// have at most most.
func look(data []byte, maxHead, most int) (v verdict, head, body int) {
	end := bytes.Index(data, ending)
	if end < 0 {
		if len(data) >= min(maxHead, most) {
			return other, 0, 0
		}
		return unfinished, 0, 0
	}
	head = end + len(ending)
	line, rest, _ := bytes.Cut(data[:end+len(crlf)], crlf)
	if head > maxHead || !plainLine(line) {
		return other, 0, 0
	}
	hosts, lengths := 0, 0
	for len(rest) > 0 {
		line, rest, _ = bytes.Cut(rest, crlf)
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok || !onlyName(name) || !only(value, inValue) {
			return other, 0, 0
		}
		switch {
		case is(name, "Host"):
			hosts++
			if value = bytes.Trim(value, " \t"); len(value) == 0 || !only(value, inHost) {
				return other, 0, 0
			}
		case is(name, "Content-Length"):
			lengths++
			if body, ok = number(bytes.Trim(value, " \t"), most); !ok {
				return other, 0, 0
			}
		case is(name, "Connection"):
			// net/http looks for a close in two ways, which do not agree on lists.
			if value = bytes.ToLower(bytes.Trim(value, " \t")); string(value) != "close" && bytes.Contains(value, []byte("close")) {
				return other, 0, 0
			}
		default:
			for _, one := range odd {
				if is(name, one) {
					return other, 0, 0
				}
			}
		}
	}
	switch {
	case hosts != 1 || lengths > 1 || head+body > most:
		return other, 0, 0
	case len(data) < head+body:
		return unfinished, head, body
	}
	return plain, head, body
}

// plainLine judges the first line: a method, a path or an http URL, and the
// version, with one blank between them.
func plainLine(line []byte) bool {
	method, rest, _ := bytes.Cut(line, []byte(" "))
	target, version, _ := bytes.Cut(rest, []byte(" "))
	if string(version) != "HTTP/1.1" || !only(target, inTarget) ||
		!bytes.HasPrefix(target, []byte("/")) && !bytes.HasPrefix(target, []byte("http://")) {
		return false
	}
	for _, m := range methods {
		if string(method) == m {
			return true
		}
	}
	return false
}

// is compares a header's name, in which all bytes are inName.
func is(name []byte, want string) bool {
	return len(name) == len(want) && bytes.EqualFold(name, []byte(want))
}

// number reads a length of at most most: digits, and nothing else.
func number(text []byte, most int) (n int, ok bool) {
	for _, c := range text {
		if c < '0' || c > '9' {
			return 0, false
		}
		if n = n*10 + int(c-'0'); n > most {
			return 0, false
		}
	}
	return n, len(text) > 0
}
