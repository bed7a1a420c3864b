package tlsgrpc

import (
	"context"
	"errors"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tamshai/phoenix/tlsconfig"
)

// A ClientConfig says how a Client connects.
type ClientConfig struct {
	TLS       tlsconfig.Config     // how strict to be; NextProtos are set
	Identity  tlsconfig.Identity   // who the client is; required
	Authorize tlsconfig.Authorizer // which servers to accept; nil accepts none
	// ServerName is the name to expect in the server's certificate. Empty means
	// the host of the target.
	ServerName string
	// Options are for grpc.NewClient. Transport credentials among them are
	// overridden, and no proxy from the environment is used.
	Options []grpc.DialOption
}

// A Client is a grpc.ClientConnInterface whose new RPCs go over connections of
// the current generation; those under way finish on theirs. It is safe for
// concurrent use.
type Client struct {
	target string
	cfg    ClientConfig
	creds  *Credentials
	stop   chan struct{}
	done   sync.WaitGroup

	mu      sync.Mutex
	current *channel              // nil after Close
	open    map[*channel]struct{} // with those that RPCs are still under way on
}

// A channel is what RPCs of one generation share.
type channel struct {
	*grpc.ClientConn
	material *tlsconfig.Material
	inFlight int // guarded by Client.mu
}

var _ grpc.ClientConnInterface = (*Client)(nil)

// NewClient returns a client of the target, in the syntax of grpc.NewClient. It
// connects when there is something to do. Close it.
func NewClient(target string, cfg ClientConfig) (*Client, error) {
	if cfg.Identity == nil {
		return nil, errors.New("tlsgrpc: ClientConfig.Identity is nil; give the client's identity")
	}
	c := &Client{target: target, cfg: cfg, stop: make(chan struct{}), open: map[*channel]struct{}{}}
	c.creds = ClientCredentials(cfg.TLS, cfg.Identity, cfg.ServerName, cfg.Authorize)
	if err := c.renew(); err != nil {
		c.creds.Close()
		return nil, err
	}
	material := c.current.material
	c.done.Go(func() { c.follow(material) })
	return c, nil
}

// Invoke implements grpc.ClientConnInterface.
func (c *Client) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	via, err := c.enter()
	if err != nil {
		return err
	}
	defer c.leave(via)
	return via.Invoke(ctx, method, args, reply, opts...)
}

// NewStream implements grpc.ClientConnInterface.
func (c *Client) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	via, err := c.enter()
	if err != nil {
		return nil, err
	}
	leave := sync.OnceFunc(func() { c.leave(via) })
	stream, err := via.NewStream(ctx, desc, method, append(opts[:len(opts):len(opts)], grpc.OnFinish(func(error) { leave() }))...)
	if err != nil {
		leave()
	}
	return stream, err
}

// Old counts the open connections of generations before the current one.
func (c *Client) Old() int { return c.creds.Old() }

// Close ends the RPCs under way, closes the connections, and waits for both.
func (c *Client) Close() error {
	c.mu.Lock()
	if c.current == nil {
		c.mu.Unlock()
		return nil
	}
	c.current = nil
	close(c.stop)
	for via := range c.open {
		c.shut(via)
	}
	c.mu.Unlock()
	c.done.Wait()
	c.creds.Close()
	return nil
}

// follow retires a generation on which no RPC begins any more.
func (c *Client) follow(material *tlsconfig.Material) {
	for {
		select {
		case <-c.stop:
			return
		case <-material.Replaced():
		}
		material = c.cfg.Identity.Current()
		c.mu.Lock()
		if c.current != nil {
			_ = c.renew() // it made the first, and the next RPC will try again
		}
		c.mu.Unlock()
	}
}

// enter returns the channel for a new RPC.
func (c *Client) enter() (*channel, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current == nil {
		return nil, status.Error(codes.Canceled, "tlsgrpc: the client is closed")
	}
	if err := c.renew(); err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	c.current.inFlight++
	return c.current, nil
}

func (c *Client) leave(via *channel) {
	c.mu.Lock()
	defer c.mu.Unlock()
	via.inFlight--
	c.tidy(via)
}

// renew makes the current channel one of the current generation. It, tidy and
// shut are called with mu held, but for the first time.
func (c *Client) renew() error {
	m := c.cfg.Identity.Current()
	before := c.current
	if before != nil && before.material == m {
		return nil
	}
	conn, err := grpc.NewClient(c.target, append(c.cfg.Options[:len(c.cfg.Options):len(c.cfg.Options)],
		grpc.WithTransportCredentials(c.creds), grpc.WithNoProxy())...)
	if err != nil {
		return err
	}
	c.current = &channel{ClientConn: conn, material: m}
	c.open[c.current] = struct{}{}
	if before != nil {
		c.tidy(before)
	}
	return nil
}

// tidy closes a retired channel once its last RPC is over.
func (c *Client) tidy(via *channel) {
	if _, open := c.open[via]; open && via != c.current && via.inFlight == 0 {
		c.shut(via)
	}
}

// shut closes a channel. It says goodbye to the server, which may take seconds.
func (c *Client) shut(via *channel) {
	delete(c.open, via)
	c.done.Go(func() { _ = via.ClientConn.Close() })
}
