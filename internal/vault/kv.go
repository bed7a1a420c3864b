package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/tamshai/phoenix/secrets"
)

// ReadKV reads the newest version of the KV v2 secret at mount/path. Errors:
// secrets.ErrNotFound, secrets.ErrDeleted, secrets.ErrNotKV2, or an *Error.
func (c *Client) ReadKV(ctx context.Context, mount, path string) (secrets.Data, error) {
	full := mount + "/data/" + path
	resp, err := c.Read(ctx, full, nil)
	switch {
	case errors.Is(err, ErrNotFound):
		if c.mountVersion(ctx, mount, path) == 1 {
			return secrets.Data{}, fmt.Errorf("%w: %s is version 1; upgrade it: vault kv enable-versioning %s", secrets.ErrNotKV2, mount, mount)
		}
		return secrets.Data{}, secrets.ErrNotFound
	case err != nil:
		return secrets.Data{}, err
	case resp == nil:
		return secrets.Data{}, secrets.ErrNotFound
	}
	meta, ok := resp.Data["metadata"].(map[string]any)
	if !ok {
		return secrets.Data{}, fmt.Errorf("%w: %s answers without metadata", secrets.ErrNotKV2, mount)
	}
	fields, ok := resp.Data["data"].(map[string]any)
	if !ok {
		return secrets.Data{}, fmt.Errorf("%w: version %d", secrets.ErrDeleted, number(meta["version"]))
	}
	data := secrets.Data{Version: int(number(meta["version"])), Fields: make(map[string]secrets.Value, len(fields))}
	for name, v := range fields {
		value := valueOf(v)
		data.Fields[name] = value
		if value.Kind == secrets.Text {
			c.scrub.Add(value.Secret)
		}
	}
	return data, nil
}

func valueOf(v any) secrets.Value {
	switch v := v.(type) {
	case string:
		return secrets.Value{Kind: secrets.Text, Secret: secrets.NewString(v)}
	case json.Number:
		return secrets.Value{Kind: secrets.Number, Secret: secrets.NewString(v.String())}
	case bool:
		return secrets.Value{Kind: secrets.Bool, Secret: secrets.NewString(strconv.FormatBool(v))}
	case nil:
		return secrets.Value{Kind: secrets.Null}
	default:
		return secrets.Value{Kind: secrets.Composite}
	}
}

// KVVersion returns the number of the newest version of a KV v2 secret, from
// its metadata.
func (c *Client) KVVersion(ctx context.Context, mount, path string) (int, error) {
	resp, err := c.Read(ctx, mount+"/metadata/"+path, nil)
	if errors.Is(err, ErrNotFound) || (err == nil && resp == nil) {
		return 0, secrets.ErrNotFound
	}
	if errors.Is(err, ErrDenied) {
		return 0, fmt.Errorf("%w: %w", secrets.ErrNoMetadata, err)
	}
	if err != nil {
		return 0, err
	}
	return int(number(resp.Data["current_version"])), nil
}

// mountVersion asks for the version of a KV mount; 0 if it is none, or not
// to be found out.
func (c *Client) mountVersion(ctx context.Context, mount, path string) int {
	resp, err := c.Read(ctx, "sys/internal/ui/mounts/"+mount+"/"+path, nil)
	if err != nil || resp == nil {
		return 0
	}
	if kind, _ := resp.Data["type"].(string); kind != "kv" && kind != "generic" {
		return 0
	}
	options, _ := resp.Data["options"].(map[string]any)
	if version, _ := options["version"].(string); version == "2" {
		return 2
	}
	return 1
}

// ReadLease obtains new dynamic credentials: "database/creds/mcp-hr". A
// request whose answer was lost may have made credentials that nobody holds;
// Vault takes them back at the end of their TTL.
//
// The credentials of a static role, "database/static-creds/app", are a lease
// without an ID: nobody can renew or revoke it, and it lives until Vault changes
// the password next.
func (c *Client) ReadLease(ctx context.Context, ref string) (*secrets.Lease, Grant, error) {
	const op = "obtain a lease"
	resp, err := c.Read(ctx, ref, nil)
	if err == nil && resp == nil {
		err = &Error{Op: op, Path: ref, Class: ErrNotFound, Sent: true}
	}
	if err != nil {
		return nil, Grant{}, err
	}
	grant := Grant{TTL: resp.LeaseDuration, Renewable: resp.Renewable}
	if _, static := resp.Data["last_vault_rotation"]; static && resp.LeaseID == "" {
		grant = Grant{TTL: time.Duration(number(resp.Data["ttl"])) * time.Second}
	} else if resp.LeaseID == "" {
		return nil, Grant{}, &Error{Op: op, Path: ref, Class: ErrInvalid, Sent: true, Detail: "this path gives no lease"}
	}
	fields := make(map[string]secrets.Secret, len(resp.Data))
	for name, v := range resp.Data {
		value := valueOf(v)
		fields[name] = value.Secret
		if name == "password" || resp.LeaseID != "" && name != "username" {
			c.scrub.Add(fields[name])
		}
	}
	return secrets.NewLease(ref, resp.LeaseID, fields, time.Now(), grant.TTL), grant, nil
}

// RenewLease renews a lease. It waits its turn as RenewSelf does.
func (c *Client) RenewLease(ctx context.Context, id string) (Grant, error) {
	const op, path = "renew a lease", "sys/leases/renew"
	if err := c.renewals.wait(ctx); err != nil {
		return Grant{}, err
	}
	resp, err := c.write(ctx, op, path, map[string]any{"lease_id": id})
	if err != nil {
		return Grant{}, err
	}
	if resp == nil {
		return Grant{}, &Error{Op: op, Path: path, Class: ErrServer, Sent: true, Detail: "empty answer"}
	}
	return Grant{TTL: resp.LeaseDuration, Renewable: resp.Renewable}, nil
}

// RevokeLease gives a lease back. It uses the path form of the request, which
// a policy on that lease's prefix allows; the other form needs authority over
// every lease there is. A lease that is gone is no error.
func (c *Client) RevokeLease(ctx context.Context, id string) error {
	_, err := c.write(ctx, "revoke a lease", "sys/leases/revoke/"+id, nil)
	return err
}
