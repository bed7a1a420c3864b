package mongoconn

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// traps are options of a connection string, in lower case, and why they are
// refused.
var traps = map[string]string{ //nolint:gosec // G101: names of options
	"tlsinsecure":                          "it takes any server for this one",
	"sslinsecure":                          "it takes any server for this one",
	"tlsallowinvalidcertificates":          "it takes any server for this one",
	"tlsallowinvalidhostnames":             "it takes any service for this server",
	"sslallowinvalidcertificates":          "it takes any server for this one",
	"sslallowinvalidhostnames":             "it takes any service for this server",
	"tlsdisablecertificaterevocationcheck": "revocation is for Config.TLS to say",
	"tlsdisableocspendpointcheck":          "revocation is for Config.TLS to say",
	"tlscertificatekeyfile":                "it keeps the key on a disk; Config.Identity has the certificate",
	"sslclientcertificatekeyfile":          "it keeps the key on a disk; Config.Identity has the certificate",
	"tlscertificatekeyfilepassword":        "it puts a key's passphrase into the connection string",
	"sslclientcertificatekeypassword":      "it puts a key's passphrase into the connection string",
	"tlscertificatefile":                   "Config.Identity has the certificate",
	"tlsprivatekeyfile":                    "it keeps the key on a disk; Config.Identity has it",
	"tlscafile":                            "Config.Identity or Config.Roots says who vouches for the server",
	"sslcertificateauthorityfile":          "Config.Identity or Config.Roots says who vouches for the server",
	"authmechanismproperties":              "SCRAM-SHA-256 has none, and others send credentials elsewhere",
	"gssapiservicename":                    "Kerberos is not spoken",
	"loadbalanced":                         "whatever stands there would be taken for the servers",
	"srvservicename":                       "the DNS would say which servers to trust",
	"srvmaxhosts":                          "the DNS would say which servers to trust",
	"proxyhost":                            "connections go to the server itself",
	"proxyport":                            "connections go to the server itself",
	"proxyusername":                        "connections go to the server itself",
	"proxypassword":                        "connections go to the server itself",
	"sockettimeoutms":                      "it breaks off operations that may have happened; give a context with a deadline",
	"timeoutms":                            "give each call a context with a deadline",
	"w":                                    "set Config.WriteConcern",
	"wtimeoutms":                           "set Config.WriteConcern",
	"journal":                              "set Config.WriteConcern",
	"readconcernlevel":                     "set Config.ReadConcern",
	"readpreference":                       "set Config.ReadPreference",
	"readpreferencetags":                   "set Config.ReadPreference",
	"maxstaleness":                         "set Config.ReadPreference",
	"maxstalenessseconds":                  "set Config.ReadPreference",
	"compressors":                          "compression gives away what is encrypted",
	"zlibcompressionlevel":                 "compression gives away what is encrypted",
	"zstdcompressionlevel":                 "compression gives away what is encrypted",
	"minpoolsize":                          "a new client has as many connections as the one before",
	"maxidletimems":                        "connections end with their credentials",
	"maxconnecting":                        "it is the driver's",
	"serverselectiontimeoutms":             "connectTimeoutMS says how long to look for a server",
	"servermonitoringmode":                 "it is the driver's",
	"heartbeatintervalms":                  "it is the driver's",
	"heartbeatfrequencyms":                 "it is the driver's",
	"localthresholdms":                     "it is the driver's",
	"maxadaptiveretries":                   "it is the driver's",
	"enableoverloadretargeting":            "it is the driver's",
	"uuidrepresentation":                   "set Config.BSON",
	"connect":                              "with one server and no replicaSet, it is connected to directly",
}

// mustBe are options that may stand there with that value.
var mustBe = map[string]struct{ value, why string }{
	"tls":           {"true", "anything else is plaintext"},
	"ssl":           {"true", "anything else is plaintext"},
	"authmechanism": {"SCRAM-SHA-256", "others give the password, or what is as good, to the server"},
	"retrywrites":   {"true", "a write that a lost connection keeps from being acknowledged is repeated once by the driver, and the server sees to it that it happens once"},
	"retryreads":    {"true", "the driver repeats a read once"},
}

const plainOptions = "appName authSource connectTimeoutMS directConnection maxPoolSize replicaSet tls"

