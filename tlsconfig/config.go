package tlsconfig

import (
	"crypto/rand"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/tamshai/phoenix/auditlog"
)

// A Config says how strict to be. Its zero value is the strictest: use it
// unless something forces you.
type Config struct {
	// MinVersion is the lowest version of TLS: zero means 1.3, and
	// tls.VersionTLS12 is the lowest there is.
	MinVersion uint16
	// NextProtos are the protocols for ALPN. Nil means HTTP/2 and HTTP/1.1 on
	// a server, none on a client; the helpers for HTTP and gRPC set their own.
	NextProtos []string
	// CurvePreferences are the key exchanges. Nil means Go's own, with the
	// post-quantum ones first. PostgreSQL 15 knows P-256 alone, and saves a
	// round trip with tls.SecP256r1MLKEM768 and tls.CurveP256.
	CurvePreferences []tls.CurveID
	// AnyServerName lets a client accept a certificate that does not bear the
	// server's name. The authorizer alone then decides, as with SPIFFE IDs.
	AnyServerName bool
	// Revocation is where CRLs come from. Nil means that none are looked at.
	Revocation *Revocation
	// DrainTimeout is how long a connection may stay on an old generation, and
	// how often open connections are judged although no request comes. Zero
	// means 30 seconds.
	DrainTimeout time.Duration
	// Outgoing, if not nil, is called by NewTransport's transport before each
	// request, with a copy of it, whose headers it may change, and with the
	// Material of the connection that it will go over. After an error the
	// request is not sent.
	Outgoing func(*http.Request, *Material) error
	// Carrier, if not nil, makes what NewTransport's transport sends requests
	// with, for each generation. It is given what would send them without it,
	// whose DialTLSContext is the only way to make a connection, and judge,
	// which a Carrier asks before it uses such a connection for another request.
	Carrier func(base *http.Transport, judge func(net.Conn) error) Carrier

	Metrics Metrics // nil: none
	// Audit records peers that are refused though verified: the first time, and
	// then at most every 10 s with a count. nil: not recorded
	Audit  auditlog.Recorder
	Logger *slog.Logger     // nil discards
	Now    func() time.Time // the wall clock; nil means time.Now
}

// Server returns the configuration of a server that shows the identity's
// certificate and accepts the clients that authorize allows. It is as
// Config{}.Server.
func Server(identity Identity, authorize Authorizer) *tls.Config {
	return Config{}.Server(identity, authorize)
}

// Client returns the configuration of a client that shows the identity's
// certificate and accepts the server of that name, if authorize allows it. An
// empty name means that of the connection, which net/http sets; an address must
// be given. It is as Config{}.Client.
func Client(identity Identity, serverName string, authorize Authorizer) *tls.Config {
	return Config{}.Client(identity, serverName, authorize)
}

// Server is the function Server with c. Connections are judged in the
// handshake alone; see WrapServer and ServerConns for their later life.
func (c Config) Server(identity Identity, authorize Authorizer) *tls.Config {
	return c.server(identity, authorize).serverConfig()
}

// Client is the function Client with c. It resumes no sessions, and judges
// servers in the handshake alone; see NewTransport and ClientConns for more.
func (c Config) Client(identity Identity, serverName string, authorize Authorizer) *tls.Config {
	s := c.clientSide(identity, serverName, authorize)
	return s.clientConfig(func() *Material { return identity.Current() }, nil)
}

func (c Config) server(identity Identity, authorize Authorizer) *side {
	if c.NextProtos == nil {
		c.NextProtos = []string{"h2", "http/1.1"}
	}
	return &side{Config: c, identity: identity, authorize: authorize}
}

func (c Config) clientSide(identity Identity, serverName string, authorize Authorizer) *side {
	return &side{Config: c, identity: identity, serverName: serverName, authorize: authorize, client: true}
}

// A snapshot is the server's configuration for one generation.
type snapshot struct {
	material *Material
	config   *tls.Config
}

