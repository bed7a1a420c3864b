package httpguard

import (
	"encoding/json"
	"errors"
	"strings"
	"unicode/utf8"
)

// An object is a JSON object that keeps the order of its members, because it means
// something to a model: it fills in a schema's properties one after the other.
type object struct{ members []member }

type member struct {
	name  string
	value any
}

// get returns the member's value, nil if there is none. It is for a nil object too.
func (o *object) get(name string) any {
	if o != nil {
		for _, m := range o.members {
			if m.name == name {
				return m.value
			}
		}
	}
	return nil
}

// set gives the member a value, and puts it at the end if it is new.
func (o *object) set(name string, value any) {
	for i := range o.members {
		if o.members[i].name == name {
			o.members[i].value = value
			return
		}
	}
	o.members = append(o.members, member{name, value})
}

// decode reads one document: an *object, []any, string, json.Number, bool or nil.
// Of a name that comes twice in an object the last value counts.
func decode(doc []byte) (any, error) {
	if err := json.Unmarshal(doc, new(json.RawMessage)); err != nil { // says where, and bounds the depth
		return nil, err
	}
	p := parser{doc: doc}
	return p.value(), nil
}

// A parser reads a document that is valid.
type parser struct {
	doc []byte
	at  int
}

func (p *parser) value() any {
	switch c := p.next(); c {
	case '{':
		return p.object()
	case '[':
		p.at++
		list := []any{}
		for p.next() != ']' {
			list = append(list, p.value())
		}
		p.at++
		return list
	case '"':
		return p.text()
	case 't', 'f', 'n':
		p.at += len("true")
		switch c {
		case 't':
			return true
		case 'f':
			p.at++
			return false
		}
		return nil
	}
	begin := p.at
	for p.at < len(p.doc) && strings.IndexByte("+-.0123456789Ee", p.doc[p.at]) >= 0 {
		p.at++
	}
	return json.Number(p.doc[begin:p.at])
}

func (p *parser) object() *object {
	p.at++
	o, known := &object{}, map[string]int{}
	for p.next() != '}' {
		name := p.text()
		value := p.value()
		if i, again := known[name]; again {
			o.members[i].value = value
			continue
		}
		known[name] = len(o.members)
		o.members = append(o.members, member{name, value})
	}
	p.at++
	return o
}

// next is the first byte of what comes next: what stands between two values is
// known to be right.
func (p *parser) next() byte {
	for strings.IndexByte(" \t\r\n,:", p.doc[p.at]) >= 0 {
		p.at++
	}
	return p.doc[p.at]
}

func (p *parser) text() string {
	p.next()
	begin, plain := p.at, true
	for p.at++; p.doc[p.at] != '"'; p.at++ {
		if p.doc[p.at] == '\\' {
			p.at++
			plain = false
		}
	}
	p.at++
	raw := p.doc[begin:p.at]
	if inner := raw[1 : len(raw)-1]; plain && utf8.Valid(inner) {
		return string(inner)
	}
	var s string
	_ = json.Unmarshal(raw, &s) // a valid document's
	return s
}

// errValue says that a value is none of those that decode returns, or
// json.RawMessage.
var errValue = errors.New("httpguard: a value that cannot be in a document")

// encode appends the document v to dst.
func encode(dst []byte, v any) ([]byte, error) {
	var err error
	switch v := v.(type) {
	case *object:
		dst = append(dst, '{')
		for i, m := range v.members {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(appendString(dst, m.name), ':')
			if dst, err = encode(dst, m.value); err != nil {
				return nil, err
			}
		}
		return append(dst, '}'), nil
	case []any:
		dst = append(dst, '[')
		for i, item := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			if dst, err = encode(dst, item); err != nil {
				return nil, err
			}
		}
		return append(dst, ']'), nil
	case string:
		return appendString(dst, v), nil
	case json.Number:
		return append(dst, v...), nil
	case json.RawMessage:
		return append(dst, v...), nil
	case bool:
		if v {
			return append(dst, "true"...), nil
		}
		return append(dst, "false"...), nil
	case nil:
		return append(dst, "null"...), nil
	}
	return nil, errValue
}

// appendString appends s as a JSON string.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for len(s) > 0 {
		n := strings.IndexFunc(s, func(r rune) bool { return r < 0x20 || r == '"' || r == '\\' || r == utf8.RuneError })
		if n < 0 {
			n = len(s)
		}
		dst, s = append(dst, s[:n]...), s[n:]
		if s == "" {
			break
		}
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case r == '\n':
			dst = append(dst, `\n`...)
		case r < 0x20:
			dst = append(dst, `\u00`...)
			dst = append(dst, "0123456789abcdef"[r>>4], "0123456789abcdef"[r&15])
		default: // bytes that are not UTF-8 among them
			dst = utf8.AppendRune(dst, r)
		}
		s = s[size:]
	}
	return append(dst, '"')
}
