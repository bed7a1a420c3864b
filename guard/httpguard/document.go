package httpguard

import (
	"bytes"
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
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.UseNumber()
	return read(dec)
}

// read reads one value of a document.
func read(dec *json.Decoder) (any, error) {
	token, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch token {
	case json.Delim('['):
		list := []any{}
		for dec.More() {
			value, err := read(dec)
			if err != nil {
				return nil, err
			}
			list = append(list, value)
		}
		_, err = dec.Token() // its end
		return list, err
	case json.Delim('{'):
		o, at := &object{}, map[any]int{}
		for dec.More() {
			name, err := dec.Token()
			if err != nil {
				return nil, err
			}
			value, err := read(dec)
			if err != nil {
				return nil, err
			}
			if i, again := at[name]; again {
				o.members[i].value = value
				continue
			}
			at[name] = len(o.members)
			text, _ := name.(string) // as all names are
			o.members = append(o.members, member{text, value})
		}
		_, err = dec.Token()
		return o, err
	}
	return token, nil
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
