package main

import (
	"context"
	"fmt"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/tamshai/phoenix/tlsconfig"
	"github.com/tamshai/phoenix/tlsconfig/tlsmcp"
)

type person struct {
	Name string `json:"name" jsonschema:"the employee's name"`
}

func said(text string) (*mcp.CallToolResult, any, error) {
	return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: text}}}, nil, nil
}

// mcp-hr knows people.
var hr = service{
	name: "mcp-hr", callers: []string{"mcp-gateway"},
	tools: func(server *mcp.Server, _ caller) map[string]tlsconfig.Authorizer {
		mcp.AddTool(server, &mcp.Tool{Name: "find_employee", Description: "Finds an employee's number."},
			func(_ context.Context, _ *mcp.CallToolRequest, p person) (*mcp.CallToolResult, any, error) {
				return said(fmt.Sprintf("E-%d", 1000+len(p.Name)))
			})
		return map[string]tlsconfig.Authorizer{"find_employee": tlsconfig.AllowDNS("mcp-gateway")}
	},
}

// mcp-finance knows salaries. It lets mcp-hr connect, for the number of posts,
// and tells salaries to the gateway alone.
var finance = service{
	name: "mcp-finance", callers: []string{"mcp-gateway", "mcp-hr"},
	tools: func(server *mcp.Server, _ caller) map[string]tlsconfig.Authorizer {
		mcp.AddTool(server, &mcp.Tool{Name: "salary", Description: "Tells an employee's salary."},
			func(_ context.Context, r *mcp.CallToolRequest, p person) (*mcp.CallToolResult, any, error) {
				peer, _ := tlsmcp.Peer(r)
				return said(fmt.Sprintf("%s earns %d, as %s may know", p.Name, 40_000+1000*len(p.Name), peer))
			})
		mcp.AddTool(server, &mcp.Tool{Name: "posts", Description: "Counts the posts."},
			func(context.Context, *mcp.CallToolRequest, struct{}) (*mcp.CallToolResult, any, error) {
				return said("63")
			})
		return map[string]tlsconfig.Authorizer{
			"salary": tlsconfig.AllowDNS("mcp-gateway"),
			"posts":  tlsconfig.AllowDNS("mcp-gateway", "mcp-hr"),
		}
	},
}

// mcp-gateway is what the user interface talks to, in sessions.
var gateway = service{
	name: "mcp-gateway", callers: []string{"mcp-ui", "mcp-finance"}, sessions: true,
	tools: func(server *mcp.Server, call caller) map[string]tlsconfig.Authorizer {
		mcp.AddTool(server, &mcp.Tool{Name: "payslip", Description: "Puts together a payslip."},
			func(ctx context.Context, _ *mcp.CallToolRequest, p person) (*mcp.CallToolResult, any, error) {
				number, err := call(ctx, "mcp-hr", "find_employee", p)
				if err != nil {
					return nil, nil, err
				}
				salary, err := call(ctx, "mcp-finance", "salary", p)
				if err != nil {
					return nil, nil, err
				}
				return said(number + ": " + salary)
			})
		return map[string]tlsconfig.Authorizer{"payslip": tlsconfig.AllowDNS("mcp-ui")}
	},
}
