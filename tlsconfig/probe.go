package tlsconfig

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
)

// A Protocol is what an endpoint speaks, which decides how TLS begins on it and
// what it would answer to a client that it lets in.
type Protocol string

// The protocols that Probe speaks.
const (
	ProtocolHTTPS    Protocol = "https"
	ProtocolPostgres Protocol = "postgres" // TLS after an SSLRequest
	ProtocolMongoDB  Protocol = "mongodb"
	ProtocolRedis    Protocol = "redis"
	ProtocolTLS      Protocol = "tls" // anything else that begins with a handshake
)

// Protocols lists them.
func Protocols() []Protocol {
	return []Protocol{ProtocolHTTPS, ProtocolPostgres, ProtocolMongoDB, ProtocolRedis, ProtocolTLS}
}

// An Endpoint is something that listens, and who it should be.
type Endpoint struct {
	Addr     string   // host:port; required
	Protocol Protocol // "" means ProtocolTLS
	// Identity are the names that its certificate must bear, all of them: DNS
	// names, IP addresses and URIs. None means the host of Addr.
	Identity []string
	// Public is an endpoint for everybody, such as the website. It need not
	// ask for client certificates, and the system's authorities may vouch for it.
	Public bool
	// Logins are whom to try to be on PostgreSQL, whose rules differ by
	// database and user. None means the user postgres on the database postgres.
	Logins []PostgresLogin
}

// A PostgresLogin is a database and a user of it. No password is needed: the
// server's rules for connections are applied before it asks for one.
type PostgresLogin struct{ Database, User string }

// A ProbeConfig says who probes. Its zero value is a client without a
// certificate that trusts the system's authorities.
type ProbeConfig struct {
	// Client is the certificate that endpoints should accept. Nil means none:
	// then it is not seen whether they accept anybody.
	Client Identity
	// Bundle are the authorities to trust. Nil means those of Client; without
	// one, the system's.
	Bundle []*x509.Certificate
	// WarnBefore is how long before its end a certificate is reported. Zero
	// means 24 hours, or a fifth of the certificate's lifetime if that is less.
	WarnBefore time.Duration
	// Timeout bounds each connection, from dialling to its last byte. There are
	// eleven at most, and up to six more for each login after the first. Zero
	// means 5 seconds.
	Timeout time.Duration
	// Dial makes connections. Nil means that of a net.Dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	Now  func() time.Time // the wall clock; nil means time.Now
}

// ErrUnreachable is an endpoint that nothing can be said about, because no
// connection to it can be made, or because it turns everybody away: PostgreSQL
// that is starting, or has too many clients.
var ErrUnreachable = errors.New("cannot be reached")

// A Report is what Probe found out. Text from the server is escaped: it holds
// no control characters.
type Report struct {
	Endpoint    Endpoint
	Names       []string  // the SANs of its certificate, else its common name
	Issuer      string    // of its certificate
	Expires     time.Time // the end of its certificate; zero: none was seen
	Version     uint16    // of TLS, what it prefers: tls.VersionTLS13; 0: no TLS was seen
	KeyExchange tls.CurveID
	ALPN        string // the protocol that was negotiated, if any
	Accepted    bool   // the client of the ProbeConfig was let in
	Findings    []Finding
}

// PostQuantum reports whether the key exchange withstands a quantum computer
// that records the traffic today. It is no finding if not: PostgreSQL 15, for
// one, has no such exchange.
func (r *Report) PostQuantum() bool { return postQuantum(r.KeyExchange) }

// OK reports whether there is nothing but notes.
func (r *Report) OK() bool {
	return !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Severity != SeverityNote })
}

func (r *Report) add(severity Severity, code Code, remedy, format string, args ...any) {
	r.Findings = append(r.Findings, Finding{Code: code, Severity: severity, Message: fmt.Sprintf(format, args...), Remedy: remedy})
}

// Probe looks at one endpoint from outside, as an attacker and as a client
// would. The endpoint should
//
//   - answer nothing in the clear;
//   - show a certificate that the bundle vouches for, that is valid, and that
//     bears the expected names;
//   - refuse clients without a certificate, and with one of another authority,
//     also when they name no server (SNI);
//   - refuse TLS 1.2 and older;
//   - accept the client of c, if there is one.
//
// What is otherwise becomes a Finding. In TLS 1.3 a server refuses a client
// after the client's handshake is complete; Probe therefore speaks enough of
// the protocol to see whether it is served. It sends no credentials and changes
// nothing, but leaves a few failed handshakes in the server's log.
//
// It does not see other ports, other databases than those of e, CRLs, or what
// a server of HTTPS that lets strangers in denies them by path.
//
// The error is ErrUnreachable, the context's, or says what is wrong with e or c.
func Probe(ctx context.Context, e Endpoint, c ProbeConfig) (*Report, error) {
	p, err := newProbe(e, c)
	if err != nil {
		return nil, err
	}
	for _, step := range []func(context.Context) error{p.plaintext, p.show, p.admission, p.oldVersions} {
		err := step(ctx)
		if ctx.Err() != nil {
			err = fmt.Errorf("tlsconfig: probing %s: %w", e.Addr, ctx.Err())
		}
		if err != nil {
			return nil, err
		}
		if p.blind {
			break // no TLS to look at
		}
	}
	return p.report, nil
}

