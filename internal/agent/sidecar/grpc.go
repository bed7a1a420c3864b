package sidecar

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// isGRPC reports whether a request or an answer is one of gRPC, which says in its
// trailers how it went, whatever the status of HTTP (PROTOCOL-HTTP2.md of gRPC).
func isGRPC(h http.Header) bool {
	rest, ok := strings.CutPrefix(h.Get("Content-Type"), "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// The codes of gRPC that the sidecar gives.
const (
	grpcCancelled   = 1
	grpcUnknown     = 2
	grpcLate        = 4
	grpcDenied      = 7
	grpcExhausted   = 8
	grpcUnsupported = 12
	grpcInternal    = 13
	grpcUnavailable = 14
	grpcNobody      = 16
)

// grpcCode is what a client of gRPC takes a status of HTTP for
// (http-grpc-status-mapping.md of gRPC), but for a body that is too long.
func grpcCode(status int) int {
	switch status {
	case http.StatusBadRequest:
		return grpcInternal
	case http.StatusUnauthorized:
		return grpcNobody
	case http.StatusForbidden:
		return grpcDenied
	case http.StatusNotFound:
		return grpcUnsupported
	case http.StatusRequestEntityTooLarge:
		return grpcExhausted
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return grpcUnavailable
	}
	return grpcUnknown
}

// forGRPC has the sidecar's own answers to requests of gRPC be such of gRPC:
// of any other, a client would show the status alone.
func forGRPC(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 && isGRPC(r.Header) {
			w = grpcWriter{w}
		}
		next.ServeHTTP(w, r)
	})
}

// A grpcWriter marks a client of gRPC.
type grpcWriter struct{ http.ResponseWriter }

// Unwrap is for http.ResponseController.
func (w grpcWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func toGRPC(w http.ResponseWriter) bool {
	for {
		if _, ok := w.(grpcWriter); ok {
			return true
		}
		inner, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return false
		}
		w = inner.Unwrap()
	}
}

// answerGRPC is answer for a client of gRPC.
func answerGRPC(w http.ResponseWriter, status int, text string) {
	h := w.Header()
	h.Set("Content-Type", "application/grpc")
	h.Set("Grpc-Status", strconv.Itoa(grpcCode(status)))
	h.Set("Grpc-Message", grpcMessage("phoenix-agent: "+text))
	w.WriteHeader(http.StatusOK)
}

// grpcMessage percent-encodes what is not printable, as gRPC has it.
func grpcMessage(text string) string {
	var out strings.Builder
	for _, b := range []byte(text) {
		if b < ' ' || b > '~' || b == '%' {
			fmt.Fprintf(&out, "%%%02X", b)
			continue
		}
		out.WriteByte(b)
	}
	return out.String()
}

// A grpcBody ends an answer that breaks off with a status, so that its client
// learns that it may call again; without one it would be told of an internal
// error.
type grpcBody struct {
	io.ReadCloser
	resp *http.Response
	late func() bool
}

func (b *grpcBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == nil || errors.Is(err, io.EOF) {
		return n, err
	}
	code, text := grpcUnavailable, "the connection ended in the middle of the answer"
	var reset streamError
	if errors.As(err, &reset) {
		code, text = reset.grpc(b.late()), "the stream was reset in the middle of the answer"
	}
	b.resp.Trailer = http.Header{"Grpc-Status": {strconv.Itoa(code)}, "Grpc-Message": {grpcMessage("phoenix-agent: " + text)}}
	return n, io.EOF
}

// A streamError is net/http's for a stream that one side has reset: errors.As
// knows it by its fields.
type streamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

// Error implements error.
func (e streamError) Error() string { return fmt.Sprintf("the stream was reset, with code %d", e.Code) }

// grpc is what a client of gRPC takes a code of HTTP/2 for (PROTOCOL-HTTP2.md of
// gRPC; the codes are those of RFC 9113, section 7). A service cancels what it has
// not answered by the client's deadline.
func (e streamError) grpc(late bool) int {
	switch e.Code {
	case 7: // REFUSED_STREAM
		return grpcUnavailable
	case 8: // CANCEL
		if late {
			return grpcLate
		}
		return grpcCancelled
	case 11: // ENHANCE_YOUR_CALM
		return grpcExhausted
	case 12: // INADEQUATE_SECURITY
		return grpcDenied
	}
	return grpcInternal
}

// answer stands for one that the stream was reset in place of.
func (e streamError) answer(r *http.Request, late bool) *http.Response {
	return &http.Response{
		StatusCode: http.StatusOK, Proto: "HTTP/2.0", ProtoMajor: 2, Body: http.NoBody, Request: r,
		Header: http.Header{"Content-Type": {"application/grpc"}, "Grpc-Status": {strconv.Itoa(e.grpc(late))},
			"Grpc-Message": {"phoenix-agent: the stream was reset in place of an answer"}},
	}
}

// units are those of grpc-timeout.
var units = map[byte]time.Duration{'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': 1}

// deadline tells, later, whether a request's time is over.
func deadline(r *http.Request) (late func() bool) {
	text, began := r.Header.Get("Grpc-Timeout"), time.Now()
	return func() bool {
		if text == "" {
			return false
		}
		n, err := strconv.ParseInt(text[:len(text)-1], 10, 64)
		unit := units[text[len(text)-1]]
		return err == nil && unit > 0 && int64(time.Since(began)/unit) >= n
	}
}
