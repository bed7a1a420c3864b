package mcpguard_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/guard"
	"github.com/tamshai/phoenix/guard/mcpguard"
	"github.com/tamshai/phoenix/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

const (
	ssn   = "219-09-9999"
	email = "anna.kowalska@example.com"
	iban  = "DE89 3704 0044 0532 0130 00"
)

type journal struct {
	mu     sync.Mutex
	events []auditlog.Event
	err    error
}

func (j *journal) Append(ctx context.Context, e auditlog.Event) error {
	if ctx.Err() != nil { // as an audit log does
		return ctx.Err()
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	e.Attributes = maps.Clone(e.Attributes)
	j.events = append(j.events, e)
	return j.err
}

func newGuard(t testing.TB) *guard.Guard {
	t.Helper()
	g, err := guard.New(guard.Policy{Default: guard.Pseudonymise, Actions: map[string]guard.Action{"IBAN_CODE": guard.Block}})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

type pay struct {
	SSN    string `json:"ssn"`
	Card   int64  `json:"card_number"`
	Remark string `json:"remark"`
}

// connect returns a client of a service with personal data. Guards, where they
// are not nil, sit on the client's and the server's side. What the tool got is
// written to got.
func connect(t testing.TB, client, server mcp.Middleware, got *string) *mcp.ClientSession {
	t.Helper()
	s := mcp.NewServer(&mcp.Implementation{Name: "mcp-hr", Version: "1"}, nil)
	s.AddTool(&mcp.Tool{Name: "get_pay", InputSchema: json.RawMessage(`{"type":"object"}`)}, func(_ context.Context, r *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		*got = string(r.Params.Arguments)
		if strings.Contains(*got, "bank") {
			return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: "Pay to " + iban}}}, nil
		}
		if strings.Contains(*got, "fail") {
			return nil, errors.New("no row for " + ssn)
		}
		return &mcp.CallToolResult{
			StructuredContent: pay{ssn, 4111111111111111, "mail " + email},
			Content: []mcp.Content{
				&mcp.TextContent{Text: "SSN " + ssn},
				&mcp.EmbeddedResource{Resource: &mcp.ResourceContents{URI: "https://hr.example/notes.txt", MIMEType: "text/plain", Blob: []byte("mail " + email)}},
				&mcp.ResourceLink{URI: "https://hr.example/doc", Name: "doc", Description: "of " + email},
				&mcp.ImageContent{MIMEType: "image/png", Data: []byte("scan")},
			},
		}, nil
	})
	s.AddResource(&mcp.Resource{URI: "hr://anna", Name: "anna"}, func(context.Context, *mcp.ReadResourceRequest) (*mcp.ReadResourceResult, error) {
		return &mcp.ReadResourceResult{Contents: []*mcp.ResourceContents{{URI: "hr://anna", MIMEType: "text/plain", Text: "SSN " + ssn}, {URI: "hr://anna", MIMEType: "application/pdf", Blob: []byte("pdf")}}}, nil
	})
	s.AddPrompt(&mcp.Prompt{Name: "greet"}, func(_ context.Context, r *mcp.GetPromptRequest) (*mcp.GetPromptResult, error) {
		*got = fmt.Sprint(r.Params.Arguments)
		return &mcp.GetPromptResult{Description: "for " + email, Messages: []*mcp.PromptMessage{{Role: "user", Content: &mcp.TextContent{Text: "Greet " + email}}}}, nil
	})
	c := mcp.NewClient(&mcp.Implementation{Name: "gateway", Version: "1"}, nil)
	if server != nil {
		s.AddReceivingMiddleware(server)
	}
	if client != nil {
		c.AddSendingMiddleware(client)
	}
	a, b := mcp.NewInMemoryTransports()
	ss, err := s.Connect(t.Context(), a, nil)
	if err != nil {
		t.Fatal(err)
	}
	cs, err := c.Connect(t.Context(), b, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cs.Close(); _ = ss.Wait() })
	return cs
}

