package vaulttest

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// jwtAlgorithms are the signatures that are verified.
var jwtAlgorithms = map[string]crypto.Hash{
	"RS256": crypto.SHA256, "RS384": crypto.SHA384, "RS512": crypto.SHA512,
	"PS256": crypto.SHA256, "PS384": crypto.SHA384, "PS512": crypto.SHA512,
	"ES256": crypto.SHA256, "ES384": crypto.SHA384, "ES512": crypto.SHA512,
	"EdDSA": 0,
}

// verify checks a token's signature and returns its claims.
func (c *jwtConfig) verify(text string) (jwtClaims, error) {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return nil, errors.New("error verifying token signature: go-jose/go-jose: compact JWS format must have three parts")
	}
	var header struct {
		Alg string `json:"alg"`
	}
	var claims jwtClaims
	if err := decodePart(parts[0], &header); err != nil {
		return nil, fmt.Errorf("error verifying token signature: %w", err)
	}
	sig, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		return nil, fmt.Errorf("error verifying token signature: %w", err)
	}
	hash, known := jwtAlgorithms[header.Alg]
	if !known {
		return nil, fmt.Errorf("error verifying token signature: go-jose/go-jose: unexpected signature algorithm %q", header.Alg)
	}
	signed := []byte(parts[0] + "." + parts[1])
	if !slices.ContainsFunc(c.keys, func(key crypto.PublicKey) bool { return verifyJWS(key, header.Alg, hash, signed, sig) }) {
		return nil, errors.New("error verifying token signature: no known key successfully validated the token signature")
	}
	if len(c.algorithms) > 0 && !slices.Contains(c.algorithms, header.Alg) {
		return nil, errors.New("invalid algorithm (alg) header parameter: token signed with unexpected algorithm")
	}
	if err := decodePart(parts[1], &claims); err != nil {
		return nil, fmt.Errorf("error verifying token signature: %w", err)
	}
	return claims, nil
}

func decodePart(part string, into any) error {
	raw, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	return dec.Decode(into)
}

func verifyJWS(key crypto.PublicKey, alg string, hash crypto.Hash, signed, sig []byte) bool {
	switch key := key.(type) {
	case *rsa.PublicKey:
		switch alg[:2] {
		case "RS":
			return rsa.VerifyPKCS1v15(key, hash, signing{hash: hash}.digest(signed), sig) == nil
		case "PS":
			return rsa.VerifyPSS(key, hash, signing{hash: hash}.digest(signed), sig, nil) == nil
		}
	case *ecdsa.PublicKey:
		return alg[:2] == "ES" && verifyRaw(key, signing{hash: hash}.digest(signed), sig)
	case ed25519.PublicKey:
		return alg == "EdDSA" && ed25519.Verify(key, signed, sig)
	}
	return false
}

// defaultLeeway is granted before nbf and after an exp that the token lacks.
const defaultLeeway = 150 * time.Second

// defaultSkew is granted to every comparison with the clock.
const defaultSkew = 60 * time.Second

// checkRegistered checks iss, sub, aud and the times, in Vault's order.
func (r *jwtRole) checkRegistered(claims jwtClaims, issuer string, now time.Time) error {
	if issuer != "" && claims["iss"] != issuer {
		return errors.New("invalid issuer (iss) claim")
	}
	if r.subject != "" && claims["sub"] != r.subject {
		return errors.New("invalid subject (sub) claim")
	}
	if len(r.audiences) > 0 && !slices.ContainsFunc(claims.audience(), func(a string) bool { return slices.Contains(r.audiences, a) }) {
		return errors.New("invalid audience (aud) claim: audience claim does not match any expected audience")
	}
	issued, expires, notBefore := claims.time("iat"), claims.time("exp"), claims.time("nbf")
	if issued.IsZero() && expires.IsZero() && notBefore.IsZero() {
		return errors.New("no issued at (iat), not before (nbf), or expiration time (exp) claims in token")
	}
	// A negative leeway stands for none, and 0 for the default.
	leeway := func(name string, fallback time.Duration) time.Duration {
		return max(cmp.Or(r.leeways[name], fallback), 0)
	}
	if expires.IsZero() {
		latest := issued
		if notBefore.After(latest) {
			latest = notBefore
		}
		expires = latest.Add(leeway("expiration_leeway", defaultLeeway))
	}
	if notBefore.IsZero() {
		notBefore = issued
		if issued.IsZero() {
			notBefore = expires.Add(-leeway("not_before_leeway", defaultLeeway))
		}
	}
	skew := leeway("clock_skew_leeway", defaultSkew)
	switch {
	case now.Add(skew).Before(notBefore):
		return errors.New("invalid not before (nbf) claim: token not yet valid")
	case now.Add(-skew).After(expires):
		return errors.New("invalid expiration time (exp) claim: token is expired")
	case !issued.IsZero() && now.Add(skew).Before(issued):
		return errors.New("invalid issued at (iat) claim: token issued in the future")
	}
	return nil
}
