package tlsconfig

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"
)

// A wire is how to be served over a protocol. What a server says is read up to
// a bound, and never trusted.
type wire struct {
	as       string   // " as …": of which login, for PostgreSQL
	alpn     []string // to offer; the last will do
	hello    []byte   // what asks for an answer
	read     func(*bufio.Reader) answer
	remedies remedies
	postgres bool // TLS begins after a question
	listen   bool // nothing may be said over TLS, because nobody knows what
}

// remedies are what to set in the servers that speak the protocol.
type remedies struct{ plaintext, tls, client, version string }

// maxAnswer is how much of an answer is read, in bytes.
const maxAnswer = 8 << 10

// wiresOf returns the ways to be served by an endpoint, nil for an unknown
// protocol. The name is for Host headers.
func wiresOf(e Endpoint, name string) []wire {
	general := remedies{
		plaintext: "close the listener that is not TLS, or give it TLS",
		tls:       "give its listener a certificate and TLS; or see whether the address and the protocol are right",
		client:    "have it require client certificates of the bundle's authorities",
		version:   "set its lowest version to TLS 1.3",
	}
	if name == "" {
		name = e.Addr
	}
	request := []byte("GET / HTTP/1.1\r\nHost: " + name + "\r\nUser-Agent: phoenix-probe\r\nConnection: close\r\n\r\n")
	switch e.Protocol {
	case ProtocolHTTPS:
		return []wire{{alpn: []string{"h2", "http/1.1"}, hello: request, read: readHTTP, remedies: general}}
	case ProtocolTLS:
		return []wire{{hello: request, read: readHTTP, listen: true, remedies: general}}
	case ProtocolRedis:
		return []wire{{hello: []byte("*1\r\n$4\r\nPING\r\n"), read: readRedis, remedies: remedies{
			plaintext: "set port 0 and tls-port",
			tls:       "set tls-port, tls-cert-file and tls-key-file",
			client:    "set tls-auth-clients yes, and tls-ca-cert-file to the bundle",
			version:   `set tls-protocols "TLSv1.3"`,
		}}}
	case ProtocolMongoDB:
		return []wire{{hello: mongoHello(), read: readMongo, remedies: remedies{
			plaintext: "set net.tls.mode to requireTLS",
			tls:       "set net.tls.mode to requireTLS, and net.tls.certificateKeyFile",
			client:    "set net.tls.CAFile to the bundle, and leave net.tls.allowConnectionsWithoutCertificates out",
			version:   "set net.tls.disabledProtocols to TLS1_0,TLS1_1,TLS1_2",
		}}}
	case ProtocolPostgres:
		logins := e.Logins
		if len(logins) == 0 {
			logins = []PostgresLogin{{Database: "postgres", User: "postgres"}}
		}
		var wires []wire
		for _, l := range logins {
			wires = append(wires, wire{
				as: fmt.Sprintf(" as %s on %s", printable(l.User), printable(l.Database)), hello: postgresStartup(l), read: readPostgres, postgres: true,
				remedies: remedies{
					plaintext: `in pg_hba.conf write hostssl where host is, and "hostnossl all all all reject" first; then reload`,
					tls:       "set ssl = on, ssl_cert_file and ssl_key_file; then reload",
					client:    "set ssl_ca_file to the bundle, and in pg_hba.conf add clientcert=verify-ca or verify-full to each hostssl line; then reload",
					version:   "set ssl_min_protocol_version = 'TLSv1.3'; then reload",
				},
			})
		}
		return wires
	}
	return nil
}

// An opening is what asks for an answer in the clear. It is refused with
// silence, with an alert of TLS, or as its read says.
type opening struct {
	hello []byte
	read  func(*bufio.Reader) answer
}

// openings are the ways to be served in the clear. HTTP/2 is one of its own: a
// port may be shared by protocols, each with a rule for what it begins with.
func (w *wire) openings() []opening {
	all := []opening{{w.hello, w.read}}
	if slices.Contains(w.alpn, "h2") {
		all = append(all, opening{http2Hello(), readSettings})
	}
	return all
}

// begin does what comes before the handshake. It is served when the handshake
// may begin.
func (w *wire) begin(conn net.Conn) answer {
	if !w.postgres {
		return answer{outcome: served}
	}
	// SSLRequest. No more than the one byte may be read: what follows it is TLS.
	var got [1]byte
	_, err := conn.Write(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 8), 80877103))
	if err == nil {
		_, err = io.ReadFull(conn, got[:])
	}
	switch {
	case err != nil:
		return outcomeOf(err)
	case got[0] == 'S':
		return answer{outcome: served}
	case got[0] == 'N':
		return answer{refused, "it answers an SSLRequest with N: it has no TLS"}
	}
	return answer{refused, "it answers an SSLRequest with " + quote(got[:])}
}

// quiet is how long a server of an unknown protocol may take to refuse.
const quiet = 2 * time.Second

