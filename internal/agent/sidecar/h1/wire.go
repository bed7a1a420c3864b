package h1

import (
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
)

// Messages are written as net/http writes them.

var newlines = strings.NewReplacer("\n", " ", "\r", " ")

// appendField writes a line of a head. Nothing in a value begins another line.
func appendField(b []byte, name, value string) []byte {
	if strings.IndexByte(value, '\n') >= 0 || strings.IndexByte(value, '\r') >= 0 {
		value = newlines.Replace(value)
	}
	b = append(b, name...)
	b = append(b, ": "...)
	b = append(b, textproto.TrimString(value)...)
	return append(b, crlf...)
}

// appendHeader writes the lines of a header in the order of their names, without
// those that skip says yes to, and those whose names are none.
func appendHeader(b []byte, header http.Header, skip func(name string) bool) []byte {
	type line struct {
		name   string
		values []string
	}
	var few [16]line
	lines := few[:0]
	for name, values := range header {
		if onlyName(name) && !skip(name) {
			lines = append(lines, line{name, values})
		}
	}
	slices.SortFunc(lines, func(a, b line) int { return strings.Compare(a.name, b.name) })
	for _, l := range lines {
		for _, value := range l.values {
			b = appendField(b, l.name, value)
		}
	}
	return b
}

// appendRequest writes a plain request, head and body.
func appendRequest(b []byte, req *http.Request) []byte {
	b = append(b, req.Method...)
	b = append(b, ' ')
	b = append(b, req.URL.RequestURI()...)
	b = append(b, version...)
	b = appendField(b, "Host", hostOf(req))
	agent := "Go-http-client/1.1" // as net/http names itself
	if given := req.Header["User-Agent"]; len(given) > 0 {
		agent = given[0]
	}
	if agent != "" {
		b = appendField(b, "User-Agent", agent)
	}
	if req.ContentLength > 0 || announces(req.Method) {
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, req.ContentLength, 10)
		b = append(b, crlf...)
	}
	b = appendHeader(b, req.Header, writtenApart)
	b = append(b, crlf...)
	if body, ok := req.Body.(*Body); ok {
		b = append(b, body.data...)
	}
	return b
}

func hostOf(req *http.Request) string {
	if req.Host != "" {
		return req.Host
	}
	return req.URL.Host
}

// announces reports whether a request of that method says so if it has no body.
func announces(method string) bool { return method == "POST" || method == "PUT" || method == "PATCH" }

// writtenApart are headers of a request that its other fields say.
func writtenApart(name string) bool {
	switch name {
	case "Host", "User-Agent", "Content-Length", "Transfer-Encoding", "Trailer":
		return true
	}
	return false
}
