package mcpguard_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/tamshai/phoenix/guard"
	"github.com/tamshai/phoenix/guard/mcpguard"
)

// through gives a request to a guard, and returns what came out at the other end and
// what came back for the result.
func through(t testing.TB, c mcpguard.Config, method string, req mcp.Request, result mcp.Result, failed error) (got mcp.Request, back mcp.Result, err error) {
	t.Helper()
	if c.Guard == nil {
		c.Guard = newGuard(t)
	}
	guarded, err := mcpguard.Middleware(c)
	if err != nil {
		t.Fatal(err)
	}
	back, err = guarded(func(_ context.Context, _ string, r mcp.Request) (mcp.Result, error) {
		got = r
		return result, failed
	})(t.Context(), method, req)
	return got, back, err
}

func hasValue(s string) bool {
	for _, value := range []string{ssn, email, "4111111111111111", "219099999", "3704"} {
		if strings.Contains(s, value) {
			return true
		}
	}
	return false
}

// Lists have what somebody wrote, and tell a model of somebody's data.
func TestLists(t *testing.T) {
	for method, result := range map[string]mcp.Result{
		"resources/list":           &mcp.ListResourcesResult{Resources: []*mcp.Resource{{URI: "hr://people/" + email, Name: "of " + email, Title: ssn, Description: ssn}, nil}},
		"resources/templates/list": &mcp.ListResourceTemplatesResult{ResourceTemplates: []*mcp.ResourceTemplate{{URITemplate: "hr://people/{id}", Name: "people", Title: email, Description: ssn}}},
		"prompts/list":             &mcp.ListPromptsResult{Prompts: []*mcp.Prompt{{Name: "greet", Title: email, Description: ssn, Arguments: []*mcp.PromptArgument{{Name: "who", Title: ssn, Description: email}}}}},
		"tools/list":               &mcp.ListToolsResult{Tools: []*mcp.Tool{{Name: "get_pay", Title: email, Description: ssn, Annotations: &mcp.ToolAnnotations{Title: ssn}}}},
		"roots/list":               &mcp.ListRootsResult{Roots: []*mcp.Root{{Name: email, URI: "file:///home/" + email}}},
		"initialize":               &mcp.InitializeResult{Instructions: "ask " + email},
		"server/discover":          &mcp.DiscoverResult{Instructions: "ask " + email},
	} {
		before := show(t, result)
		_, back, err := through(t, mcpguard.Config{}, method, &mcp.ServerRequest[*mcp.ListToolsParams]{Params: &mcp.ListToolsParams{}}, result, nil)
		if err != nil || hasValue(show(t, back)) || !strings.Contains(show(t, back), "EMAIL_ADDRESS") {
			t.Errorf("%s: %s, %v", method, show(t, back), err)
		}
		if show(t, result) != before {
			t.Errorf("%s: the service's own result was changed", method)
		}
		for _, name := range []string{"people", "greet", "get_pay", "hr://people/{id}"} {
			if strings.Contains(before, `"`+name+`"`) && !strings.Contains(show(t, back), `"`+name+`"`) {
				t.Errorf("%s: the name %s is gone: %s", method, name, show(t, back))
			}
		}
	}
}

// Text that goes with a request or a notification is looked through as well.
func TestTextsOfRequests(t *testing.T) {
	for method, req := range map[string]mcp.Request{
		"completion/complete": &mcp.ServerRequest[*mcp.CompleteParams]{Params: &mcp.CompleteParams{
			Ref: &mcp.CompleteReference{Type: "ref/prompt", Name: "greet"}, Argument: mcp.CompleteParamsArgument{Name: "who", Value: email},
			Context: &mcp.CompleteContext{Arguments: map[string]string{"ssn": ssn}}}},
		"notifications/cancelled":         &mcp.ServerRequest[*mcp.CancelledParams]{Params: &mcp.CancelledParams{RequestID: 1, Reason: "of " + email}},
		"notifications/progress":          &mcp.ServerRequest[*mcp.ProgressNotificationParams]{Params: &mcp.ProgressNotificationParams{ProgressToken: 1, Message: "reading " + email}},
		"notifications/message":           &mcp.ClientRequest[*mcp.LoggingMessageParams]{Params: &mcp.LoggingMessageParams{Data: map[string]any{"ssn": 219099999, "to": email}}}, //nolint:staticcheck // deprecated, and sent for a year still
		"notifications/resources/updated": &mcp.ClientRequest[*mcp.ResourceUpdatedNotificationParams]{Params: &mcp.ResourceUpdatedNotificationParams{URI: "hr://people/" + email}},
	} {
		before := show(t, req.GetParams())
		got, _, err := through(t, mcpguard.Config{}, method, req, nil, nil)
		if err != nil {
			t.Errorf("%s: %v", method, err)
			continue
		}
		if text := show(t, got.GetParams()); hasValue(text) || !strings.Contains(text, "EMAIL_ADDRESS") {
			t.Errorf("%s: %s", method, text)
		}
		if show(t, req.GetParams()) != before {
			t.Errorf("%s: the caller's own parameters were changed", method)
		}
	}
}

