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
// With a conversation, results leave with pseudonyms and tools get the values
// back. Methods whose contents are not known here, such as sampling, are
// refused. The _meta members are not looked through.
package mcpguard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

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

// harmless are methods without contents of users.
var harmless = map[string]bool{
	"initialize": true, "ping": true, "tools/list": true, "resources/list": true, "resources/templates/list": true, "prompts/list": true,
	"logging/setLevel": true, "roots/list": true, "resources/subscribe": true, "resources/unsubscribe": true, "server/discover": true,
	"subscriptions/listen": true,
}

// request returns the request as it may go on. The caller's own is not changed.
func (k *call) request(req mcp.Request) (mcp.Request, error) {
	switch p := req.GetParams().(type) {
	case *mcp.CallToolParamsRaw:
		c := *p
		k.resource = c.Name
		args, err := k.arguments(c.Arguments)
		if err != nil {
			return nil, err
		}
		c.Arguments = args
		if c.InputResponses != nil {
			return nil, fmt.Errorf("%w: %s with inputResponses", ErrMethod, k.method)
		}
		return withParams(req, p, &c)
	case *mcp.CallToolParams:
		c := *p
		k.resource = c.Name
		if c.InputResponses != nil {
			return nil, fmt.Errorf("%w: %s with inputResponses", ErrMethod, k.method)
		}
		if c.Arguments != nil {
			doc, err := json.Marshal(c.Arguments)
			if err != nil {
				return nil, err
			}
			if c.Arguments, err = k.arguments(doc); err != nil {
				return nil, err
			}
		}
		return withParams(req, p, &c)
	case *mcp.GetPromptParams:
		c := *p
		k.resource = c.Name
		if c.InputResponses != nil {
			return nil, fmt.Errorf("%w: %s with inputResponses", ErrMethod, k.method)
		}
		c.Arguments = maps.Clone(c.Arguments)
		for name, value := range c.Arguments {
			text, err := k.argument(value)
			if err != nil {
				return nil, err
			}
			c.Arguments[name] = text
		}
		return withParams(req, p, &c)
	case *mcp.ReadResourceParams:
		if p.InputResponses != nil {
			return nil, fmt.Errorf("%w: %s with inputResponses", ErrMethod, k.method)
		}
		return req, nil // its URI is an address: the result counts
	case *mcp.LoggingMessageParams: //nolint:staticcheck // deprecated, and sent for a year still
		c := *p
		doc, err := json.Marshal(c.Data)
		if err != nil {
			return nil, err
		}
		clean, err := k.json(doc)
		if err != nil {
			return nil, err
		}
		c.Data = clean
		return withParams(req, p, &c)
	case *mcp.ProgressNotificationParams:
		c := *p
		var err error
		if c.Message, err = k.text(c.Message); err != nil {
			return nil, err
		}
		return withParams(req, p, &c)
	}
	if harmless[k.method] || strings.HasPrefix(k.method, "notifications/") || k.method == "completion/complete" {
		return req, nil
	}
	return nil, fmt.Errorf("%w: %s", ErrMethod, k.method)
}

// withParams returns a copy of the request with other parameters.
func withParams[P mcp.Params](req mcp.Request, _, params P) (mcp.Request, error) {
	switch r := req.(type) {
	case *mcp.ServerRequest[P]:
		c := *r
		c.Params = params
		return &c, nil
	case *mcp.ClientRequest[P]:
		c := *r
		c.Params = params
		return &c, nil
	case *mcp.ClientRequest[mcp.Params]: // on a sending side
		c := *r
		c.Params = params
		return &c, nil
	case *mcp.ServerRequest[mcp.Params]:
		c := *r
		c.Params = params
		return &c, nil
	}
	return nil, fmt.Errorf("%w: a request of type %T", ErrMethod, req)
}

// arguments looks through what a model gives to a tool.
func (k *call) arguments(doc json.RawMessage) (json.RawMessage, error) {
	switch {
	case len(doc) == 0:
		return doc, nil
	case k.conv != nil:
		return k.conv.RestoreJSON(doc)
	}
	return k.json(doc)
}

func (k *call) argument(text string) (string, error) {
	if k.conv != nil {
		return string(k.conv.Restore([]byte(text))), nil
	}
	return k.text(text)
}