// ParseURI reads a connection string, and refuses each that would make a
// connection which is not verified in full, that holds credentials, or that takes
// anything from outside the string, such as mongodb+srv. The Config has what it
// says; Leases and Identity are to be added. database is the one in the path, ""
// if there is none; it is also where the users are, if authSource does not say
// another, as MongoDB's specification has it. It reads no file and no environment,
// and asks no DNS. Its errors are ErrConfig, and show no value.
//
// Required are a host and tls=true. See "Connection Strings" in MongoDB's manual
// for the syntax.
func ParseURI(uri string) (cfg Config, database string, err error) {
	fail := func(err error) (Config, string, error) { return Config{}, "", err }
	rest, ok := strings.CutPrefix(uri, "mongodb://")
	switch {
	case strings.ContainsFunc(uri, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fail(badURI("leave them out", "it holds control characters"))
	case !ok && strings.HasPrefix(strings.ToLower(uri), "mongodb+srv:"):
		return fail(badURI("name the servers with mongodb://", "mongodb+srv lets the DNS say which servers to trust, and with which options"))
	case !ok:
		return fail(badURI("begin it with mongodb://", "it is no connection string of MongoDB"))
	}
	rest, query, hasQuery := strings.Cut(rest, "?")
	if strings.Contains(query, "?") || (!hasQuery && strings.Contains(rest, "&")) {
		return fail(badURI("write key=value after one ?, joined by &", "the options are malformed"))
	}
	hosts, database, _ := strings.Cut(rest, "/")
	if strings.Contains(hosts, "@") || strings.Contains(database, "@") {
		return fail(badURI("take them out; Config.Leases has them", "it holds credentials"))
	}
	if strings.Contains(hosts, "%") {
		return fail(badURI("name the server by host and port: a Unix socket has no TLS", "a host has escapes, as a Unix socket does"))
	}
	if _, err := parseAddr(hosts); err != nil {
		return fail(err)
	}
	if database, err = url.PathUnescape(database); err != nil || strings.ContainsAny(database, "/\\. \"$\x00") {
		return fail(badURI("give a plain name", "the database's name is not one"))
	}
	cfg.Addr, cfg.AuthSource = hosts, database
	options, err := parseOptions(query)
	if err != nil {
		return fail(err)
	}
	if err := cfg.apply(options); err != nil {
		return fail(err)
	}
	return cfg, database, nil
}

func badURI(remedy, format string, args ...any) error {
	return &Error{Op: "read the connection string", Kind: ErrConfig, Err: fmt.Errorf(format, args...), Remedy: remedy}
}

// parseOptions reads "key=value&key=value". The keys are in any case; of repeated
// ones the driver takes the last, which is easily overlooked.
func parseOptions(query string) (map[string]string, error) {
	options := map[string]string{}
	if query == "" {
		return options, nil
	}
	for pair := range strings.FieldsFuncSeq(query, func(r rune) bool { return r == '&' || r == ';' }) {
		key, value, ok := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(key)
		if !ok || err != nil || name == "" {
			return nil, badURI("write key=value, joined by &", "an option is malformed")
		}
		text, err := url.QueryUnescape(value)
		if err != nil || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return nil, badURI("write a percent sign as %25", "the value of an option is malformed")
		}
		if name = strings.ToLower(name); name == "ssl" {
			name = "tls"
		}
		if _, twice := options[name]; twice {
			return nil, badURI("give it once", "an option is given twice: %s", known(name))
		}
		options[name] = text
	}
	return options, nil
}

// known is the name, if it is one that can be shown: anything may stand there.
func known(name string) string {
	_, trap := traps[name]
	_, must := mustBe[name]
	if trap || must || slices.Contains(strings.Fields(strings.ToLower(plainOptions)), name) {
		return name
	}
	return "one that is not known"
}

// apply puts the options into c.
func (c *Config) apply(options map[string]string) error {
	for name, value := range options {
		if why, ok := traps[name]; ok {
			return badURI("leave it out", "%s is refused: %s", name, why)
		}
		if must, ok := mustBe[name]; ok {
			if value != must.value {
				return badURI("write "+name+"="+must.value, "%s has a value that is refused: %s", name, must.why)
			}
			continue
		}
		var err error
		switch name {
		case "appname":
			c.ApplicationName = value
		case "authsource":
			if c.AuthSource = value; value == "" || strings.HasPrefix(value, "$") {
				return badURI("name the database that has the users", "authSource is empty, or means other authorities than the server, which would learn the password")
			}
		case "replicaset":
			if c.ReplicaSet = value; value == "" {
				return badURI("name it, or leave it out", "replicaSet is empty")
			}
		case "connecttimeoutms":
			var n int
			if n, err = strconv.Atoi(value); err != nil || n <= 0 || n > 3600_000 {
				return badURI("give it in milliseconds, up to an hour", "connectTimeoutMS is no such number")
			}
			c.ConnectTimeout = time.Duration(n) * time.Millisecond
		case "maxpoolsize":
			if c.MaxConns, err = strconv.Atoi(value); err != nil || c.MaxConns <= 0 || c.MaxConns > 1<<16 {
				return badURI("give a number between 1 and 65536", "maxPoolSize is no such number: 0 would mean without end")
			}
		case "directconnection":
			// What it says holds already, or cannot be had.
			if direct := !strings.Contains(c.Addr, ",") && options["replicaset"] == ""; value != strconv.FormatBool(direct) {
				return badURI("leave it out", "directConnection is at odds with the servers: one without replicaSet is connected to directly, others are not")
			}
		default:
			return badURI("these are known: "+plainOptions, "there is an option that is not known here")
		}
	}
	if options["tls"] != "true" {
		return badURI("write tls=true", "tls is missing, which means plaintext")
	}
	return nil
}
