// Package tamshai holds the estate file of a real deployment: an MCP gateway
// with nine services in containers on one machine. See estate.yaml.
package tamshai

import _ "embed"

// Estate is the estate file.
//
//go:embed estate.yaml
var Estate []byte