// ask asks over TLS.
func (w *wire) ask(conn net.Conn, protocol string) answer {
	switch {
	case w.listen:
		conn.SetReadDeadline(time.Now().Add(quiet)) //nolint:errcheck // then the connection's own holds
		a := w.exchange(conn, nil, w.read)
		if a.outcome == silent {
			return answer{served, "it waits for the client to speak"}
		}
		return a
	case protocol == "h2":
		return w.exchange(conn, http2Hello(), readHTTP2)
	}
	return w.exchange(conn, w.hello, w.read)
}

func (w *wire) exchange(conn net.Conn, hello []byte, read func(*bufio.Reader) answer) answer {
	if len(hello) > 0 {
		if _, err := conn.Write(hello); err != nil {
			return outcomeOf(err)
		}
	}
	r := bufio.NewReaderSize(io.LimitReader(conn, maxAnswer), maxAnswer)
	first, err := r.Peek(1)
	if err != nil {
		return outcomeOf(err)
	}
	if first[0] == 21 {
		if head, _ := r.Peek(5); isAlert(head) {
			return answer{refused, "it sent an alert of TLS"}
		}
	}
	return read(r)
}

// readHTTP reads a response. Servers of HTTPS refuse in words too: whoever
// speaks in the clear, and nginx whoever has no good certificate.
func readHTTP(r *bufio.Reader) answer {
	line, err := r.ReadSlice('\n')
	if err != nil && len(line) == 0 {
		return outcomeOf(err)
	}
	line = bytes.TrimSpace(line)
	said := quote(line)
	if _, status, ok := strings.Cut(string(line), " "); ok && bytes.HasPrefix(line, []byte("HTTP/1.")) && strings.HasPrefix(status, "400") {
		body, _ := io.ReadAll(r) // what there is: LimitReader and the deadline bound it
		for _, words := range [][]byte{
			[]byte("Client sent an HTTP request to an HTTPS server"),    // Go
			[]byte("The plain HTTP request was sent to HTTPS port"),     // nginx
			[]byte("speaking plain HTTP to an SSL-enabled server port"), // Apache
			[]byte("This combination of host and port requires TLS"),    // Tomcat
			[]byte("No required SSL certificate was sent"),              // nginx, ssl_verify_client on
			[]byte("The SSL certificate error"),                         // the same, of an unknown authority
		} {
			if bytes.Contains(body, words) {
				return answer{refused, "it answers " + said + ": " + string(words)}
			}
		}
	}
	return answer{served, "it answers " + said}
}

// http2Hello is the connection preface with an empty SETTINGS (RFC 9113,
// section 3.4).
func http2Hello() []byte {
	return []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
}

func readHTTP2(r *bufio.Reader) answer {
	var head [9]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return outcomeOf(err)
	}
	if head[3] == 7 { // GOAWAY
		return answer{refused, "it answers with GOAWAY"}
	}
	return answer{served, "it answers in HTTP/2"}
}

// readSettings reads what a server of HTTP/2 begins with (RFC 9113, section
// 6.5). All else has been an answer to HTTP/1.1 already, or is none.
func readSettings(r *bufio.Reader) answer {
	var head [9]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return outcomeOf(err)
	}
	length := int(head[0])<<16 | int(head[1])<<8 | int(head[2])
	if head[3] != 4 || head[4] != 0 || binary.BigEndian.Uint32(head[5:]) != 0 || length%6 != 0 {
		return answer{hungUp, "what it answers is not HTTP/2"}
	}
	return answer{served, "it answers in HTTP/2"}
}

// readRedis reads a reply. Every reply is service, -NOAUTH and -DENIED too: a
// client that has the password would send it now.
func readRedis(r *bufio.Reader) answer {
	line, err := r.ReadSlice('\n')
	if err != nil && len(line) == 0 {
		return outcomeOf(err)
	}
	return answer{served, "it answers a PING with " + quote(bytes.TrimSpace(line))}
}

// mongoHello is an OP_MSG with {hello: 1, $db: "admin"}.
func mongoHello() []byte {
	le := binary.LittleEndian
	doc := []byte("\x10hello\x00\x01\x00\x00\x00\x02$db\x00\x06\x00\x00\x00admin\x00\x00")
	doc = append(le.AppendUint32(nil, uint32(len(doc)+4)), doc...)
	body := append([]byte{0, 0, 0, 0, 0}, doc...) // no flags; a section of kind 0
	var msg []byte
	for _, n := range []uint32{uint32(16 + len(body)), 1, 0, opMsg} {
		msg = le.AppendUint32(msg, n)
	}
	return append(msg, body...)
}

// The operations with which MongoDB answers.
const (
	opReply      = 1
	opCompressed = 2012
	opMsg        = 2013
)

