// Package mcpguard puts package guard between MCP clients and servers, as a
// middleware of the official SDK: what tools, resources and prompts return is
// redacted before a model sees it, and what a model gives to tools is looked
// through.
//
// [Middleware] fits both sides. In a gateway that calls services, add it to the
// client with AddSendingMiddleware; in a service, to the server with
// AddReceivingMiddleware:
//
//	guarded, err := mcpguard.Middleware(mcpguard.Config{Guard: g})
//	server.AddReceivingMiddleware(guarded)
//
// What a server sends of itself, such as log messages and progress, goes through the
// other pair: the client's AddReceivingMiddleware, or the server's
// AddSendingMiddleware. Add it to both.
//
// With a conversation, results leave with pseudonyms and tools get the values
// back. Methods whose contents are not known here, such as sampling and elicitation,
// are refused. The _meta members, schemas and icons are not looked through.
package mcpguard

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/guard"
)

// Config configures [Middleware].
type Config struct {
	// Guard finds personal data. It is required.
	Guard *guard.Guard
	// Conversation returns that of a request. Its results get pseudonyms, and
	// arguments of tools and prompts get back the values of theirs. Nil, or a
	// nil result: results and arguments are redacted.
	Conversation func(ctx context.Context, req mcp.Request) *guard.Conversation
	// AllowMedia lets images, sounds and binary resources through unread.
	// Otherwise a text that says so stands in their place.
	AllowMedia bool
	// Audit records each call with findings, with labels and counts, and each
	// that was blocked. A call that cannot be recorded fails. Nil: nothing is.
	Audit auditlog.Recorder
	// Service is who records; "" leaves it to the recorder.
	Service string
}

// ErrMethod is the error for a method that cannot be looked through.
var ErrMethod = errors.New("mcpguard: the method cannot be looked through and is refused")

// Middleware returns one that guards each call. It fails if there is no Guard.
func Middleware(c Config) (mcp.Middleware, error) {
	if c.Guard == nil {
		return nil, errors.New("mcpguard: Config.Guard is missing; make one with guard.New")
	}
	return func(next mcp.MethodHandler) mcp.MethodHandler {
		return func(ctx context.Context, method string, req mcp.Request) (mcp.Result, error) {
			k := &call{config: c, method: method, counts: map[string]int{}}
			if c.Conversation != nil {
				k.conv = c.Conversation(ctx, req)
			}
			return k.handle(ctx, req, next)
		}
	}, nil
}

// A call is one request with its result.
type call struct {
	config   Config
	conv     *guard.Conversation
	method   string
	resource string
	counts   map[string]int
}

func (k *call) handle(ctx context.Context, req mcp.Request, next mcp.MethodHandler) (mcp.Result, error) {
	clean, err := k.request(req)
	var result mcp.Result
	if err == nil {
		result, err = next(ctx, k.method, clean)
		if err != nil {
			err = k.failure(err)
		} else {
			result, err = k.result(result)
		}
	}
	if auditErr := k.record(ctx, err); auditErr != nil {
		return nil, auditErr
	}
	var blocked *guard.BlockedError
	if errors.As(err, &blocked) && k.method == "tools/call" { // so that the model can do without
		return &mcp.CallToolResult{IsError: true, Content: []mcp.Content{&mcp.TextContent{
			Text: fmt.Sprintf("The call was blocked because of personal data in it: %s.", strings.Join(slices.Sorted(maps.Keys(blocked.Counts)), ", ")),
		}}}, nil
	}
	if err != nil {
		return nil, err
	}
	return result, nil
}

// failure returns an error whose text and data may go on.
func (k *call) failure(err error) error {
	text, redactErr := k.text(err.Error())
	if redactErr != nil {
		return redactErr
	}
	var wire *jsonrpc.Error
	if !errors.As(err, &wire) {
		if text == err.Error() {
			return err
		}
		return errors.New(text)
	}
	clean := *wire
	if redactErr = k.texts(&clean.Message); redactErr == nil && len(clean.Data) > 0 {
		clean.Data, redactErr = k.json(clean.Data)
	}
	switch {
	case redactErr != nil:
		return redactErr
	case text == err.Error() && clean.Message == wire.Message && bytes.Equal(clean.Data, wire.Data):
		return err
	}
	return &clean
}

// text returns a text as it may go on. If it is JSON, as tools have it, it stays so.
func (k *call) text(s string) (string, error) {
	if t := strings.TrimSpace(s); strings.HasPrefix(t, "{") || strings.HasPrefix(t, "[") {
		if out, err := k.json([]byte(s)); !errors.Is(err, guard.ErrNotJSON) {
			return string(out), err
		}
	}
	redact := k.config.Guard.Redact
	if k.conv != nil {
		redact = k.conv.Redact
	}
	out, result, err := redact([]byte(s))
	k.count(result)
	return string(out), err
}

// texts changes each of the texts into what may go on.
func (k *call) texts(all ...*string) error {
	for _, s := range all {
		var err error
		if *s, err = k.text(*s); err != nil {
			return err
		}
	}
	return nil
}

// address returns a URI as it may go on. That it is one is no finding.
func (k *call) address(uri string) (string, error) {
	for _, f := range k.config.Guard.Scan([]byte(uri)) {
		if f.Label != "URL" && f.Label != "DOMAIN_NAME" {
			return k.text(uri)
		}
	}
	return uri, nil
}

func (k *call) json(doc []byte) (json.RawMessage, error) {
	redact := k.config.Guard.RedactJSON
	if k.conv != nil {
		redact = k.conv.RedactJSON
	}
	out, result, err := redact(doc)
	k.count(result)
	return out, err
}

func (k *call) count(r guard.Result) {
	for label, n := range r.Counts {
		k.counts[label] += n
	}
}

// record tells the audit log of a call with findings, or that was blocked.
func (k *call) record(ctx context.Context, failed error) error {
	var blocked *guard.BlockedError
	refused := errors.As(failed, &blocked) || errors.Is(failed, ErrMethod)
	if k.config.Audit == nil || len(k.counts) == 0 && !refused {
		return nil
	}
	e := auditlog.Event{
		Service: k.config.Service, Category: auditlog.Security, Action: "guard." + k.method, Resource: k.resource,
		Outcome: auditlog.Success, Attributes: map[string]string{},
	}
	for kind, n := range k.counts {
		e.Attributes[kind] = strconv.Itoa(n)
	}
	if refused {
		e.Outcome, e.Severity = auditlog.Blocked, auditlog.Warning
	}
	// Who has hung up has sent or read this nevertheless.
	if err := k.config.Audit.Append(context.WithoutCancel(ctx), e); err != nil {
		return fmt.Errorf("mcpguard: what was done cannot be recorded, so it fails; look at the audit log's disk: %w", err)
	}
	return nil
}
