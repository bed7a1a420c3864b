package dbconn

import (
	"context"

	"github.com/tamshai/phoenix/tlsconfig"
)

// Certificate lets tests of time look at how certificates are renewed.
type Certificate struct{ c certificate }

func (c *Certificate) Get(ctx context.Context, issuer tlsconfig.Issuer, user string) (*tlsconfig.Material, error) {
	return c.c.get(ctx, issuer, user)
}

func (c *Certificate) Doubt() { c.c.doubt() }

// AlwaysTrue judges the expression of a policy.
var AlwaysTrue = alwaysTrue

// Unqualified finds a table that a function's text names without its schema.
var Unqualified = unqualified
