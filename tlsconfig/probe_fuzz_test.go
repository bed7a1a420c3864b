package tlsconfig_test

import (
	"bytes"
	"strings"
	"testing"
	"unicode"

	"github.com/tamshai/phoenix/tlsconfig"
)

// Whatever a server says: it is judged without a panic, nothing of it reaches
// a terminal as it is, and only what is known for a refusal is one.
func FuzzProbeAnswer(f *testing.F) {
	for _, said := range []string{
		"", "\x15", "\x15\x03\x01\x00\x02\x02\x28", "\x15\x03\x00\x00\x02",
		"HTTP/1.1 200 OK\r\n\r\nhello", "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n", "HTTP/1.1", "220 smtp\r\n",
		"\x00\x00\x00\x04\x00\x00\x00\x00\x00", "\x00\x00\x08\x07\x00\x00\x00\x00\x00",
		"+PONG\r\n", "-NOAUTH Authentication required.\r\n", "$-1", "-\x1b[2J\r\n",
		"\x26\x00\x00\x00\x07\x00\x00\x00\x01\x00\x00\x00\xdd\x07\x00\x00\x00\x00\x00\x00\x00\x11\x00\x00\x00\x01ok\x00\x00\x00\x00\x00\x00\x00\xf0\x3f\x00",
		"\xff\xff\xff\xff\x07\x00\x00\x00\x01\x00\x00\x00\xdd\x07\x00\x00",
		"R\x00\x00\x00\x08\x00\x00\x00\x00", "N", "S", "E", "E\x00\x00\x00\x05\x00", "E\xff\xff\xff\xff", "E\x00\x00\x00\x00", "E\x00\x00\x00\x06S\x00",
		"E\x00\x00\x00\x2fSFATAL\x00C28000\x00Mno pg_hba.conf entry\x00RClientAuthentication\x00\x00",
		"E\x00\x00\x00\x1cC28000\x00Mno pg_hba.conf entry\x00\x00",
		"E\x00\x00\x00\x19C28000\x00RClientAuthentication\x00\x00",
		"E\x00\x00\x00\x18C08P01\x00MSSL required\x00\x00",
	} {
		f.Add([]byte(said))
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		for _, protocol := range tlsconfig.Protocols() {
			refused, text := tlsconfig.Endpoint{Addr: "a:1", Protocol: protocol}.Judge(said)
			check(t, string(protocol), text)
			known := len(said) == 0 || bytes.HasPrefix(said, []byte{21, 3})
			switch protocol {
			case tlsconfig.ProtocolHTTPS, tlsconfig.ProtocolTLS:
				known = known || bytes.Contains(said, []byte("400"))
			case tlsconfig.ProtocolPostgres:
				known = known || said[0] == 'E' && (bytes.Contains(said, []byte("28000")) || bytes.Contains(said, []byte("08P01")))
			}
			if refused && !known {
				t.Errorf("%s: %q passes for a refusal: %s", protocol, said, text)
			}
		}
		_, text := tlsconfig.JudgeHTTP2(said)
		check(t, "HTTP/2", text)
		_, text = tlsconfig.JudgeSettings(said)
		check(t, "HTTP/2 in the clear", text)
	})
}

func check(t *testing.T, protocol, text string) {
	t.Helper()
	if text == "" || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) || len(text) > 2000 {
		t.Errorf("%s: %q is no text for a terminal", protocol, text)
	}
}

// What servers say, one by one.
func TestProbeRefusals(t *testing.T) {
	for _, tt := range []struct {
		protocol tlsconfig.Protocol
		said     string
		refused  bool
	}{
		{tlsconfig.ProtocolPostgres, "E\x00\x00\x00\x22C28000\x00RClientAuthentication\x00\x00", true},
		{tlsconfig.ProtocolPostgres, "E\x00\x00\x00\x22C28000\x00Mno pg_hba.conf entry\x00\x00\x00", true},
		{tlsconfig.ProtocolPostgres, "E\x00\x00\x00\x1aC08P01\x00MSSL required\x00\x00", true},  // PgBouncer
		{tlsconfig.ProtocolPostgres, "E\x00\x00\x00\x1aC28000\x00Mrole missing\x00\x00", false}, // the rules let it pass
		{tlsconfig.ProtocolPostgres, "E\x00\x00\x00\x1aC08P01\x00Mno such db..\x00\x00", false},
		{tlsconfig.ProtocolPostgres, "E\x00\x00\x00\x1aC57P03\x00Mstarting up.\x00\x00", false},
		{tlsconfig.ProtocolPostgres, "E\x00\x00\x00\x22C28000\x00RClientAuth", false}, // cut off
		{tlsconfig.ProtocolPostgres, "R\x00\x00\x00\x08\x00\x00\x00\x00", false},
		{tlsconfig.ProtocolRedis, "-DENIED Redis is running in protected mode\r\n", false},
		{tlsconfig.ProtocolRedis, "+PO", false},
		{tlsconfig.ProtocolRedis, "\x15\x03\x01\x00\x02\x02\x46", true},
		{tlsconfig.ProtocolMongoDB, "\x15\x03\x00\x00\x02\x00\x00\x00\x01\x00\x00\x00\xdd\x07\x00\x00", false}, // a message of 789 bytes, no alert
		{tlsconfig.ProtocolMongoDB, "It looks like you are trying to access MongoDB over HTTP\r\n", false},
		{tlsconfig.ProtocolHTTPS, "HTTP/1.1 400 Bad Request\r\n\r\nmissing header", false},
		{tlsconfig.ProtocolHTTPS, "HTTP/1.1 200 OK\r\n\r\nClient sent an HTTP request to an HTTPS server.", false},
		{tlsconfig.ProtocolHTTPS, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.", true},
	} {
		if refused, text := (tlsconfig.Endpoint{Addr: "a:1", Protocol: tt.protocol}).Judge([]byte(tt.said)); refused != tt.refused {
			t.Errorf("%s: %q: refused is %t: %s", tt.protocol, tt.said, refused, text)
		}
	}
	for said, want := range map[string]bool{
		"\x00\x00\x00\x04\x00\x00\x00\x00\x00":                         false,
		"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64": false,
		"\x00\x00\x05\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00":     true, // no settings
		"\x00\x00\x00\x04\x01\x00\x00\x00\x00":                         true, // none of its own
		"\x00\x00\x08\x07\x00\x00\x00\x00\x00":                         true, // GOAWAY
		"HTTP/1.1 400 Bad Request\r\n":                                 true, // as it was asked before
		"\x15\x03\x01\x00\x02\x02\x46":                                 true,
	} {
		if refused, text := tlsconfig.JudgeSettings([]byte(said)); refused != want {
			t.Errorf("%q to a preface: refused is %t: %s", said, refused, text)
		}
	}
}
