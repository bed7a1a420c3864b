package dbconn

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/tamshai/phoenix/secrets"
)

// A DSN is what a connection string says, once it is known to say nothing that
// weakens the connection. [DSN.Config] makes a Config of it.
type DSN struct {
	Addr               string // as in Config
	Database           string
	User               string
	Password           secrets.Secret // empty if there was none
	ApplicationName    string
	TargetSessionAttrs string
	ConnectTimeout     time.Duration // 0 if there was none
	RootCert           string        // path of a PEM file, or "system"
	Cert, Key          string        // paths of PEM files, or empty
}

// String names the database.
func (d *DSN) String() string { return d.Addr + "/" + d.Database }

// traps are parameters of libpq or pgx, and why they are refused.
var traps = map[string]string{ //nolint:gosec // G101: names of parameters
	"options":                  "it can set anything for the session, row_security and the role included",
	"service":                  "it takes the rest from a file, which overrides what stands here",
	"servicefile":              "it takes the rest from a file, which overrides what stands here",
	"passfile":                 "it keeps a password on a disk",
	"hostaddr":                 "the name that is verified and the address that is called would be two things",
	"ssl":                      "ssl=true means sslmode=require, which verifies nobody",
	"sslpassword":              "it puts a key's passphrase into the connection string",
	"sslsni":                   "the server's name is always sent",
	"sslcrl":                   "CRLs are read from Config.TLS",
	"sslcrldir":                "CRLs are read from Config.TLS",
	"sslcompression":           "compression of TLS gives secrets away",
	"requiressl":               "it means sslmode=require, which verifies nobody",
	"requirepeer":              "it is for Unix sockets",
	"krbsrvname":               "Kerberos is not spoken",
	"krbspn":                   "Kerberos is not spoken",
	"gsslib":                   "Kerberos is not spoken",
	"gssdelegation":            "Kerberos is not spoken",
	"replication":              "a replication connection walks around row-level security",
	"role":                     "it would change the role behind the check of the role",
	"session_authorization":    "it would change the role behind the check of the role",
	"row_security":             "row-level security is not for the client to decide",
	"search_path":              "it lets others' functions stand before the catalog's; set it for the role or the database",
	"ssl_min_protocol_version": "TLS is never older than Config.TLS says",
	"ssl_max_protocol_version": "it would keep TLS old",
	"min_protocol_version":     "the version is chosen here",
	"max_protocol_version":     "the version is chosen here",
	"load_balance_hosts":       "hosts are tried in their order",
	"default_query_exec_mode":  "set what pgx does in the program",
	"client_encoding":          "pgx speaks UTF-8 alone",
}

// mustBe are parameters that may stand there with one of these values.
var mustBe = map[string]struct {
	values []string
	why    string
}{
	"sslmode":         {[]string{"verify-full"}, "any other mode takes another server for this one, or no TLS for TLS"},
	"channel_binding": {[]string{"require"}, "without it a server in the middle can pass the password's proof on"},
	"require_auth":    {[]string{"scram-sha-256"}, "any other method gives the password, or what is as good, to the server"},
	"sslcertmode":     {[]string{"allow", "require"}, "the certificate binds the password to its owner"},
	"sslnegotiation":  {[]string{"postgres"}, "servers before version 17 know no other"},
	"gssencmode":      {[]string{"disable"}, "encryption by Kerberos would take the place of TLS"},
}

// ParseDSN reads a connection string, as a URL ("postgres://…") or as keywords
// and values, and refuses each that would make a connection which is not
// verified in full, or take anything from outside the string. It reads no file
// and no environment. Its errors are ErrConfig, and show no value.
//
// Required are the host, the database and sslmode=verify-full. See libpq's manual,
// sections "Connection Strings" and "Parameter Key Words", for the syntax.
func ParseDSN(dsn string) (*DSN, error) {
	if strings.ContainsRune(dsn, 0) {
		return nil, badDSN("leave it out", "it holds a NUL")
	}
	var values map[string]string
	var err error
	if rest, ok := cutScheme(dsn); ok {
		values, err = parseURL(rest)
	} else {
		values, err = parseKeywords(dsn)
	}
	if err != nil {
		return nil, err
	}
	return newDSN(values)
}

func badDSN(remedy, format string, args ...any) error {
	return &Error{Op: "read the connection string", Kind: ErrConfig, Err: fmt.Errorf(format, args...), Remedy: remedy}
}