// A probe is one look at one endpoint.
type probe struct {
	Endpoint
	cfg        ProbeConfig
	roots      *x509.CertPool
	authority  *x509.Certificate // the first of the bundle, to imitate; nil: none
	own        *tls.Certificate  // nil: none
	serverName string            // for SNI
	wires      []wire            // one for each way to be served
	http2      bool              // it speaks nothing else
	blind      bool
	report     *Report
}

const (
	defaultProbeTimeout = 5 * time.Second
	defaultWarnBefore   = 24 * time.Hour
)

func newProbe(e Endpoint, c ProbeConfig) (*probe, error) {
	invalid := func(format string, args ...any) error {
		return fmt.Errorf("tlsconfig: probing %q: "+format, append([]any{e.Addr}, args...)...)
	}
	host, port, err := net.SplitHostPort(e.Addr)
	if err != nil || host == "" || port == "" {
		return nil, invalid("the address is malformed; write host:port")
	}
	if e.Protocol == "" {
		e.Protocol = ProtocolTLS
	}
	if len(e.Identity) == 0 {
		e.Identity = []string{host}
	}
	if c.Timeout <= 0 {
		c.Timeout = defaultProbeTimeout
	}
	if c.Dial == nil {
		c.Dial = new(net.Dialer).DialContext
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	p := &probe{Endpoint: e, cfg: c, serverName: host, report: &Report{Endpoint: e}}
	if net.ParseIP(host) != nil {
		p.serverName = ""
	}
	if i := slices.IndexFunc(e.Identity, isDNS); i >= 0 {
		p.serverName = e.Identity[i]
	}
	if p.wires = wiresOf(e, p.serverName); p.wires == nil {
		return nil, invalid("the protocol %q is unknown; known are %q", e.Protocol, Protocols())
	}
	if c.Client != nil {
		m := c.Client.Current()
		if p.own, err = m.present(c.Now(), x509.ExtKeyUsageClientAuth); err != nil {
			return nil, err
		}
		if c.Bundle == nil {
			p.cfg.Bundle = m.bundle
		}
	}
	p.roots = x509.NewCertPool()
	if len(p.cfg.Bundle) == 0 || e.Public {
		if p.roots, err = x509.SystemCertPool(); err != nil {
			return nil, invalid("the system's authorities cannot be read, give a bundle: %w", err)
		}
	}
	for i, ca := range p.cfg.Bundle {
		if i == 0 {
			p.authority = ca
		}
		p.roots.AddCert(ca)
	}
	return p, nil
}

func isDNS(name string) bool { return !isURI(name) && net.ParseIP(name) == nil }
func isURI(name string) bool { return strings.Contains(name, ":") && net.ParseIP(name) == nil }

// connect dials, and bounds all that happens on the connection.
func (p *probe) connect(ctx context.Context) (net.Conn, func(), error) {
	deadline := time.Now().Add(p.cfg.Timeout)
	dialling, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	conn, err := p.cfg.Dial(dialling, "tcp", p.Addr)
	if err != nil {
		return nil, nil, fmt.Errorf("tlsconfig: %s %w: %w; start it, or see whether the address is right and reachable from here", p.Addr, ErrUnreachable, err)
	}
	if err := conn.SetDeadline(deadline); err != nil {
		conn.Close()
		return nil, nil, fmt.Errorf("tlsconfig: %s: a connection without deadlines: %w", p.Addr, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	return conn, func() { stop(); conn.Close() }, nil
}

// plaintext behaves as a client that has never heard of TLS.
func (p *probe) plaintext(ctx context.Context) error {
	for _, w := range p.wires {
		for _, o := range w.openings() {
			conn, done, err := p.connect(ctx)
			if err != nil {
				return err
			}
			got := w.exchange(conn, o.hello, o.read)
			done()
			switch got.outcome {
			case served:
				p.report.add(SeverityProblem, CodePlaintext, w.remedies.plaintext, "it answers in the clear%s: %s", w.as, got.text)
				return nil
			case busy:
				return p.busy(got)
			}
		}
	}
	return p.promise(ctx)
}

// promise goes on in the clear where a server has said that TLS may begin.
func (p *probe) promise(ctx context.Context) error {
	w := p.wires[0]
	if !w.postgres {
		return nil
	}
	conn, done, err := p.connect(ctx)
	if err != nil {
		return err
	}
	defer done()
	if a := w.begin(conn); a.outcome != served {
		return nil // there is no TLS, of which show tells
	}
	if got := w.exchange(conn, w.hello, w.read); got.outcome == served {
		p.report.add(SeverityProblem, CodePlaintext, w.remedies.plaintext, "it promises TLS, and answers in the clear%s: %s", w.as, got.text)
	}
	return nil
}

func (p *probe) busy(a answer) error {
	return fmt.Errorf("tlsconfig: %s %w: %s; try again when it lets clients in", p.Addr, ErrUnreachable, a.text)
}

// show makes it show its certificate, and judges that.
func (p *probe) show(ctx context.Context) error {
	s, err := p.meet(ctx)
	if err != nil {
		return err
	}
	if s.state == nil {
		p.blind = true
		p.report.add(SeverityProblem, CodeNoTLS, p.wires[0].remedies.tls, "there is no TLS handshake with it: %s", s.why)
		return nil
	}
	r := p.report
	r.Version, r.KeyExchange, r.ALPN = s.state.Version, s.state.CurveID, printable(s.state.NegotiatedProtocol)
	p.judge(s.state.PeerCertificates)
	return nil
}

// meet makes it show its certificate, and finds out whether it speaks HTTP/2
// alone.
func (p *probe) meet(ctx context.Context) (showing, error) {
	alpn := p.wires[0].alpn
	s, err := p.handshake(ctx, alpn, 0)
	if err != nil || s.state == nil || s.state.NegotiatedProtocol != "h2" {
		return s, err
	}
	older, err := p.handshake(ctx, alpn[1:], 0)
	// Some go on without a protocol, and hang up once they are asked: gRPC.
	p.http2 = older.state == nil || older.state.NegotiatedProtocol != alpn[1]
	return s, err
}

// admission sees who is let in.
func (p *probe) admission(ctx context.Context) error {
	r, fix := p.report, p.wires[0].remedies
	nobody, err := p.admit(ctx, nil)
	if err != nil {
		return err
	}
	switch {
	case p.Public:
	case nobody.open:
		r.add(SeverityProblem, CodeNoClientCertificate, fix.client, "it asks clients for no certificate, so that anybody may connect")
	case nobody.unrefused():
		r.add(SeverityProblem, CodeNoClientCertificate, fix.client, "it does not refuse a client without a certificate%s: %s", nobody.as, nobody.text)
	default:
		known, err := p.foreigner(ctx, "")
		if err != nil {
			return err
		}
		if err := p.unnamed(ctx, known); err != nil {
			return err
		}
	}
	if p.own == nil {
		r.Accepted = p.Public && nobody.outcome == served
		if !p.Public {
			r.add(SeverityNote, CodeUnseen, "probe with a client certificate that it should accept", "whether it accepts anybody was not seen, for want of a client certificate")
		}
		return nil
	}
	mine, err := p.admit(ctx, p.own)
	if err != nil {
		return err
	}
	if r.Accepted = mine.outcome == served; !r.Accepted {
		r.add(SeverityWarning, CodeClientRefused, "see its log for why, and whether it trusts the client's authority; or probe with a client that it allows",
			"it refuses the client %s as well: %s", describe(p.own.Leaf), mine.text)
	}
	return nil
}

// foreigner tries a certificate of an authority that nobody knows, which has
// the names of those that it should know. It reports whether that is refused.
func (p *probe) foreigner(ctx context.Context, as string) (refused bool, err error) {
	forged, err := forge(p.authority, p.own)
	if err != nil {
		return false, err
	}
	got, err := p.admit(ctx, forged)
	if err != nil {
		return false, err
	}
	if got.unrefused() {
		p.report.add(SeverityProblem, CodeForeignClient, p.wires[0].remedies.client, "it does not refuse a client whose certificate is of an unknown authority%s%s: %s", got.as, as, got.text)
	}
	return !got.unrefused(), nil
}

// unnamed says no name of a server (SNI) in the handshake, where another rule
// may be in force: that of a default server. The request still bears the name.
func (p *probe) unnamed(ctx context.Context, known bool) error {
	if p.serverName == "" {
		return nil // it has been so all along
	}
	const as = " that names no server (SNI)"
	bare := *p
	bare.serverName = ""
	nobody, err := bare.admit(ctx, nil)
	if err != nil {
		return err
	}
	if nobody.open || nobody.unrefused() {
		p.report.add(SeverityProblem, CodeNoClientCertificate, p.wires[0].remedies.client+", for every name and for none",
			"it does not refuse a client without a certificate%s%s: %s", nobody.as, as, nobody.text)
		return nil
	}
	if known {
		_, err = bare.foreigner(ctx, as)
	}
	return err
}

// oldVersions offers nothing newer than TLS 1.2.
func (p *probe) oldVersions(ctx context.Context) error {
	s, err := p.handshake(ctx, p.wires[0].alpn, tls.VersionTLS12)
	if err != nil {
		return err
	}
	if s.state != nil {
		p.report.add(SeverityProblem, CodeOldTLS, p.wires[0].remedies.version, "it speaks %s, which shows certificates in the clear and knows no post-quantum exchange", tls.VersionName(s.state.Version))
	}
	return nil
}

// A showing is how far a handshake came.
type showing struct {
	state *tls.ConnectionState // when the server's certificate was there; nil: it came not so far
	why   string
}

// handshake goes on until the server's certificate is there, whatever the
// server then thinks of the client. maxVersion 0 means the newest.
func (p *probe) handshake(ctx context.Context, alpn []string, maxVersion uint16) (showing, error) {
	conn, done, err := p.connect(ctx)
	if err != nil {
		return showing{}, err
	}
	defer done()
	if a := p.wires[0].begin(conn); a.outcome != served {
		return showing{why: a.text}, nil
	}
	var s showing
	config := p.config(p.own, alpn)
	config.MaxVersion = maxVersion
	config.VerifyConnection = func(cs tls.ConnectionState) error {
		s.state = &cs
		return nil
	}
	if err := tls.Client(conn, config).HandshakeContext(ctx); err != nil {
		s.why = outcomeOf(err).text
	}
	return s, nil
}

// An admission is what became of a client.
type admission struct {
	answer
	open bool   // the handshake is complete, and no certificate was asked for
	as   string // of which login
}

// unrefused reports whether it was let in, or may have been: a server has to
// say no in time.
func (a *admission) unrefused() bool { return a.outcome == served || a.outcome == silent }

// admit connects with the certificate, nil for none, and asks to be served.
// It is served if it is on one of the wires.
func (p *probe) admit(ctx context.Context, with *tls.Certificate) (admission, error) {
	var last admission
	for _, w := range p.wires {
		a, err := p.admitOn(ctx, w, with)
		if err == nil && a.outcome == busy {
			err = p.busy(a.answer)
		}
		if err != nil || a.open || a.outcome == served {
			return a, err
		}
		if last.outcome != silent {
			last = a
		}
	}
	return last, nil
}

func (p *probe) admitOn(ctx context.Context, w wire, with *tls.Certificate) (admission, error) {
	conn, done, err := p.connect(ctx)
	if err != nil {
		return admission{}, err
	}
	defer done()
	a := admission{as: w.as}
	if a.answer = w.begin(conn); a.outcome != served {
		return a, nil
	}
	alpn := w.alpn
	if len(alpn) > 1 && !p.http2 {
		alpn = alpn[1:]
	}
	config := p.config(with, alpn)
	asked, show := false, config.GetClientCertificate
	config.GetClientCertificate = func(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		asked = true
		return show(r)
	}
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		a.answer = outcomeOf(err)
		return a, nil
	}
	a.open = !asked
	a.answer = w.ask(secure, secure.ConnectionState().NegotiatedProtocol)
	return a, nil
}

// config is a client that takes any server: it is here to find out what is
// wrong with it, and sends nothing that a wrong one should not have.
func (p *probe) config(with *tls.Certificate, alpn []string) *tls.Config {
	if with == nil {
		with = new(tls.Certificate)
	}
	return &tls.Config{
		ServerName:         p.serverName,
		InsecureSkipVerify: true, //nolint:gosec // see above
		MinVersion:         tls.VersionTLS10,
		CipherSuites:       anySuite(),
		NextProtos:         alpn,
		Time:               p.cfg.Now,
		// Shown whichever authorities the server names.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return with, nil },
	}
}

// anySuite are the cipher suites of TLS 1.2 and older, weak ones too, so that
// no server hides behind them.
func anySuite() []uint16 {
	var ids []uint16
	for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		ids = append(ids, s.ID)
	}
	return ids
}
