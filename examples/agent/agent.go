// Package agent holds a service that is not Go and runs behind phoenix-agent.
// See README.md.
package agent

import _ "embed"

// Server is the service, for Node.
//
//go:embed node/server.js
var Server []byte
