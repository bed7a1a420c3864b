package sidecar

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ErrConfig is what is wrong with a Config.
var ErrConfig = errors.New("the sidecar's configuration")

func wrong(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrConfig}, args...)...)
}

// A Config says what to listen for. Its zero value listens nowhere.
//
// A place is "HOST:PORT" or ":PORT". Where only the program may come or be, it
// is on the loopback interface, or "unix:/PATH".
type Config struct {
	Serve []Inbound `yaml:"serve"`
	Call  []Call    `yaml:"call"`
	// Proxy is where a forward proxy takes requests for the hosts in Call, as
	// programs send them that are told of HTTP_PROXY. Loopback; "" means none.
	Proxy  string   `yaml:"proxy"`
	Tunnel []Tunnel `yaml:"tunnel"`
	// UIDs are users besides the agent's own whose processes may use the ports
	// of Call, Proxy and Tunnel: of a program that changes its user.
	UIDs  []uint32 `yaml:"uids"`
	Users Users    `yaml:"users"`
}

// Configured reports whether there is anything to do.
func (c *Config) Configured() bool {
	return len(c.Serve)+len(c.Call)+len(c.Tunnel) > 0 || c.Proxy != "" || c.Users.configured()
}

// An Inbound is a port for other services, in front of one of the program's.
type Inbound struct {
	At string `yaml:"at"` // where others come: ":3101"
	To string `yaml:"to"` // where the program listens, on loopback: "127.0.0.1:13101"
	// Peers are who may come: names as in their certificates, DNS names or
	// URIs like spiffe://tamshai.example/mcp-gateway.
	Peers map[string]Peer `yaml:"peers"`

	// Protocol is what the program speaks; "" means HTTP1. With H2C plain peers,
	// where the mode lets them, may speak it too.
	Protocol Protocol `yaml:"protocol"`

	MaxHeader int   `yaml:"max_header"` // bytes of a request's header; 0 means 64 KiB
	MaxBody   int64 `yaml:"max_body"`   // bytes of a request's body; 0 means that the program decides
	MaxConns  int   `yaml:"max_conns"`  // open connections, more wait; 0 means 10,000
	// Stall is how long a transfer may stand still; 0 means 30 s. A client of
	// gRPC may be silent for longer in its stream.
	Stall  time.Duration `yaml:"stall"`
	Answer time.Duration `yaml:"answer"` // how long the program may take to begin an answer; 0 means 5 min
	// Upgrade are the protocols to which a connection may change; empty means
	// websocket, or none with H2C. Whoever has changed to one speaks to the program without the
	// sidecar: in h2c, for example, a peer could set every header.
	Upgrade []string `yaml:"upgrade"`
}

// A Peer is the caller's side of an edge.
type Peer struct {
	Mode Mode `yaml:"mode"` // "" means Strict
	// From are the networks from which plain requests count as this peer's,
	// while the mode is not Strict; empty means that any does. An address is
	// no proof of who sends.
	From []string `yaml:"from"`
	// User says what to think of the users that the peer names; "" means
	// Optional. It is for nothing without Config.Users.
	User UserRule `yaml:"user"`
	// Token accepts the user in the shared token too, when there is no
	// assertion. Whoever has the secret can make one.
	Token bool `yaml:"token"`
}

// A Mode says what an edge accepts.
type Mode string

// The modes.
const (
	Strict     Mode = "strict"     // mutual TLS alone
	Permissive Mode = "permissive" // and plain HTTP, which is counted
	Report     Mode = "report"     // as Permissive, and each plain source is an event
)

// A Call is a service that the program calls.
type Call struct {
	Peer string `yaml:"peer"` // its name in its certificate
	To   string `yaml:"to"`   // where it is: "mcp-hr:3101"
	// At is a plain port for the program, on loopback; "" means that it goes
	// through Config.Proxy alone.
	At string `yaml:"at"`
	// Host is the name for which Config.Proxy takes requests, with a port or
	// without; "" means the host of To.
	Host string `yaml:"host"`
	// Protocol is what the program speaks; "" means HTTP1. With H2C it may speak
	// either at At, and goes on over HTTP/2, which the callee has to speak.
	Protocol Protocol `yaml:"protocol"`

	Stall   time.Duration `yaml:"stall"`   // as Inbound.Stall
	Answer  time.Duration `yaml:"answer"`  // as Inbound.Answer
	Upgrade []string      `yaml:"upgrade"` // as Inbound.Upgrade

	// User says how the callee is told on whose behalf the program calls; ""
	// means AsAssertion. It is for nothing without Config.Users.
	User UserForm `yaml:"user"`
}

// A Tunnel is any other TCP that the program sends: to MongoDB, to Redis. The
// agent adds the TLS, and looks at nothing inside.
type Tunnel struct {
	Peer     string `yaml:"peer"`      // the server's name in its certificate
	To       string `yaml:"to"`        // where it is: "mongodb:27017"
	At       string `yaml:"at"`        // where the program connects, on loopback
	MaxConns int    `yaml:"max_conns"` // open connections, more wait; 0 means 10,000
	// Drain is how long a connection may go on after its certificate has been
	// replaced; 0 means Host.Drain. Nothing in the bytes says when a connection
	// is not in use: at the end of the drain, and of the certificate if that
	// comes first, it is cut, whatever it is doing.
	Drain time.Duration `yaml:"drain"`
}

