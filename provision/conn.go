package provision

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tamshai/phoenix/internal/vault"
)

// conn sends requests, repeats what may pass, and counts.
type conn struct {
	client        *vault.Client
	patience      time.Duration
	reads, writes atomic.Int64
}

func (c *conn) try(ctx context.Context, what string, send func(context.Context) error) error {
	if c.patience < 0 {
		return send(ctx)
	}
	bounded, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	err := c.client.Retry(bounded, what, send)
	// That patience has run out says less than why it was needed.
	var last *vault.Error
	if bounded.Err() != nil && ctx.Err() == nil && errors.As(err, &last) {
		return fmt.Errorf("%w (after %s)", last, c.patience)
	}
	return err
}

// read returns the data at a path, nil if there is nothing.
func (c *conn) read(ctx context.Context, path string, query url.Values) (map[string]any, error) {
	var data map[string]any
	err := c.try(ctx, path, func(ctx context.Context) error {
		c.reads.Add(1)
		resp, err := c.client.Read(ctx, path, query)
		if err == nil && resp != nil {
			data = resp.Data
		}
		return gone(err)
	})
	if errors.Is(err, vault.ErrNotFound) {
		return nil, nil
	}
	return data, err
}

func (c *conn) list(ctx context.Context, path string) ([]string, error) {
	var keys []string
	err := c.try(ctx, path, func(ctx context.Context) (err error) {
		c.reads.Add(1)
		keys, err = c.client.List(ctx, path)
		return err
	})
	return keys, err
}

// ask sends a request that is a write in form only.
func (c *conn) ask(ctx context.Context, path string, body map[string]any) (map[string]any, error) {
	var data map[string]any
	err := c.try(ctx, path, func(ctx context.Context) error {
		c.reads.Add(1)
		resp, err := c.client.Write(ctx, path, body)
		if err == nil && resp != nil {
			data = resp.Data
		}
		return err
	})
	return data, err
}

// send is a write whose answer counts.
func (c *conn) send(ctx context.Context, path string, body map[string]any) (map[string]any, error) {
	var data map[string]any
	err := c.try(ctx, path, func(ctx context.Context) error {
		c.writes.Add(1)
		resp, err := c.client.Write(ctx, path, body)
		if err == nil && resp != nil {
			data = resp.Data
		}
		return err
	})
	return data, err
}

// write may be repeated: what is written is the same each time, or protected
// by a version number.
func (c *conn) write(ctx context.Context, path string, body map[string]any) error {
	return c.try(ctx, path, func(ctx context.Context) error {
		c.writes.Add(1)
		_, err := c.client.Write(ctx, path, body)
		return settling(err)
	})
}

func (c *conn) remove(ctx context.Context, path string) error {
	return c.try(ctx, path, func(ctx context.Context) error {
		c.writes.Add(1)
		return c.client.Delete(ctx, path)
	})
}

// gone turns the answer for a PKI issuer that somebody has just deleted into
// what it means: Vault calls it an internal error.
func gone(err error) error {
	var e *vault.Error
	if errors.As(err, &e) && strings.Contains(e.Detail, "unable to find PKI issuer") {
		missing := *e
		missing.Class = vault.ErrNotFound
		return &missing
	}
	return err
}

// settling turns the answer of a KV mount that is being made into one that
// passes: for a moment Vault calls it an upgrade.
func settling(err error) error {
	var e *vault.Error
	if errors.As(err, &e) && strings.Contains(e.Detail, "Upgrading from non-versioned") {
		passing := *e
		passing.Class = vault.ErrStandby
		return &passing
	}
	return err
}