func show(t testing.TB, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func ExampleMiddleware() {
	g, err := guard.New(guard.Policy{})
	if err != nil {
		fmt.Println(err)
		return
	}
	guarded, err := mcpguard.Middleware(mcpguard.Config{Guard: g})
	if err != nil {
		fmt.Println(err)
		return
	}
	handler := guarded(func(context.Context, string, mcp.Request) (mcp.Result, error) {
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: "SSN 219-09-9999"}}}, nil
	})
	result, err := handler(context.Background(), "tools/call", &mcp.CallToolRequest{Params: &mcp.CallToolParamsRaw{Name: "get_pay"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(result.(*mcp.CallToolResult).Content[0].(*mcp.TextContent).Text)
	// Output: SSN <US_SSN>
}

// On either side, nothing of a value comes through in any part of a result.
func TestResults(t *testing.T) {
	for _, side := range []string{"client", "server"} {
		t.Run(side, func(t *testing.T) {
			guarded, err := mcpguard.Middleware(mcpguard.Config{Guard: newGuard(t)})
			if err != nil {
				t.Fatal(err)
			}
			var got string
			var cs *mcp.ClientSession
			if side == "client" {
				cs = connect(t, guarded, nil, &got)
			} else {
				cs = connect(t, nil, guarded, &got)
			}
			args := map[string]any{"who": "SSN " + ssn}
			call, err := cs.CallTool(t.Context(), &mcp.CallToolParams{Name: "get_pay", Arguments: args})
			if err != nil {
				t.Fatal(err)
			}
			resource, err := cs.ReadResource(t.Context(), &mcp.ReadResourceParams{URI: "hr://anna"})
			if err != nil {
				t.Fatal(err)
			}
			prompt, err := cs.GetPrompt(t.Context(), &mcp.GetPromptParams{Name: "greet", Arguments: map[string]string{"who": email}})
			if err != nil {
				t.Fatal(err)
			}
			all := show(t, call) + show(t, resource) + show(t, prompt) + got
			for _, value := range []string{ssn, email, "4111111111111111", "c2Nhbg==", "cGRm", "bWFpbCBhbm5h"} {
				if strings.Contains(all, value) {
					t.Errorf("%s came through: %s", value, all)
				}
			}
			if len(call.Content) != 4 || !strings.Contains(show(t, call), "US_SSN") || !strings.Contains(show(t, call), "https://hr.example/doc") || !strings.Contains(show(t, call.StructuredContent), "CREDIT_CARD") {
				t.Errorf("%s", show(t, call))
			}
			if args["who"] != "SSN "+ssn {
				t.Errorf("the caller's arguments were changed: %v", args)
			}
			if tools, err := cs.ListTools(t.Context(), nil); err != nil || len(tools.Tools) != 1 {
				t.Errorf("%v, %v", tools, err)
			}
			_, err = cs.CallTool(t.Context(), &mcp.CallToolParams{Name: "get_pay", Arguments: map[string]any{"x": "fail"}})
			if err == nil || strings.Contains(err.Error(), ssn) {
				t.Errorf("an error: %v", err)
			}
		})
	}
}

// In a conversation a model sees pseudonyms, and its tools the values.
func TestConversation(t *testing.T) {
	g := newGuard(t)
	conv, err := g.NewConversation(make([]byte, 32), "s")
	if err != nil {
		t.Fatal(err)
	}
	guarded, err := mcpguard.Middleware(mcpguard.Config{Guard: g, Conversation: func(context.Context, mcp.Request) *guard.Conversation { return conv }})
	if err != nil {
		t.Fatal(err)
	}
	var got string
	cs := connect(t, guarded, nil, &got)
	call, err := cs.CallTool(t.Context(), &mcp.CallToolParams{Name: "get_pay", Arguments: map[string]any{}})
	if err != nil {
		t.Fatal(err)
	}
	text := call.Content[0].(*mcp.TextContent).Text
	if strings.Contains(text, ssn) || !strings.HasPrefix(text, "SSN <US_SSN_") {
		t.Fatalf("%q", text)
	}
	if _, err := cs.CallTool(t.Context(), &mcp.CallToolParams{Name: "get_pay", Arguments: map[string]any{"ssn": text, "forged": "<US_SSN_bcdfghjklmnpqrst>"}}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(got, `"SSN `+ssn+`"`) || !strings.Contains(got, "US_SSN_bcdfghjklmnpqrst") {
		t.Errorf("the tool got %s", got)
	}
	if _, err := cs.GetPrompt(t.Context(), &mcp.GetPromptParams{Name: "greet", Arguments: map[string]string{"who": text}}); err != nil || !strings.Contains(got, ssn) {
		t.Errorf("the prompt got %s, %v", got, err)
	}
}

// What the policy blocks is an error that the model can read, and is recorded
// with its label alone.
func TestBlocked(t *testing.T) {
	j := &journal{}
	guarded, err := mcpguard.Middleware(mcpguard.Config{Guard: newGuard(t), Audit: j, Service: "gateway"})
	if err != nil {
		t.Fatal(err)
	}
	var got string
	cs := connect(t, guarded, nil, &got)
	for _, args := range []map[string]any{{"to": iban}, {"x": "bank"}} {
		got = ""
		call, err := cs.CallTool(t.Context(), &mcp.CallToolParams{Name: "get_pay", Arguments: args})
		if err != nil || !call.IsError || !strings.Contains(show(t, call), "IBAN_CODE") || strings.Contains(show(t, call), "3704") {
			t.Errorf("%v: %s, %v", args, show(t, call), err)
		}
		if strings.Contains(got, "3704") {
			t.Errorf("the tool got %s", got)
		}
	}
	if len(j.events) != 2 {
		t.Fatalf("%+v", j.events)
	}
	for _, e := range j.events {
		if e.Outcome != auditlog.Blocked || e.Action != "guard.tools/call" || e.Resource != "get_pay" || e.Attributes["IBAN_CODE"] != "1" || strings.Contains(fmt.Sprintf("%+v", e), "3704") {
			t.Errorf("%+v", e)
		}
	}
	j.err = errors.New("the disk is full")
	if _, err := cs.CallTool(t.Context(), &mcp.CallToolParams{Name: "get_pay", Arguments: map[string]any{"who": ssn}}); err == nil || !strings.Contains(err.Error(), "cannot be recorded") {
		t.Errorf("unrecorded: %v", err)
	}
}

// Who hangs up while the tool runs has sent what was found nevertheless.
func TestAuditOfHungUpCall(t *testing.T) {
	j := &journal{}
	guarded, err := mcpguard.Middleware(mcpguard.Config{Guard: newGuard(t), Audit: j})
	if err != nil {
		t.Fatal(err)
	}
	ctx, hangUp := context.WithCancel(t.Context())
	handler := guarded(func(ctx context.Context, _ string, _ mcp.Request) (mcp.Result, error) {
		hangUp()
		return nil, ctx.Err()
	})
	_, err = handler(ctx, "tools/call", &mcp.ServerRequest[*mcp.CallToolParamsRaw]{Params: &mcp.CallToolParamsRaw{Name: "get_pay", Arguments: []byte(`{"who":"` + ssn + `"}`)}})
	if err == nil || len(j.events) != 1 || j.events[0].Attributes["US_SSN"] != "1" {
		t.Errorf("%+v, %v", j.events, err)
	}
}

// A method whose contents are not known is refused; one without is not.
func TestMethods(t *testing.T) {
	guarded, err := mcpguard.Middleware(mcpguard.Config{Guard: newGuard(t)})
	if err != nil {
		t.Fatal(err)
	}
	called := false
	handler := guarded(func(context.Context, string, mcp.Request) (mcp.Result, error) { called = true; return nil, nil })
	_, err = handler(t.Context(), "sampling/createMessage", &mcp.ClientRequest[*mcp.CreateMessageParams]{Params: &mcp.CreateMessageParams{SystemPrompt: ssn}})
	if !errors.Is(err, mcpguard.ErrMethod) || called {
		t.Errorf("sampling: %v", err)
	}
	if _, err = handler(t.Context(), "ping", &mcp.ServerRequest[*mcp.PingParams]{Params: &mcp.PingParams{}}); err != nil || !called {
		t.Errorf("ping: %v", err)
	}
	if _, err := mcpguard.Middleware(mcpguard.Config{}); err == nil {
		t.Error("no Guard is no error")
	}
}

// Media go through only if they are allowed.
func TestMedia(t *testing.T) {
	guarded, err := mcpguard.Middleware(mcpguard.Config{Guard: newGuard(t), AllowMedia: true})
	if err != nil {
		t.Fatal(err)
	}
	var got string
	cs := connect(t, guarded, nil, &got)
	call, err := cs.CallTool(t.Context(), &mcp.CallToolParams{Name: "get_pay", Arguments: map[string]any{}})
	if err != nil || !strings.Contains(show(t, call), "c2Nhbg==") {
		t.Errorf("%s, %v", show(t, call), err)
	}
}
