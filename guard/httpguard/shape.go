package httpguard

import (
	"encoding/json"
	"net/http"
	"strings"
)

// A shape is a provider's way of writing requests and errors.
type shape int

const (
	openAI shape = iota
	anthropic
	gemini
)

func shapeOf(r *http.Request) shape {
	path := r.URL.Path
	switch {
	case r.Header.Get("anthropic-version") != "", strings.Contains(path, "/messages"), strings.HasSuffix(path, "/complete"):
		return anthropic
	case strings.Contains(path, "enerateContent"), strings.Contains(path, "mbedContent"), strings.Contains(path, ":countTokens"):
		return gemini
	}
	return openAI
}

// problem returns an error as the provider would write it, so that its client
// library shows the text.
func (s shape) problem(status int, text string) []byte {
	var v any
	switch s {
	case anthropic:
		kind := "invalid_request_error"
		switch {
		case status == http.StatusForbidden:
			kind = "permission_error"
		case status >= 500:
			kind = "api_error" // which may be tried again
		}
		v = map[string]any{"type": "error", "error": map[string]any{"type": kind, "message": text}}
	case gemini:
		kind := "INVALID_ARGUMENT"
		switch {
		case status == http.StatusForbidden:
			kind = "PERMISSION_DENIED"
		case status >= 500:
			kind = "UNAVAILABLE"
		}
		v = map[string]any{"error": map[string]any{"code": status, "message": text, "status": kind}}
	default:
		v = map[string]any{"error": map[string]any{"message": text, "type": "guard_refused", "code": "guard_refused", "param": nil}}
	}
	doc, err := json.Marshal(v)
	if err != nil {
		return []byte(`{"error":{}}`) // strings and numbers alone
	}
	return doc
}
