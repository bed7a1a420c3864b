// Command phoenix-agent gives a program in any language what package bootstrap
// gives to Go services: a session from a one-use SecretID, secrets that stay
// fresh, in variables and in files on tmpfs, and a supervisor.
//
//	phoenix-agent exec -service mcp-hr -env API_KEY=tamshai/mcp-hr#api_key -- node server.js
//	phoenix-agent check -listen unix:/run/phoenix/agent.sock
package main

import (
	"os"

	"github.com/tamshai/phoenix/internal/agent"
)

func main() { os.Exit(agent.Main(os.Args, os.Stdout, os.Stderr)) }