// Defaults.
const (
	defaultHeader = 64 << 10
	defaultConns  = 10_000
	defaultStall  = 30 * time.Second
	defaultAnswer = 5 * time.Minute
	defaultDrain  = 30 * time.Second
)

// Check fills in the defaults and reports all that is wrong.
func (c *Config) Check() error {
	var problems []error
	bad := func(format string, args ...any) { problems = append(problems, wrong(format, args...)) }
	var taken []string
	take := func(what, at string) {
		if slices.ContainsFunc(taken, func(other string) bool { return Collide(other, at) }) {
			bad("%s: something listens at %s already", what, at)
		}
		taken = append(taken, at)
	}
	for i := range c.Serve {
		in := &c.Serve[i]
		what := "serve " + in.At
		if _, port, err := net.SplitHostPort(in.At); err != nil || port == "" || strings.HasPrefix(in.At, "unix:") {
			bad("serve: %q is no place to listen at; write it like :3101", in.At)
		} else if err := portOf(in.At); err != nil {
			bad("serve: %w", err)
		}
		take(what, in.At)
		if err := Local(in.To, "others would reach the program past the sidecar"); err != nil {
			bad("%s: to %w", what, err)
		}
		if slices.ContainsFunc(c.Places(), func(at string) bool { return Collide(at, in.To) }) {
			bad("%s: to %s would lead to the agent itself; have the program listen at another port", what, in.To)
		}
		if len(in.Peers) == 0 {
			bad("%s: it has no peers, so that nobody could come", what)
		}
		if err := checkProtocol(&in.Protocol, &in.Upgrade); err != nil {
			bad("%s: %w", what, err)
		}
		fill(&in.MaxHeader, defaultHeader)
		fill(&in.MaxConns, defaultConns)
		fill(&in.Stall, defaultStall)
		fill(&in.Answer, defaultAnswer)
		if in.MaxHeader < 0 || in.MaxConns < 0 || in.MaxBody < 0 || in.Stall < 0 || in.Answer < 0 {
			bad("%s: a limit is negative", what)
		}
		anywhere := ""
		for _, name := range slices.Sorted(maps.Keys(in.Peers)) {
			p := in.Peers[name]
			if err := peerName(name); err != nil {
				bad("%s: %w", what, err)
			}
			switch p.Mode {
			case "":
				p.Mode = Strict
			case Strict, Permissive, Report:
			default:
				bad("%s: %s has the mode %q; there are strict, permissive and report", what, name, p.Mode)
			}
			in.Peers[name] = p
			if p.Mode == Strict && len(p.From) > 0 {
				bad("%s: %s is strict, and from would be for nothing", what, name)
			}
			if p.Mode != Strict && len(p.From) == 0 {
				if anywhere != "" {
					bad("%s: plain requests could be of %s or of %s; say with from which networks are whose", what, anywhere, name)
				}
				anywhere = name
			}
			for _, text := range p.From {
				if _, err := netip.ParsePrefix(text); err != nil {
					bad("%s: %s comes from %q, which is no network; write it like 10.0.3.0/24", what, name, text)
				}
			}
		}
	}
	hosts := map[string]bool{}
	for i := range c.Call {
		call := &c.Call[i]
		what := "call " + call.Peer
		if err := peerName(call.Peer); err != nil {
			bad("call: %w", err)
		}
		if host, err := remote(call.To, "mcp-hr:3101"); err != nil {
			bad("%s: to %w", what, err)
		} else if call.Host == "" {
			call.Host = host
		}
		call.Host = strings.ToLower(call.Host)
		if call.At == "" && c.Proxy == "" {
			bad("%s: nothing leads to it; give it a port with at, or set proxy", what)
		}
		if err := checkProtocol(&call.Protocol, &call.Upgrade); err != nil {
			bad("%s: %w", what, err)
		}
		if call.At == "" && call.Protocol == H2C {
			bad("%s: clients of HTTP/2 ask a proxy for a tunnel; give it a port with at", what)
		}
		if call.At != "" {
			if err := Local(call.At, "others could call in the program's name"); err != nil {
				bad("%s: at %w", what, err)
			}
			take(what, call.At)
		}
		if c.Proxy != "" && hosts[call.Host] {
			bad("%s: another call has the host %s", what, call.Host)
		}
		hosts[call.Host] = true
		fill(&call.Stall, defaultStall)
		fill(&call.Answer, defaultAnswer)
		if call.Stall < 0 || call.Answer < 0 {
			bad("%s: a limit is negative", what)
		}
	}
	for i := range c.Tunnel {
		t := &c.Tunnel[i]
		what := "tunnel " + t.Peer
		if err := peerName(t.Peer); err != nil {
			bad("tunnel: %w", err)
		}
		if _, err := remote(t.To, "mongodb:27017"); err != nil {
			bad("%s: to %w", what, err)
		}
		if err := Local(t.At, "others could connect in the program's name"); err != nil {
			bad("%s: at %w", what, err)
		}
		take(what, t.At)
		fill(&t.MaxConns, defaultConns)
		if t.MaxConns < 0 || t.Drain < 0 {
			bad("%s: a limit is negative", what)
		}
	}
	problems = append(problems, c.checkUsers()...)
	if c.Proxy != "" {
		if err := Local(c.Proxy, "others could call in the program's name"); err != nil {
			bad("proxy %w", err)
		}
		take("proxy", c.Proxy)
		if len(c.Call) == 0 {
			bad("proxy: there is no call that it could lead to")
		}
	}
	return errors.Join(problems...)
}