// A method or a notification that nobody knows is refused.
func TestUnknownMethods(t *testing.T) {
	for method, req := range map[string]mcp.Request{
		"sampling/createMessage":    &mcp.ClientRequest[*mcp.CreateMessageParams]{Params: &mcp.CreateMessageParams{SystemPrompt: ssn}},
		"elicitation/create":        &mcp.ClientRequest[*mcp.ElicitParams]{Params: &mcp.ElicitParams{Message: ssn}},
		"notifications/of/tomorrow": &mcp.ServerRequest[*mcp.ElicitParams]{Params: &mcp.ElicitParams{Message: ssn}},
		"tasks/get":                 &mcp.ServerRequest[*mcp.ElicitParams]{Params: &mcp.ElicitParams{Message: ssn}},
		"tools/call":                &mcp.ServerRequest[*mcp.ElicitParams]{Params: &mcp.ElicitParams{Message: ssn}},
	} {
		if got, _, err := through(t, mcpguard.Config{}, method, req, nil, nil); !errors.Is(err, mcpguard.ErrMethod) || got != nil {
			t.Errorf("%s: %v, %v", method, got, err)
		}
	}
}

// The parts of a result that are no plain text.
func TestOddContents(t *testing.T) {
	utf16 := "\xFF\xFE" + strings.Join(strings.Split(ssn, ""), "\x00")
	result := &mcp.CallToolResult{Content: []mcp.Content{
		&mcp.TextContent{Text: `{"ssn":219099999,"card":4111111111111111}`},
		&mcp.EmbeddedResource{Resource: &mcp.ResourceContents{URI: "hr://a", MIMEType: "text/plain; charset=utf-16", Blob: []byte(utf16)}},
		&mcp.EmbeddedResource{Resource: &mcp.ResourceContents{URI: "hr://a", MIMEType: "application/json", Blob: []byte(`{"ssn":219099999}`)}},
		&mcp.ResourceLink{URI: "hr://people/" + email, Name: email, Title: ssn, Description: ssn},
	}}
	_, back, err := through(t, mcpguard.Config{}, "tools/call", &mcp.ServerRequest[*mcp.CallToolParamsRaw]{Params: &mcp.CallToolParamsRaw{Name: "f"}}, result, nil)
	if err != nil {
		t.Fatal(err)
	}
	contents := back.(*mcp.CallToolResult).Content
	if text := contents[0].(*mcp.TextContent).Text; !json.Valid([]byte(text)) || hasValue(text) {
		t.Errorf("JSON became %s", text)
	}
	if r := contents[1].(*mcp.EmbeddedResource).Resource; r.Blob != nil {
		t.Errorf("UTF-16 became %q", r.Blob)
	}
	if blob := contents[2].(*mcp.EmbeddedResource).Resource.Blob; !json.Valid(blob) || hasValue(string(blob)) {
		t.Errorf("JSON became %s", blob)
	}
	if text := show(t, back); hasValue(text) {
		t.Errorf("%s", text)
	}
}

// An error keeps its code, and has no value in its text or its data.
func TestErrors(t *testing.T) {
	for _, failed := range []error{
		&jsonrpc.Error{Code: -32002, Message: "no row for " + ssn, Data: json.RawMessage(`{"ssn":219099999}`)},
		fmt.Errorf("calling: %w", &jsonrpc.Error{Code: -32002, Message: "not found", Data: json.RawMessage(`{"who":"` + email + `"}`)}),
		fmt.Errorf("for %s: %w", ssn, &jsonrpc.Error{Code: -32002, Message: "not found"}),
	} {
		_, _, err := through(t, mcpguard.Config{}, "resources/read", &mcp.ServerRequest[*mcp.ReadResourceParams]{Params: &mcp.ReadResourceParams{URI: "hr://a"}}, nil, failed)
		var wire *jsonrpc.Error
		if !errors.As(err, &wire) || wire.Code != -32002 || hasValue(err.Error()+wire.Message+string(wire.Data)) {
			t.Errorf("%v became %v, %+v", failed, err, wire)
		}
	}
	if _, _, err := through(t, mcpguard.Config{}, "ping", &mcp.ServerRequest[*mcp.PingParams]{}, nil, context.Canceled); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// A resource that a list names by a pseudonym can be read by it.
func TestPseudonymsInAddresses(t *testing.T) {
	g := newGuard(t)
	conv, err := g.NewConversation(make([]byte, 32), "s")
	if err != nil {
		t.Fatal(err)
	}
	c := mcpguard.Config{Guard: g, Conversation: func(context.Context, mcp.Request) *guard.Conversation { return conv }}
	uri := "hr://people/" + email + "/pay"
	_, back, err := through(t, c, "resources/list", &mcp.ServerRequest[*mcp.ListResourcesParams]{Params: &mcp.ListResourcesParams{}}, &mcp.ListResourcesResult{Resources: []*mcp.Resource{{URI: uri, Name: "pay"}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	shown := back.(*mcp.ListResourcesResult).Resources[0].URI
	if hasValue(shown) {
		t.Fatal(shown)
	}
	for method, req := range map[string]mcp.Request{
		"resources/read":        &mcp.ServerRequest[*mcp.ReadResourceParams]{Params: &mcp.ReadResourceParams{URI: shown}},
		"resources/subscribe":   &mcp.ServerRequest[*mcp.SubscribeParams]{Params: &mcp.SubscribeParams{URI: shown}},
		"resources/unsubscribe": &mcp.ServerRequest[*mcp.UnsubscribeParams]{Params: &mcp.UnsubscribeParams{URI: shown}},
	} {
		if got, _, err := through(t, c, method, req, nil, nil); err != nil || !strings.Contains(show(t, got.GetParams()), uri) {
			t.Errorf("%s: %v, %v", method, got, err)
		}
	}
}