func cutScheme(dsn string) (rest string, ok bool) {
	for _, scheme := range []string{"postgres://", "postgresql://"} {
		if rest, ok = strings.CutPrefix(dsn, scheme); ok {
			return rest, true
		}
	}
	return dsn, false
}

// set adds a parameter. Of repeated ones libpq and pgx take the last, which is
// easily overlooked.
func set(values map[string]string, key, value string) error {
	if key == "database" {
		key = "dbname"
	}
	if _, twice := values[key]; twice {
		return badDSN("give it once", "%s stands there twice, and the last one would win", known(key))
	}
	if key != "password" && !showable(value) {
		return badDSN("leave them out", "%s holds control characters, which would forge lines where it is shown", known(key))
	}
	values[key] = value
	return nil
}

// showable reports whether a text says in a log what it seems to say.
func showable(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) })
}

// known shows a parameter's name if it is one: in a malformed string, a part of
// the password can stand in its place.
func known(key string) string {
	_, trap := traps[key]
	_, must := mustBe[key]
	if trap || must || slices.Contains(plain, key) {
		return key
	}
	return "an unknown parameter"
}

// plain are the parameters that may have any value that fits.
var plain = []string{"host", "port", "dbname", "user", "password", "application_name", "connect_timeout", "target_session_attrs", "sslrootcert", "sslcert", "sslkey"}

func newDSN(values map[string]string) (*DSN, error) {
	for key, value := range values {
		if why, ok := traps[key]; ok {
			return nil, badDSN("leave it out", "%s is refused: %s", key, why)
		}
		if must, ok := mustBe[key]; ok {
			if !slices.Contains(must.values, value) {
				return nil, badDSN("write "+key+"="+must.values[0], "%s has a value that is refused: %s", key, must.why)
			}
		} else if !slices.Contains(plain, key) {
			return nil, badDSN("these are known: "+strings.Join(plain, " ")+" sslmode", "there is a parameter that is not known here, which would become a setting of the session")
		}
	}
	d := &DSN{
		Database: values["dbname"], User: values["user"], ApplicationName: values["application_name"],
		TargetSessionAttrs: values["target_session_attrs"], RootCert: values["sslrootcert"], Cert: values["sslcert"], Key: values["sslkey"],
	}
	if password := values["password"]; password != "" {
		d.Password = secrets.NewString(password)
	}
	switch {
	case values["sslmode"] == "":
		return nil, badDSN("write sslmode=verify-full", "sslmode is missing, which means prefer: plaintext, if the server says so")
	case values["host"] == "":
		return nil, badDSN("name the server", "the host is missing, which means a Unix socket or what PGHOST says")
	case d.Database == "":
		return nil, badDSN("name the database", "the database is missing, which means what PGDATABASE says")
	case (d.Cert == "") != (d.Key == ""):
		return nil, badDSN("give both", "sslcert and sslkey belong together")
	case d.TargetSessionAttrs != "" && d.TargetSessionAttrs != "any" && validators[d.TargetSessionAttrs] == nil:
		return nil, badDSN("any, read-write, read-only, primary, standby and prefer-standby are known", "target_session_attrs has a value that is not known")
	}
	if text, ok := values["connect_timeout"]; ok {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 || n > 3600 {
			return nil, badDSN("give it in seconds, up to 3600", "connect_timeout is no number of seconds")
		}
		d.ConnectTimeout = time.Duration(n) * time.Second
	}
	var err error
	d.Addr, err = joinHosts(values["host"], values["port"])
	return d, err
}

// joinHosts makes "h1:p1,h2:p2" of libpq's two lists.
func joinHosts(hosts, ports string) (string, error) {
	names, numbers := strings.Split(hosts, ","), strings.Split(ports, ",")
	if len(numbers) != 1 && len(numbers) != len(names) {
		return "", badDSN("give one port, or one for each host", "there are %d hosts and %d ports", len(names), len(numbers))
	}
	var addrs []string
	for i, name := range names {
		if why := socket(name); why != "" {
			return "", badDSN("name the server by host and port: a Unix socket has no TLS, whatever sslmode says", "a host is %s", why)
		}
		port := numbers[min(i, len(numbers)-1)]
		if port == "" {
			port = defaultPort
		}
		h, err := parseHost(name, port)
		if err != nil {
			return "", err
		}
		addrs = append(addrs, h.String())
	}
	return strings.Join(addrs, ","), nil
}

