package h1

import (
	"bytes"
	"slices"
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
	inPath               // what net/url leaves as it is in a path
)

var classes = func() (table [256]byte) {
	for c := range table {
		switch letter := 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9'; {
		case letter:
			table[c] |= inName | inHost | inPath
		case strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) && c < 0x80:
			table[c] |= inName
		}
		if strings.ContainsRune("-._:[]", rune(c)) && c < 0x80 {
			table[c] |= inHost
		}
		if strings.ContainsRune("-_.~$&+,/:;=@", rune(c)) && c < 0x80 {
			table[c] |= inPath
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

// A span is a part of a message, by where it begins and ends.
type span struct{ from, to int }

func (s span) of(data []byte) []byte { return data[s.from:s.to] }

// A head is what a plain message begins with, up to the empty line: where all of
// it is. Nothing of it is known before readRequest or readAnswer has said plain.
type head struct {
	size    int // in bytes, the empty line included
	method  span
	target  span
	status  span // with the reason
	fields  []field
	hosts   int // how many say so
	host    span
	lengths int
	length  int  // bytes of body, as Content-Length has it
	closes  bool // the connection, after this
}

// A field is a line of a head. Blanks around the value do not belong to it.
type field struct{ name, value span }

// maxFields is how many a plain message may have. A connection keeps the place for
// them.
const maxFields = 64

// readRequest judges the request that data begin with. A plain one has a head of
// at most maxHead bytes, and of at most most together with its body.
func (h *head) readRequest(data []byte, maxHead, most int) verdict {
	end := bytes.Index(data, ending)
	switch {
	case end < 0 && len(data) < min(maxHead, most):
		return unfinished
	case end < 0:
		return other
	}
	*h = head{size: end + len(ending), fields: h.fields[:0]}
	switch {
	case h.size > maxHead || !h.readRequestLine(data) || !h.readFields(data, h.target.to+len(version)):
		return other
	case h.hosts != 1 || h.lengths > 1 || h.size+h.length > most:
		return other
	case len(data) < h.size+h.length:
		return unfinished
	}
	return plain
}

// version ends the first line of a request.
const version = " HTTP/1.1\r\n"

// readRequestLine takes a method, a path or an http URL, and the version, with one
// blank between them.
func (h *head) readRequestLine(data []byte) bool {
	h.method.to = skip(data, 0, inName)
	if !slices.Contains(methods, string(h.method.of(data))) || data[h.method.to] != ' ' {
		return false
	}
	h.target.from = h.method.to + 1
	h.target.to = skip(data, h.target.from, inTarget)
	target := h.target.of(data)
	return bytes.HasPrefix(data[h.target.to:], []byte(version)) &&
		(bytes.HasPrefix(target, []byte("/")) || bytes.HasPrefix(target, []byte("http://")))
}

// skip is where the bytes of a class end that begin at at. They do at the end of a
// line.
func skip(data []byte, at int, class byte) int {
	for classes[data[at]]&class != 0 {
		at++
	}
	return at
}

// readFields takes the lines from at to the end of the head, which is there.
func (h *head) readFields(data []byte, at int) bool {
	for last := h.size - len(crlf); at < last; at += len(crlf) {
		var f field
		f.name = span{at, skip(data, at, inName)}
		if f.name.to == at || data[f.name.to] != ':' {
			return false
		}
		f.value.from = f.name.to + 1
		at = skip(data, f.value.from, inValue)
		if data[at] != '\r' || data[at+1] != '\n' {
			return false
		}
		for f.value.to = at; f.value.from < f.value.to && isBlank(data[f.value.from]); {
			f.value.from++
		}
		for f.value.from < f.value.to && isBlank(data[f.value.to-1]) {
			f.value.to--
		}
		if len(h.fields) == maxFields || !h.mayHave(data, f) {
			return false
		}
		h.fields = append(h.fields, f)
	}
	return true
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// mayHave takes up what a field says of the message, and reports whether that is
// plain.
func (h *head) mayHave(data []byte, f field) (ok bool) {
	name, value := f.name.of(data), f.value.of(data)
	switch {
	case is(name, "Host"):
		h.hosts++
		h.host = f.value
		return len(value) > 0 && only(value, inHost)
	case is(name, "Content-Length"):
		h.lengths++
		h.length, ok = number(value)
		return ok
	case is(name, "Connection"):
		// net/http looks for a close in two ways, which do not agree on lists.
		closes := is(value, "close")
		h.closes = h.closes || closes
		return closes || is(value, "keep-alive") || !bytes.Contains(bytes.ToLower(value), []byte("close"))
	}
	for _, one := range odd {
		if is(name, one) {
			return false
		}
	}
	return true
}

// is compares a name or a value without regard to case.
func is(text []byte, want string) bool {
	return len(text) == len(want) && bytes.EqualFold(text, []byte(want))
}

// number reads a length: digits, and nothing else.
func number(text []byte) (n int, ok bool) {
	for _, c := range text {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, 0 < len(text) && len(text) <= maxDigits
}

// maxDigits is how long a length may be for which no int is too small.
const maxDigits = 9

// statusLine is what a plain answer begins with; d is for a digit.
const statusLine = "HTTP/1.1 ddd "

// readAnswer reports whether data begin with the head of a plain answer, whose
// body, if it has one, is of a length that it says.
func (h *head) readAnswer(data []byte) bool {
	end := bytes.Index(data, ending)
	if end < len(statusLine) {
		return false
	}
	*h = head{size: end + len(ending), fields: h.fields[:0]}
	for i, want := range []byte(statusLine) {
		if c := data[i]; c != want && (want != 'd' || c < '0' || c > '9') {
			return false
		}
	}
	h.status = span{len("HTTP/1.1 "), skip(data, len(statusLine), inValue)}
	at := h.status.to
	return data[at] == '\r' && data[at+1] == '\n' && h.readFields(data, at+len(crlf)) && h.hosts == 0 && h.lengths == 1
}
