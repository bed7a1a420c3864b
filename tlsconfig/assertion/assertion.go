// Package assertion says, between services, on behalf of which user a request
// is made.
//
// A service that calls another over mutual TLS is known by its certificate. It
// is not known for whom it calls. An assertion says that: a JWT (RFC 7519) that
// the caller signs with the key of its certificate, for one callee, for a few
// seconds and for one use. Nobody else can use it: the callee checks it against
// the certificate of the connection on which it came (RFC 8705 calls this
// certificate-bound, and its x5t#S256 is what binds it).
//
// The caller signs each request with the certificate that goes with it:
//
//	transport := tlsconfig.Config{Outgoing: func(r *http.Request, m *tlsconfig.Material) error {
//		token, err := assertion.Sign(m, "mcp-hr", user, time.Now())
//		r.Header.Set("Phoenix-User", token)
//		return err
//	}}.NewTransport(nil, identity, "mcp-hr", tlsconfig.AllowDNS("mcp-hr"))
//
// The callee has one Verifier, and asks it about each request:
//
//	peer, ok := tlsconfig.Peer(r)
//	…
//	user, err := verifier.Verify(&peer, r.Header.Get("Phoenix-User"))
//
// [Shared] is the token that one secret of all services signs. It is for the
// time until every service has a certificate.
package assertion

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tamshai/phoenix/tlsconfig"
)

// A User is on whose behalf a request is made.
type User struct {
	ID         string            // required
	Roles      []string          // may be empty
	Attributes map[string]string // more, such as email and department
}

// Life is how long an assertion is good after it was signed.
const Life = 10 * time.Second

// maxToken bounds a token, in bytes: servers limit headers.
const maxToken = 6 << 10

// tokenType is the explicit type that RFC 8725, section 3.11, asks for, so that
// no other JWT of the same key passes for an assertion.
const tokenType = "phoenix-user+jwt"

// ErrRefused is an assertion that proves nothing. What is wrong with it is in
// the text, which holds nothing that the sender chose.
var ErrRefused = errors.New("the assertion is refused")

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrRefused, fmt.Sprintf(format, args...))
}

// header is the JOSE header (RFC 7515, section 4.1).
type header struct {
	Type       string `json:"typ"`
	Algorithm  string `json:"alg"`
	Thumbprint string `json:"x5t#S256"` // of the certificate whose key signed
}

type claims struct {
	Issuer     string            `json:"iss"` // a name of the caller, for the reader
	Subject    string            `json:"sub"`
	Audience   string            `json:"aud"`
	IssuedAt   int64             `json:"iat"` // seconds since 1970
	Expires    int64             `json:"exp"`
	ID         string            `json:"jti"`
	Roles      []string          `json:"roles,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"`
	Confirm    confirmation      `json:"cnf"`
}

type confirmation struct {
	Thumbprint string `json:"x5t#S256"` // of the certificate on which it may come
}

var encoding = base64.RawURLEncoding.Strict()

// Sign returns an assertion, for a request that goes with the certificate of m
// to the callee whose name is audience. It is good for [Life] and for one use.
func Sign(m *tlsconfig.Material, audience string, u User, now time.Time) (string, error) {
	if u.ID == "" {
		return "", errors.New("assertion: the user has no ID")
	}
	if audience == "" {
		return "", errors.New("assertion: it is for nobody; name the callee")
	}
	if err := u.check(); err != nil {
		return "", fmt.Errorf("assertion: %w", err)
	}
	leaf, key := m.Leaf(), m.Signer()
	if leaf == nil {
		return "", errors.New("assertion: there is no certificate yet; wait until the identity is ready")
	}
	alg, err := algorithm(leaf.PublicKey)
	if err != nil {
		return "", fmt.Errorf("assertion: %w", err)
	}
	sum := sha256.Sum256(leaf.Raw)
	thumbprint := encoding.EncodeToString(sum[:])
	issuer := leaf.Subject.CommonName
	if len(leaf.URIs) > 0 {
		issuer = leaf.URIs[0].String()
	} else if len(leaf.DNSNames) > 0 {
		issuer = leaf.DNSNames[0]
	}
	head, err := json.Marshal(header{Type: tokenType, Algorithm: alg, Thumbprint: thumbprint})
	if err != nil {
		return "", err
	}
	body, err := json.Marshal(claims{Issuer: issuer, Subject: u.ID, Audience: audience, IssuedAt: now.Unix(), Expires: now.Add(Life).Unix(),
		ID: rand.Text(), Roles: u.Roles, Attributes: u.Attributes, Confirm: confirmation{thumbprint}})
	if err != nil {
		return "", err
	}
	signed := encoding.EncodeToString(head) + "." + encoding.EncodeToString(body)
	signature, err := sign(key, alg, []byte(signed))
	if err != nil {
		return "", fmt.Errorf("assertion: %w", err)
	}
	token := signed + "." + encoding.EncodeToString(signature)
	if len(token) > maxToken {
		return "", fmt.Errorf("assertion: it would be %d bytes long, and %d is the limit; name fewer roles and attributes", len(token), maxToken)
	}
	return token, nil
}

// check refuses what could not stand in a header. JSON would replace invalid
// UTF-8, and the callee would read another user.
func (u User) check() error {
	plain := func(text string) error {
		if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return errors.New("a name of the user has control characters or is no UTF-8")
		}
		return nil
	}
	errs := []error{plain(u.ID)}
	for _, role := range u.Roles {
		errs = append(errs, plain(role))
	}
	for name, value := range u.Attributes {
		errs = append(errs, plain(name), plain(value))
	}
	return errors.Join(errs...)
}

// The algorithms (RFC 7518, section 3.4, and RFC 8037, section 3.1).
const (
	es256 = "ES256"
	eddsa = "EdDSA"
)

// algorithm is decided by the key alone, never by a token.
func algorithm(key crypto.PublicKey) (string, error) {
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P256() {
			return es256, nil
		}
	case ed25519.PublicKey:
		return eddsa, nil
	}
	return "", fmt.Errorf("a certificate with a key of type %T cannot sign it; use ECDSA on P-256 or Ed25519", key)
}

// size is that of one number of an ES256 signature.
const size = 32

func sign(key crypto.Signer, alg string, message []byte) ([]byte, error) {
	if alg == eddsa {
		return key.Sign(rand.Reader, message, crypto.Hash(0))
	}
	digest := sha256.Sum256(message)
	der, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return nil, err
	}
	var pair struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &pair); err != nil {
		return nil, err
	}
	out := make([]byte, 2*size)
	pair.R.FillBytes(out[:size])
	pair.S.FillBytes(out[size:])
	return out, nil
}

func verify(key crypto.PublicKey, message, signature []byte) bool {
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		if len(signature) != 2*size {
			return false
		}
		digest := sha256.Sum256(message)
		return ecdsa.Verify(key, digest[:], new(big.Int).SetBytes(signature[:size]), new(big.Int).SetBytes(signature[size:]))
	case ed25519.PublicKey:
		return ed25519.Verify(key, message, signature)
	}
	return false
}

// decode reads one part of a token, without unknown fields.
func decode(part string, into any) error {
	text, err := encoding.DecodeString(part)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("there is more")
	}
	return nil
}
