package httpguard

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/guard"
)

// An exchange is a request and its answer.
type exchange struct {
	gateway   *Gateway
	request   *http.Request
	requestID string
	others    bool // as a tripper has it
	shape     shape
	conv      *guard.Conversation
	output    guard.OutputPolicy
	counts    map[string]int // what was found since the last record
	prompt    string         // the name of the one that the answer repeats
	hidden    bool           // the address has what no log should have
}

// RoundTripper returns one that guards what goes through base; nil:
// http.DefaultTransport. A refusal is a response with status 400, 403 or 503, in
// the provider's own shape.
func (g *Gateway) RoundTripper(base http.RoundTripper) http.RoundTripper {
	return &tripper{gateway: g, base: orDefault(base)}
}

func orDefault(base http.RoundTripper) http.RoundTripper {
	if base == nil {
		return http.DefaultTransport //nolint:forbidigo // as RoundTripper says
	}
	return base
}

// Proxy returns a handler that sends what it gets to the provider's address,
// guarded.
func (g *Gateway) Proxy(provider *url.URL, base http.RoundTripper) http.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(provider)
			r.Out.Host = provider.Host
		},
		Transport:     g.inFront(base),
		FlushInterval: -1,
		ErrorHandler:  g.unreachable,
	}
}

// inFront is RoundTripper for what answers others than a client of this process.
func (g *Gateway) inFront(base http.RoundTripper) http.RoundTripper {
	return &tripper{gateway: g, base: orDefault(base), others: true}
}

// unreachable answers for a provider that does not.
func (g *Gateway) unreachable(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		g.Logger.Info("httpguard: the program hung up before there was an answer", "path", g.cleaned(r.URL.Path))
	} else {
		g.Logger.Warn("httpguard: the provider cannot be reached", "path", g.cleaned(r.URL.Path), "err", g.cleaned(err.Error()))
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusBadGateway)
	_, _ = w.Write(shapeOf(r).problem(http.StatusBadGateway, "phoenix guard: the provider cannot be reached"))
}

type tripper struct {
	gateway *Gateway
	base    http.RoundTripper
	others  bool // a redirection is followed by others, who may leave the gateway
}

func (t *tripper) RoundTrip(r *http.Request) (*http.Response, error) {
	g := t.gateway
	x := &exchange{gateway: g, request: r, others: t.others, shape: shapeOf(r), output: g.Output, counts: map[string]int{}}
	out, err := x.prepare()
	if auditErr := x.record("guard.request", err); auditErr != nil && err == nil {
		err = auditErr
	}
	if r.Body != nil {
		_ = r.Body.Close()
	}
	if err != nil {
		return x.refused(err)
	}
	resp, err := t.base.RoundTrip(out)
	if err != nil {
		return nil, err
	}
	answer := *resp // a transport puts trailers into its own
	answer.Trailer = nil
	if err := x.finish(&answer); err != nil {
		_ = resp.Body.Close()
		return x.refused(err)
	}
	return &answer, nil
}

// past refuses an answer that leads others past the gateway: they would send the same
// request again, as it is.
func (x *exchange) past(answer *http.Response) error {
	if !x.gateway.AllowMedia {
		answer.Header.Del("X-Goog-Upload-Url")
	}
	location := answer.Header.Get("Location")
	if !x.others || location == "" || answer.StatusCode/100 != 3 {
		return nil
	}
	if u, err := url.Parse(location); err != nil || u.Scheme != "" || u.Host != "" {
		return refuse(http.StatusBadGateway, "the provider sends the program elsewhere, past the gateway; set the gateway's upstream to where it should go")
	}
	return nil
}