// parseURL reads what follows the scheme: user:password@host:port,…/db?key=value&…
func parseURL(rest string) (map[string]string, error) {
	values := map[string]string{}
	rest, query, _ := strings.Cut(rest, "?")
	authority, database, _ := strings.Cut(rest, "/")
	put := func(key, escaped string) error {
		value, err := url.PathUnescape(escaped)
		if err != nil || strings.ContainsRune(value, 0) {
			return badDSN("write a percent sign as %25", "%s has a malformed escape", known(key))
		}
		return set(values, key, value)
	}
	if at := strings.LastIndex(authority, "@"); at >= 0 {
		user, password, has := strings.Cut(authority[:at], ":")
		authority = authority[at+1:]
		if err := put("user", user); err != nil {
			return nil, err
		}
		if has {
			if err := put("password", password); err != nil {
				return nil, err
			}
		}
	}
	if authority != "" {
		var names, ports []string
		for part := range strings.SplitSeq(authority, ",") {
			name, port, err := splitHostPort(part)
			if err != nil {
				return nil, err
			}
			names, ports = append(names, name), append(ports, port)
		}
		if err := put("host", strings.Join(names, ",")); err != nil {
			return nil, err
		}
		if err := set(values, "port", strings.Join(ports, ",")); err != nil {
			return nil, err
		}
	}
	if strings.Contains(database, "@") {
		return nil, badDSN("write / in a password as %2F, and @ as %40", "there is an @ after the host: a part of the password would be taken for the database")
	}
	if database != "" {
		if err := put("dbname", database); err != nil {
			return nil, err
		}
	}
	if query == "" {
		return values, nil
	}
	for pair := range strings.SplitSeq(query, "&") {
		key, value, ok := strings.Cut(pair, "=")
		name, err := url.PathUnescape(key)
		if !ok || err != nil || name == "" {
			return nil, badDSN("write key=value, joined by &", "the query is malformed")
		}
		if err := put(name, value); err != nil {
			return nil, err
		}
	}
	return values, nil
}

func splitHostPort(part string) (name, port string, err error) {
	if inner, ok := strings.CutPrefix(part, "["); ok {
		name, after, ok := strings.Cut(inner, "]")
		if port, isPort := strings.CutPrefix(after, ":"); ok && net.ParseIP(name) != nil && (after == "" || isPort) {
			return name, port, nil
		}
		return "", "", badDSN("write [address]:port", "an IPv6 address is malformed")
	}
	name, port, _ = strings.Cut(part, ":")
	if strings.Contains(port, ":") {
		return "", "", badDSN("write the address in brackets, and a colon in the password as %3A", "a host has more than one colon")
	}
	return name, port, nil
}

var errQuote = errors.New("a quoted value has no end")

// parseKeywords reads "key = value key='quoted \' value'".
func parseKeywords(s string) (map[string]string, error) {
	const space = " \t\r\n\v\f"
	values := map[string]string{}
	for s = strings.TrimLeft(s, space); s != ""; s = strings.TrimLeft(s, space) {
		key, rest, ok := strings.Cut(s, "=")
		key = strings.TrimRight(key, space)
		if !ok || key == "" || strings.ContainsAny(key, space+"'\\") {
			return nil, badDSN("write key=value, with quotes around a value that has spaces", "it is no list of keywords and values")
		}
		value, after, err := cutValue(strings.TrimLeft(rest, space))
		if err != nil {
			return nil, badDSN("write ' inside a value as \\'", "%w", err)
		}
		if err := set(values, key, value); err != nil {
			return nil, err
		}
		s = after
	}
	return values, nil
}

// cutValue reads one value, in which a backslash takes the next byte as it is.
func cutValue(s string) (value, rest string, err error) {
	quoted := strings.HasPrefix(s, "'")
	if quoted {
		s = s[1:]
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\':
			if i++; i == len(s) {
				return "", "", errors.New("it ends in a backslash")
			}
			b.WriteByte(s[i])
		case quoted && c == '\'':
			return b.String(), s[i+1:], nil
		case !quoted && strings.IndexByte(" \t\r\n\v\f", c) >= 0:
			return b.String(), s[i:], nil
		default:
			b.WriteByte(c)
		}
	}
	if quoted {
		return "", "", errQuote
	}
	return b.String(), "", nil
}
