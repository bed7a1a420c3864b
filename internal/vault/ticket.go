package vault

import (
	"context"
	"time"

	"github.com/tamshai/phoenix/secrets"
)

// TicketPath is the creation_path of every token that WrapSelf returns, and of
// everything else that anybody wraps: it does not tell whose it is.
const TicketPath = "sys/wrapping/wrap"

// WrapSelf wraps the Client's own token for ttl (whole seconds), and returns
// the wrapping token. Whoever unwraps that first has the Client's token. The
// Client's token lives on, and to revoke it makes the wrapped one worthless.
func (c *Client) WrapSelf(ctx context.Context, ttl time.Duration) (*Wrap, error) {
	return c.WriteWrapped(ctx, TicketPath, map[string]any{"token": c.token}, ttl)
}

// UnwrapToken spends a wrapping token for the token in it that WrapSelf put
// there. It is sent once, as Unwrap is, and has the same errors. Nothing is
// known of the token before LookupSelf has said whose it is.
func (c *Client) UnwrapToken(ctx context.Context, wrapping secrets.Secret) (secrets.Secret, error) {
	const op = "unwrap the token"
	resp, err := c.unwrap(ctx, op, wrapping)
	if err != nil {
		return secrets.Secret{}, err
	}
	value, _ := resp.Data["token"].(string)
	if value == "" {
		return secrets.Secret{}, &Error{Op: op, Path: unwrapPath, Class: ErrWrapInvalid, Sent: true, Detail: "it does not wrap a token"}
	}
	token := secrets.NewString(value)
	c.scrub.Add(token)
	return token, nil
}