// serverConfig gives each handshake the snapshot of the generation that is
// current when it begins. crypto/tls does not ask for it if the configuration
// itself came from another's GetConfigForClient; what is beside it is for then,
// and as strict. It resumes no sessions, which would outlive a generation.
func (s *side) serverConfig() *tls.Config {
	return &tls.Config{
		MinVersion: s.minVersion(),
		NextProtos: s.NextProtos,
		ClientAuth: tls.RequireAnyClientCert,
		Time:       s.Now,

		CurvePreferences:       s.CurvePreferences,
		SessionTicketsDisabled: true,
		VerifyConnection:       s.verifyConnection,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			own, err := s.identity.Current().present(s.now(), s.own())
			if err != nil {
				s.refused(err, nil)
			}
			return own, err
		},
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if !s.speaks(hello.SupportedVersions) && s.Metrics != nil {
				s.Metrics.Refused(s.name(), ReasonVersion) // crypto/tls refuses it, with the right alert
			}
			config, err := s.current()
			if err != nil || s.Audit == nil || hello.Conn == nil {
				return config, err
			}
			// An event says where the peer came from, and that is not in the
			// state of the connection.
			config = config.Clone()
			config.VerifyConnection = func(cs tls.ConnectionState) error { return s.verifyFrom(cs, hello.Conn) }
			return config, nil
		},
	}
}

func (s *side) current() (*tls.Config, error) {
	m := s.identity.Current()
	own, err := m.present(s.now(), s.own())
	if err != nil {
		s.refused(err, nil)
		return nil, err
	}
	if snap := s.snapshot.Load(); snap != nil && snap.material == m {
		return snap.config, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if snap := s.snapshot.Load(); snap != nil && snap.material == m {
		return snap.config, nil
	}
	config := &tls.Config{
		Certificates: []tls.Certificate{*own},
		// Without ClientCAs every client shows what it has, and learns why it
		// is refused; with them crypto/tls's would show nothing.
		ClientAuth:       tls.RequireAnyClientCert,
		VerifyConnection: s.verifyConnection,
		MinVersion:       s.minVersion(),
		NextProtos:       s.NextProtos,
		CurvePreferences: s.CurvePreferences,
		Time:             s.Now,
	}
	// Without keys of its own crypto/tls would use those of the configuration
	// that GetConfigForClient belongs to, for all generations.
	var ticketKey [32]byte
	rand.Read(ticketKey[:])
	config.SetSessionTicketKeys([][32]byte{ticketKey})
	s.snapshot.Store(&snapshot{material: m, config: config})
	s.observe(m)
	return config, nil
}

// clientConfig shows the certificate of the material that current returns.
// Sessions in cache must be of that material alone.
func (s *side) clientConfig(current func() *Material, cache tls.ClientSessionCache) *tls.Config {
	return &tls.Config{
		ServerName: s.serverName,
		// What crypto/tls would verify with is fixed when the configuration is
		// made, and is skipped on resumption. verifyConnection does all of it.
		InsecureSkipVerify: true, //nolint:gosec // see above
		VerifyConnection:   s.verifyConnection,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			m := current()
			own, err := m.present(s.now(), s.own())
			if err != nil {
				s.refused(err, nil)
				return nil, err
			}
			s.observe(m)
			return own, nil
		},
		MinVersion:         s.minVersion(),
		NextProtos:         s.NextProtos,
		CurvePreferences:   s.CurvePreferences,
		ClientSessionCache: cache,
		Time:               s.Now,
	}
}

func (s *side) verifyConnection(cs tls.ConnectionState) error { return s.verifyFrom(cs, nil) }

// verifyFrom verifies a peer at the other end of conn, if that is known.
func (s *side) verifyFrom(cs tls.ConnectionState, conn net.Conn) error {
	v, err := s.judge(cs, conn)
	if err != nil {
		return err
	}
	if s.Metrics != nil {
		s.Metrics.Handshake(s.name(), v.peer)
	}
	return nil
}

// verifyFor is verifyConnection of a client for one server. crypto/tls leaves
// an address out of the connection's state.
func (s *side) verifyFor(name string) func(tls.ConnectionState) error {
	return func(cs tls.ConnectionState) error {
		cs.ServerName = name
		return s.verifyConnection(cs)
	}
}

func (s *side) speaks(versions []uint16) bool {
	for _, v := range versions {
		if v >= s.minVersion() {
			return true
		}
	}
	return false
}

func (c *Config) minVersion() uint16 {
	if c.MinVersion == 0 {
		return tls.VersionTLS13
	}
	return max(c.MinVersion, tls.VersionTLS12)
}

func (c *Config) drainTimeout() time.Duration {
	if c.DrainTimeout <= 0 {
		return 30 * time.Second
	}
	return c.DrainTimeout
}

func (c *Config) now() time.Time {
	if c.Now != nil {
		return c.Now()
	}
	return time.Now()
}

func (c *Config) log() *slog.Logger {
	if c.Logger != nil {
		return c.Logger
	}
	return slog.New(slog.DiscardHandler)
}