// result returns the result as it may go on.
func (k *call) result(result mcp.Result) (mcp.Result, error) {
	switch r := result.(type) {
	case *mcp.CallToolResult:
		c := *r
		if c.InputRequests != nil {
			return nil, fmt.Errorf("%w: a result with inputRequests", ErrMethod)
		}
		var err error
		if c.Content, err = k.contents(c.Content); err != nil {
			return nil, err
		}
		if c.StructuredContent != nil {
			doc, err := json.Marshal(c.StructuredContent)
			if err != nil {
				return nil, err
			}
			clean, err := k.json(doc)
			if err != nil {
				return nil, err
			}
			c.StructuredContent = clean
		}
		return &c, nil
	case *mcp.ReadResourceResult:
		c := *r
		if c.InputRequests != nil {
			return nil, fmt.Errorf("%w: a result with inputRequests", ErrMethod)
		}
		c.Contents = slices.Clone(c.Contents)
		for i, content := range c.Contents {
			var err error
			if c.Contents[i], err = k.resourceContents(content); err != nil {
				return nil, err
			}
		}
		return &c, nil
	case *mcp.GetPromptResult:
		c := *r
		if c.InputRequests != nil {
			return nil, fmt.Errorf("%w: a result with inputRequests", ErrMethod)
		}
		var err error
		if c.Description, err = k.text(c.Description); err != nil {
			return nil, err
		}
		c.Messages = slices.Clone(c.Messages)
		for i, message := range c.Messages {
			if message == nil {
				continue
			}
			m := *message
			if m.Content, err = k.content(m.Content); err != nil {
				return nil, err
			}
			c.Messages[i] = &m
		}
		return &c, nil
	case *mcp.CompleteResult:
		c := *r
		c.Completion.Values = slices.Clone(c.Completion.Values)
		for i, value := range c.Completion.Values {
			var err error
			if c.Completion.Values[i], err = k.text(value); err != nil {
				return nil, err
			}
		}
		return &c, nil
	}
	return result, nil // of a harmless method
}

func (k *call) contents(list []mcp.Content) ([]mcp.Content, error) {
	out := slices.Clone(list)
	for i, content := range list {
		var err error
		if out[i], err = k.content(content); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (k *call) content(content mcp.Content) (mcp.Content, error) {
	switch v := content.(type) {
	case nil:
		return nil, nil
	case *mcp.TextContent:
		c := *v
		var err error
		c.Text, err = k.text(c.Text)
		return &c, err
	case *mcp.EmbeddedResource:
		c := *v
		var err error
		c.Resource, err = k.resourceContents(c.Resource)
		return &c, err
	case *mcp.ResourceLink:
		c := *v
		var err error
		if c.URI, err = k.address(c.URI); err != nil {
			return nil, err
		}
		for _, field := range []*string{&c.Name, &c.Title, &c.Description} {
			if *field, err = k.text(*field); err != nil {
				return nil, err
			}
		}
		return &c, nil
	case *mcp.ImageContent:
		return k.media(v, v.MIMEType), nil
	case *mcp.AudioContent:
		return k.media(v, v.MIMEType), nil
	}
	return nil, fmt.Errorf("%w: content of type %T", ErrMethod, content)
}

func (k *call) media(v mcp.Content, kind string) mcp.Content {
	if k.config.AllowMedia {
		return v
	}
	k.counts["media"]++
	return &mcp.TextContent{Text: "[content of type " + strconv.Quote(kind) + " was removed, because it cannot be looked through]"}
}

func (k *call) resourceContents(r *mcp.ResourceContents) (*mcp.ResourceContents, error) {
	if r == nil {
		return nil, nil
	}
	c := *r
	var err error
	if c.URI, err = k.address(c.URI); err != nil {
		return nil, err
	}
	if c.Text, err = k.text(c.Text); err != nil {
		return nil, err
	}
	switch {
	case c.Blob == nil:
	case strings.HasPrefix(c.MIMEType, "text/"), c.MIMEType == "application/json":
		text, err := k.text(string(c.Blob))
		if err != nil {
			return nil, err
		}
		c.Blob = []byte(text)
	case !k.config.AllowMedia:
		k.counts["media"]++
		c.Blob, c.Text = nil, "[content was removed, because it cannot be looked through]"
	}
	return &c, nil
}

// failure returns an error whose text may go on.
func (k *call) failure(err error) error {
	clean, redactErr := k.text(err.Error())
	switch {
	case redactErr != nil:
		return redactErr
	case clean == err.Error():
		return err
	}
	return errors.New(clean)
}

func (k *call) text(s string) (string, error) {
	redact := k.config.Guard.Redact
	if k.conv != nil {
		redact = k.conv.Redact
	}
	out, result, err := redact([]byte(s))
	k.count(result)
	return string(out), err
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