// prepare returns the request as it may leave.
func (x *exchange) prepare() (*http.Request, error) {
	g, r := x.gateway, x.request
	header := x.headers()
	x.requestID = header.Get("X-Request-Id")
	if err := x.address(); err != nil {
		return nil, err
	}
	if up := r.Header.Get("Upgrade"); up != "" && !strings.EqualFold(up, "h2c") {
		return nil, refuse(http.StatusBadRequest, "a connection that becomes another, such as a WebSocket, cannot be looked through; use requests")
	}
	if header.Get("X-Goog-Upload-Protocol") != "" && !g.AllowMedia {
		return nil, refuse(http.StatusBadRequest, "a file that is uploaded goes past the gateway; send its text, or allow media")
	}
	doc, v, err := x.document()
	if err != nil {
		return nil, err
	}
	conv, opaque, err := g.conversation(g.Session(r), beginning(r, v))
	if err != nil {
		return nil, err
	}
	x.conv = conv
	if g.Delimiters != nil {
		turn := ""
		if g.PerTurn {
			turn = r.Header.Get(TurnHeader)
		}
		x.output.Fence = g.Delimiters.Fence(opaque, g.Session(r), turn)
	}
	out := r.Clone(r.Context())
	out.Header = header
	out.Trailer = nil // it comes behind a body that was read already
	if r.Body == nil || r.Body == http.NoBody {
		return out, nil
	}
	if len(doc) > 0 {
		w := &rewriter{guard: g.Guard, thoughts: &g.thoughts, conv: conv, opaque: opaque, allowMedia: g.AllowMedia, counts: x.counts, shape: x.shape, counting: strings.HasSuffix(r.URL.Path, "/count_tokens")}
		if g.Delimiters != nil {
			w.fence = &fencer{fence: x.output.Fence, embeds: strings.HasSuffix(r.URL.Path, "/embeddings")}
		}
		if doc, err = w.rewrite(v); err != nil {
			return nil, err
		}
	}
	out.Header.Del("Content-Encoding")
	out.Header.Set("Content-Type", "application/json")
	out.Header.Set("Content-Length", strconv.Itoa(len(doc)))
	out.ContentLength, out.TransferEncoding = int64(len(doc)), nil
	out.Body = io.NopCloser(bytes.NewReader(doc))
	out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(doc)), nil }
	return out, nil
}

// document reads the body of the request. It may be empty.
func (x *exchange) document() (doc []byte, v any, err error) {
	r := x.request
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil, nil
	}
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); strings.HasPrefix(kind, "multipart/") {
		return nil, nil, refuse(http.StatusBadRequest, "a form with files cannot be looked through; send their text in a request that is JSON")
	}
	body, err := uncompressed(r.Header.Get("Content-Encoding"), r.Body)
	if err == nil {
		doc, err = readAll(body, x.gateway.MaxBody)
	}
	if err != nil {
		return nil, nil, refuse(http.StatusBadRequest, "the request: %v", err)
	}
	if len(doc) == 0 {
		return nil, nil, nil
	}
	if v, err = decode(doc); err != nil {
		return nil, nil, refuse(http.StatusBadRequest, "the request is not JSON (%v); only JSON can be looked through", err)
	}
	return doc, v, nil
}

// finish makes the answer fit to go on, and records it. A stream does that later.
func (x *exchange) finish(resp *http.Response) error {
	streams, err := x.pass(resp)
	if streams {
		return nil
	}
	if err != nil && x.hungUp() {
		return x.request.Context().Err()
	}
	if auditErr := x.record("guard.answer", err); auditErr != nil && err == nil {
		err = auditErr
	}
	return err
}

// pass makes the answer fit to go on, and reports whether it comes as a stream.
func (x *exchange) pass(resp *http.Response) (streams bool, err error) {
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return false, refuse(http.StatusBadGateway, "the provider turned the connection into another, which cannot be looked through")
	}
	if err := x.past(resp); err != nil {
		return false, err
	}
	body, err := uncompressed(resp.Header.Get("Content-Encoding"), resp.Body)
	if err != nil {
		return false, refuse(http.StatusBadGateway, "the answer: %v", err)
	}
	resp.Header.Del("Content-Encoding")
	resp.Header.Del("Content-Length")
	resp.ContentLength, resp.Uncompressed = -1, false
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if kind == "text/event-stream" {
		resp.Body = newStream(x, struct {
			io.Reader
			io.Closer
		}{&listener{Reader: body, thoughts: &x.gateway.thoughts, words: map[int]string{}}, resp.Body})
		return true, nil
	}
	doc, err := readAll(body, x.gateway.MaxBody)
	if err != nil {
		return false, refuse(http.StatusBadGateway, "the answer: %v", err)
	}
	switch {
	case len(bytes.TrimSpace(doc)) == 0:
	case resp.StatusCode >= http.StatusBadRequest && !json.Valid(doc): // of something in front of the provider
		doc = x.shape.problem(resp.StatusCode, fmt.Sprintf("phoenix guard: the provider answered %d with a text that is not JSON, and is not shown", resp.StatusCode))
		resp.Header.Set("Content-Type", "application/json")
	default:
		answer := x.answer
		if linesOfJSON[kind] {
			answer = x.answers
		}
		if doc, err = answer(doc); err != nil {
			return false, err
		}
	}
	_ = resp.Body.Close()
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(doc)), int64(len(doc))
	resp.Header.Set("Content-Length", strconv.Itoa(len(doc)))
	return false, nil
}

// linesOfJSON are the types of bodies with a document on each line.
var linesOfJSON = set(`application/x-jsonl application/jsonl application/x-ndjson application/ndjson application/x-jsonlines`)