// checkProtocol fills in the defaults of what is spoken.
func checkProtocol(p *Protocol, upgrade *[]string) error {
	switch {
	case *p != "" && *p != HTTP1 && *p != H2C:
		return fmt.Errorf("the protocol is %q; there are http1 and h2c", *p)
	case *p == H2C && len(*upgrade) > 0:
		return errors.New("no connection of h2c changes to another protocol; leave upgrade out")
	case *p == H2C:
	case len(*upgrade) == 0:
		*upgrade = []string{"websocket"}
		fallthrough
	default:
		*p = HTTP1
	}
	return nil
}

func fill[T int | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

// Collide reports whether only one can listen at two places. A name other than
// localhost is not looked up.
func Collide(a, b string) bool {
	if a == b {
		return !strings.HasSuffix(a, ":0")
	}
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	if errA != nil || errB != nil || portA != portB || portA == "0" || strings.HasPrefix(a, "unix:") || strings.HasPrefix(b, "unix:") {
		return false
	}
	ip := func(host string) netip.Addr {
		switch host {
		case "":
			return netip.IPv6Unspecified()
		case "localhost":
			return netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
		addr, _ := netip.ParseAddr(host)
		return addr.Unmap()
	}
	ipA, ipB := ip(hostA), ip(hostB)
	return hostA == hostB || ipA.IsValid() && ipB.IsValid() && (ipA == ipB || ipA.IsUnspecified() || ipB.IsUnspecified())
}

// place tells network and address of a place.
func place(text string) (network, address string, err error) {
	if path, ok := strings.CutPrefix(text, "unix:"); ok {
		if !filepath.IsAbs(path) {
			return "", "", fmt.Errorf("%q needs an absolute path", text)
		}
		if len(path) > maxSocketPath {
			return "", "", fmt.Errorf("%q is too long: the path of a socket has at most %d bytes", text, maxSocketPath)
		}
		return "unix", path, nil
	}
	if _, port, err := net.SplitHostPort(text); err != nil || port == "" {
		return "", "", fmt.Errorf("%q is no place; write it like 127.0.0.1:3101", text)
	}
	return "tcp", text, portOf(text)
}

const maxSocketPath = 107 // bytes, of sun_path

// portOf sees that a place's port, if it is a number, is one.
func portOf(text string) error {
	_, port, _ := net.SplitHostPort(text)
	if n, err := strconv.Atoi(port); n < 0 || n > 1<<16-1 || errors.Is(err, strconv.ErrRange) {
		return fmt.Errorf("%q: there is no port %q", text, port)
	}
	return nil
}

// remote is the host of an address to connect to.
func remote(text, like string) (host string, err error) {
	host, port, err := net.SplitHostPort(text)
	switch {
	case err != nil || host == "" || port == "":
		return "", fmt.Errorf("%q is no address; write it like %s", text, like)
	case port == "0":
		return "", fmt.Errorf("%q: there is no port \"0\"", text)
	}
	return host, portOf(text)
}

// Local refuses a place that others than this host's programs can reach, which
// is why.
func Local(text, why string) error {
	network, address, err := place(text)
	if err != nil || network == "unix" {
		return err
	}
	host, _, _ := net.SplitHostPort(address)
	if ip, err := netip.ParseAddr(host); host == "localhost" || err == nil && ip.IsLoopback() {
		return nil
	}
	return fmt.Errorf("%q is not on the loopback interface: %s", text, why)
}

// peerName refuses what does not tell one service from another.
func peerName(name string) error {
	if strings.Contains(name, "://") {
		if u, err := url.Parse(name); err != nil || u.Host == "" || u.String() != name {
			return fmt.Errorf("the peer %q is no URI", name)
		}
		return nil
	}
	if _, err := netip.ParseAddr(name); err == nil || strings.EqualFold(name, "localhost") {
		return fmt.Errorf("the peer %q is no name that one service alone has", name)
	}
	for _, r := range name {
		if letter := r == '-' || r == '.' || r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'; !letter {
			return fmt.Errorf("the peer %q is neither a DNS name nor a URI", name)
		}
	}
	if name == "" {
		return errors.New("a peer has no name; give that in its certificate")
	}
	return nil
}
