package tlsmcp

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/tlsconfig"
)

// Rules say which peer may do what on an MCP server. What they do not mention,
// nobody may. Only the protocol's own exchanges (initialize, ping, discovery,
// notifications and the list of the tools that the peer may call) need no rule.
type Rules struct {
	// Tools says who may call each tool, and sees it in the list.
	Tools map[string]tlsconfig.Authorizer
	// Other says who may do anything else: resources, prompts, completion,
	// log levels, subscriptions. Nil means nobody.
	Other tlsconfig.Authorizer

	Audit  auditlog.Recorder // refused calls; nil: not recorded
	Logger *slog.Logger      // nil discards
}

// codeForbidden is in the range that JSON-RPC 2.0 (section 5.1) leaves to
// servers.
const codeForbidden = -32003

// maxName bounds the tool's name in records, in bytes.
const maxName = 128

// Middleware returns the rules for mcp.Server.AddReceivingMiddleware. A refused
// call of a tool is answered with a result that is an error, for the model to
// read, anything else with a JSON-RPC error.
func (rules Rules) Middleware() mcp.Middleware {
	log := rules.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return func(next mcp.MethodHandler) mcp.MethodHandler {
		return func(ctx context.Context, method string, r mcp.Request) (mcp.Result, error) {
			switch {
			case method == "initialize", method == "ping", method == "server/discover", strings.HasPrefix(method, "notifications/"):
				return next(ctx, method, r)
			case method == "tools/list":
				result, err := next(ctx, method, r)
				if list, ok := result.(*mcp.ListToolsResult); ok {
					return rules.visible(r, list), err
				}
				return result, err
			case method == "tools/call":
				params, ok := r.GetParams().(*mcp.CallToolParamsRaw)
				if !ok {
					return nil, &jsonrpc.Error{Code: codeForbidden, Message: fmt.Sprintf("a call with parameters of %T", r.GetParams())}
				}
				err := rules.judge(r, rules.Tools[params.Name])
				if err == nil {
					return next(ctx, method, r)
				}
				rules.refused(ctx, log, method, params.Name, r, err)
				return &mcp.CallToolResult{IsError: true, Content: []mcp.Content{
					&mcp.TextContent{Text: fmt.Sprintf("the calling service may not use the tool %q", params.Name[:min(len(params.Name), maxName)])},
				}}, nil
			}
			err := rules.judge(r, rules.Other)
			if err == nil {
				return next(ctx, method, r)
			}
			rules.refused(ctx, log, method, "", r, err)
			return nil, &jsonrpc.Error{Code: codeForbidden, Message: fmt.Sprintf("the calling service may not use %s", method)}
		}
	}
}

// judge asks the authorizer about the peer of this request.
func (rules Rules) judge(r mcp.Request, allow tlsconfig.Authorizer) error {
	peer, ok := Peer(r)
	if !ok {
		return fmt.Errorf("no peer is known for the request; wrap the handler in tlsmcp.Bind")
	}
	return tlsconfig.All(allow)(&peer)
}

// visible returns the list without the tools that the peer may not call.
func (rules Rules) visible(r mcp.Request, list *mcp.ListToolsResult) *mcp.ListToolsResult {
	out := *list
	out.CacheScope = "private" // it is for this peer alone
	out.Tools = []*mcp.Tool{}
	for _, tool := range list.Tools {
		if rules.judge(r, rules.Tools[tool.Name]) == nil {
			out.Tools = append(out.Tools, tool)
		}
	}
	return &out
}

func (rules Rules) refused(ctx context.Context, log *slog.Logger, method, tool string, r mcp.Request, why error) {
	peer, _ := Peer(r)
	tool = tool[:min(len(tool), maxName)] // the peer chose it
	log.Warn("refused an MCP request", "method", method, "tool", tool, "peer", peer.String(), "error", why)
	if rules.Audit == nil {
		return
	}
	event := auditlog.Event{
		Severity: auditlog.Warning, Category: auditlog.Authorization, Action: "mcp." + method, Resource: tool, Outcome: auditlog.Blocked,
		Actor: auditlog.Actor{Peer: peer.String()}, Attributes: map[string]string{"reason": why.Error()},
	}
	// Hanging up must not keep a refusal out of the log.
	if err := rules.Audit.Append(context.WithoutCancel(ctx), event); err != nil {
		log.Error("a refusal could not be recorded", "error", err) // it stays refused
	}
}