func readMongo(r *bufio.Reader) answer {
	head, err := r.Peek(16)
	if len(head) == 0 {
		return outcomeOf(err)
	}
	if err == nil {
		size, op := binary.LittleEndian.Uint32(head), binary.LittleEndian.Uint32(head[12:])
		if size >= 16 && size <= 48_000_000 && (op == opMsg || op == opReply || op == opCompressed) {
			return answer{served, fmt.Sprintf("it answers a hello with a message of %d bytes", size)}
		}
	}
	return answer{served, "it answers a hello with " + quote(head)}
}

// postgresStartup is a StartupMessage of protocol 3.0.
func postgresStartup(l PostgresLogin) []byte {
	body := binary.BigEndian.AppendUint32(nil, 3<<16)
	for _, text := range []string{"user", l.User, "database", l.Database, "application_name", "phoenix-probe"} {
		body = append(append(body, strings.ReplaceAll(text, "\x00", "")...), 0)
	}
	body = append(body, 0)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body)+4)), body...)
}

// readPostgres reads the answer to a StartupMessage. A refusal is an error of
// the server's rules for connections; all others come later, when the server
// has let the client in as far as to ask for its password.
func readPostgres(r *bufio.Reader) answer {
	var head [5]byte
	if n, err := io.ReadFull(r, head[:]); err != nil && n == 0 {
		return outcomeOf(err)
	}
	if head[0] != 'E' {
		if head[0] == 'R' {
			return answer{served, "it asks for authentication"}
		}
		return answer{served, "it answers a startup with " + quote(head[:])}
	}
	fields, err := postgresError(r, binary.BigEndian.Uint32(head[1:]))
	if err != nil {
		return answer{served, "it answers with an error that cannot be read: " + printable(err.Error())}
	}
	said := fmt.Sprintf("%s %s", quote([]byte(fields['C'])), quote([]byte(fields['M'])))
	if fields['C'] == "57P03" || fields['C'] == "53300" { // before it has looked at any rule
		return answer{busy, "it turns everybody away with the error " + said}
	}
	// The names of functions are not translated, as messages are. PgBouncer
	// sends no such name.
	rules := fields['C'] == "28000" && (fields['R'] == "ClientAuthentication" || strings.Contains(fields['M'], "pg_hba.conf"))
	if rules || fields['C'] == "08P01" && strings.Contains(fields['M'], "SSL required") {
		return answer{refused, "it answers with the error " + said}
	}
	return answer{served, "it goes as far as the error " + said}
}

// postgresError reads the fields of an ErrorResponse by their letters, after
// its length.
func postgresError(r io.Reader, length uint32) (map[byte]string, error) {
	if length < 5 || length > maxAnswer {
		return nil, errors.New("its length is out of reason")
	}
	body := make([]byte, length-4)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, err
	}
	fields := map[byte]string{}
	for body[0] != 0 {
		text, rest, ok := bytes.Cut(body[1:], []byte{0})
		if !ok || len(rest) == 0 {
			return nil, errors.New("its fields do not end")
		}
		fields[body[0]] = string(text)
		body = rest
	}
	return fields, nil
}

// An outcome is what came of asking for something.
type outcome int

const (
	hungUp   outcome = iota // the connection ended without an answer
	refused                 // the server said no
	stranger                // the server said no, because it does not know the client's authority
	silent                  // nothing came in time
	busy                    // nobody is served at the moment
	served                  // anything else
)

// An answer is an outcome and what to say about it, escaped.
type answer struct {
	outcome outcome
	text    string
}

// unknownCA is an alert (RFC 8446, section 6).
const unknownCA = tls.AlertError(48)

// outcomeOf is what an error on a connection means.
func outcomeOf(err error) answer {
	var op *net.OpError
	var network net.Error
	var plain tls.RecordHeaderError
	text := printable(err.Error())
	switch {
	case errors.As(err, &op) && op.Op == "remote error" && op.Err.Error() == unknownCA.Error():
		return answer{stranger, "it sent the alert " + text}
	case errors.As(err, &op) && op.Op == "remote error": // crypto/tls's word for an alert
		return answer{refused, "it sent the alert " + text}
	case errors.As(err, &network) && network.Timeout():
		return answer{silent, "no answer in time"}
	case errors.As(err, &plain):
		return answer{hungUp, "what it answers is not TLS"}
	}
	return answer{hungUp, "it closed the connection (" + text + ")"}
}

// isAlert reports whether data begins with a record of TLS that holds an alert
// (RFC 8446, section 5.1): type 21, version 3.x, length 2.
func isAlert(data []byte) bool {
	return len(data) >= 5 && data[0] == 21 && data[1] == 3 && 1 <= data[2] && data[2] <= 4 && data[3] == 0 && data[4] == 2
}

// quote cuts and escapes what a server said.
func quote(data []byte) string {
	const most = 120
	if len(data) > most {
		return fmt.Sprintf("%q…", data[:most])
	}
	return fmt.Sprintf("%q", data)
}
