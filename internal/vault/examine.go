package vault

import (
	"context"
	"time"
)

// Capabilities asks what the Client's token may do at each path: "read",
// "root", or "deny" alone.
func (c *Client) Capabilities(ctx context.Context, paths ...string) (map[string][]string, error) {
	const op, path = "ask for capabilities", "sys/capabilities-self"
	resp, err := c.write(ctx, op, path, map[string]any{"paths": paths})
	if err != nil {
		return nil, err
	}
	if resp == nil {
		return nil, &Error{Op: op, Path: path, Class: ErrServer, Sent: true, Detail: "empty answer"}
	}
	may := make(map[string][]string, len(paths))
	for _, path := range paths {
		may[path] = texts(resp.Data[path])
	}
	return may, nil
}

// A TokenRecord is what Vault keeps of a token, without the token.
type TokenRecord struct {
	Accessor       string
	DisplayName    string
	Type           string // "service" or "batch"
	Policies       []string
	TTL            time.Duration // 0 with Endless
	Endless        bool          // it never expires
	Period         time.Duration // 0: not periodic
	ExplicitMaxTTL time.Duration // 0: none
	Uses           int           // 0: without bound
	Renewable      bool
	BoundCIDRs     []string // empty: any address
}

// RecordSelf returns the record of the Client's own token.
func (c *Client) RecordSelf(ctx context.Context) (*TokenRecord, error) {
	const path = "auth/token/lookup-self"
	resp, err := c.Read(ctx, path, nil)
	return tokenRecord(path, resp, err)
}

// RecordOf returns the record of the token with this accessor. An accessor
// without a token is ErrNotFound or ErrInvalid.
func (c *Client) RecordOf(ctx context.Context, accessor string) (*TokenRecord, error) {
	const path = "auth/token/lookup-accessor"
	resp, err := c.write(ctx, "look up a token", path, map[string]any{"accessor": accessor})
	return tokenRecord(path, resp, err)
}

func tokenRecord(path string, resp *Response, err error) (*TokenRecord, error) {
	if err != nil {
		return nil, err
	}
	if resp == nil {
		return nil, &Error{Op: "look up a token", Path: path, Class: ErrServer, Sent: true, Detail: "empty answer"}
	}
	seconds := func(name string) time.Duration { return number(resp.Data[name]) * time.Second }
	r := &TokenRecord{
		Policies: texts(resp.Data["policies"]), BoundCIDRs: texts(resp.Data["bound_cidrs"]),
		TTL: seconds("ttl"), Endless: resp.Data["expire_time"] == nil,
		Period: seconds("period"), ExplicitMaxTTL: seconds("explicit_max_ttl"), Uses: int(number(resp.Data["num_uses"])),
	}
	r.Accessor, _ = resp.Data["accessor"].(string)
	r.DisplayName, _ = resp.Data["display_name"].(string)
	r.Type, _ = resp.Data["type"].(string)
	r.Renewable, _ = resp.Data["renewable"].(bool)
	return r, nil
}

// texts reads a list of strings; what is none is skipped.
func texts(v any) []string {
	list, _ := v.([]any)
	var out []string
	for _, item := range list {
		if text, ok := item.(string); ok {
			out = append(out, text)
		}
	}
	return out
}