// hungUp reports whether the program hung up, and logs that: what fails then is not
// the provider's fault.
func (x *exchange) hungUp() bool {
	if x.request.Context().Err() == nil {
		return false
	}
	x.gateway.Logger.Info("httpguard: the program hung up before the end of the answer", "path", x.resource())
	return true
}

// endedEarly logs an error of upstream in the middle of a stream.
func (x *exchange) endedEarly(err error) {
	x.gateway.Logger.Warn("httpguard: a stream ended early", "path", x.resource(), "err", x.gateway.cleaned(err.Error()))
}

// cleaned returns a text of ours, which may quote a part of a request or an answer, as
// a log or a program may have it: whatever the policy lets pass.
func (g *Gateway) cleaned(text string) string {
	var b strings.Builder
	at := 0
	for _, f := range g.Guard.Scan([]byte(text)) {
		if f.Label == "SECRET" || !inAddresses[f.Label] {
			b.WriteString(text[at:f.Start] + "<" + f.Label + ">")
			at = f.End
		}
	}
	return b.String() + text[at:]
}

// resource is the path of the request, "" if there is in it what no log should have.
func (x *exchange) resource() string {
	if x.hidden {
		return ""
	}
	return x.request.URL.Path
}

func uncompressed(encoding string, body io.Reader) (io.Reader, error) {
	switch strings.ToLower(strings.TrimSpace(encoding)) {
	case "", "identity":
		return body, nil
	case "gzip", "x-gzip":
		z, err := gzip.NewReader(body)
		if err != nil {
			return nil, fmt.Errorf("it says it is gzip and is not: %w", err)
		}
		return z, nil
	}
	return nil, fmt.Errorf("its compression %q is not known; use gzip or none", encoding)
}

func readAll(r io.Reader, most int64) ([]byte, error) {
	doc, err := io.ReadAll(io.LimitReader(r, most+1))
	if err != nil {
		return nil, fmt.Errorf("it cannot be read: %w", err)
	}
	if int64(len(doc)) > most {
		return nil, fmt.Errorf("it is longer than %d bytes", most)
	}
	return doc, nil
}

// refused returns the response for what is not sent on.
func (x *exchange) refused(err error) (*http.Response, error) {
	var r *refusal
	if !errors.As(err, &r) {
		return nil, err
	}
	x.gateway.Logger.Warn("httpguard: refused", "path", x.resource(), "status", r.status, "reason", x.gateway.cleaned(r.text))
	doc := x.shape.problem(r.status, x.gateway.cleaned(r.Error()))
	return &http.Response{
		Status: fmt.Sprintf("%d %s", r.status, http.StatusText(r.status)), StatusCode: r.status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: x.request,
		Header:        http.Header{"Content-Type": {"application/json"}, "Content-Length": {strconv.Itoa(len(doc))}},
		Body:          io.NopCloser(bytes.NewReader(doc)),
		ContentLength: int64(len(doc)),
	}, nil
}

// record tells the audit log what was found since the last record, and fails
// if that cannot be told.
func (x *exchange) record(action string, failed error) error {
	g := x.gateway
	if g.Audit == nil {
		return nil
	}
	e := auditlog.Event{
		Service: g.Service, Category: auditlog.Security, Action: action, Resource: x.resource(),
		RequestID: x.requestID, Outcome: auditlog.Success, Attributes: map[string]string{},
	}
	for kind, n := range x.counts {
		e.Attributes[kind] = strconv.Itoa(n)
	}
	clear(x.counts)
	if x.prompt != "" {
		e.Attributes["prompt_name"] = x.prompt
	}
	if failed != nil {
		e.Outcome, e.Severity = auditlog.Blocked, auditlog.Warning
		if brokeOff(failed) {
			e.Outcome = auditlog.Failure
		}
	}
	// Who has hung up has sent or read this nevertheless.
	if err := g.Audit.Append(context.WithoutCancel(x.request.Context()), e); err != nil {
		g.Logger.Error("httpguard: the audit log cannot be written", "err", err)
		return refuse(http.StatusServiceUnavailable, "what was done cannot be recorded, so it is not done; look at the audit log's disk")
	}
	return nil
}

// brokeOff reports whether an answer ended by no rule of ours.
func brokeOff(err error) bool {
	var refused *refusal
	var blocked *guard.BlockedError
	return !errors.As(err, &refused) && !errors.As(err, &blocked) &&
		!errors.Is(err, guard.ErrPromptLeak) && !errors.Is(err, guard.ErrOutput) && !errors.Is(err, guard.ErrEvents)
}
