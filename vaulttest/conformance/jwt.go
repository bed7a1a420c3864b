package conformance

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"time"
)

// issuer makes the JWTs of a case.
type issuer struct {
	*script
	key crypto.Signer
}

func (s *script) issuer(ec bool) *issuer {
	var key crypto.Signer
	var err error
	if ec {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	} else {
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		s.Fatal(err)
	}
	return &issuer{s, key}
}

// public is the key as a JSON string.
func (i *issuer) public() string {
	der, err := x509.MarshalPKIXPublicKey(i.key.Public())
	if err != nil {
		i.Fatal(err)
	}
	text, err := json.Marshal(string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
	if err != nil {
		i.Fatal(err)
	}
	return string(text)
}

// usual are the claims of a job, which some cases change.
func usual(change map[string]any) map[string]any {
	now := time.Now()
	claims := map[string]any{
		"iss": "https://issuer.test", "sub": "repo:tamshai/phoenix", "aud": "vault",
		"repository": "tamshai/phoenix", "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(),
	}
	maps.Copy(claims, change)
	for name, v := range claims {
		if v == nil {
			delete(claims, name)
		}
	}
	return claims
}

// sign keeps a JWT as $jwt.
func (i *issuer) sign(claims map[string]any) {
	alg := "RS256"
	if _, ok := i.key.(*ecdsa.PrivateKey); ok {
		alg = "ES256"
	}
	part := func(v any) string {
		raw, err := json.Marshal(v)
		if err != nil {
			i.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(raw)
	}
	text := part(map[string]string{"alg": alg, "typ": "JWT"}) + "." + part(claims)
	digest := sha256.Sum256([]byte(text))
	var sig []byte
	var err error
	switch key := i.key.(type) {
	case *rsa.PrivateKey:
		sig, err = rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, digest[:])
	case *ecdsa.PrivateKey:
		r, s, e := ecdsa.Sign(rand.Reader, key, digest[:])
		if err = e; err == nil {
			sig = append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
		}
	}
	if err != nil {
		i.Fatal(err)
	}
	i.vars["jwt"] = text + "." + base64.RawURLEncoding.EncodeToString(sig)
}

func (i *issuer) mount() {
	i.Helper()
	i.post("sys/auth/$jwt_mount", `{"type":"jwt"}`).is(204)
	i.vars["public"] = i.public()
	i.post("auth/$jwt_mount/config", `{"jwt_validation_pubkeys":[$public],"bound_issuer":"https://issuer.test"}`).is(204)
}

func (i *issuer) login(change map[string]any) *reply {
	i.Helper()
	i.sign(usual(change))
	return i.as("$none").post("auth/$jwt_mount/login", `{"role":"$ci","jwt":"$jwt"}`)
}

var jwtCases = []Case{
	scripted("jwt, config and roles", func(s *script) {
		i := s.issuer(false)
		s.post("sys/auth/$jwt_mount", `{"type":"jwt"}`).is(204)
		s.get("auth/$jwt_mount/config").refused(404)
		s.as("$none").post("auth/$jwt_mount/login", `{"role":"x","jwt":"x"}`).refused(400, "could not load configuration")
		s.post("auth/$jwt_mount/config", `{}`).is(400)
		s.post("auth/$jwt_mount/config", `{"jwt_validation_pubkeys":["bad"]}`).is(400)
		s.vars["public"] = i.public()
		s.post("auth/$jwt_mount/config", `{"jwt_validation_pubkeys":[$public],"bound_issuer":"https://issuer.test"}`).is(204)
		s.get("auth/$jwt_mount/config").is(200).has("data.bound_issuer", `"https://issuer.test"`).elide()
		s.list("auth/$jwt_mount/role").refused(404)
		s.post("auth/$jwt_mount/role/$ci", `{"role_type":"jwt"}`).refused(400, "a user claim must be defined on the role")
		s.post("auth/$jwt_mount/role/$ci", `{"role_type":"jwt","user_claim":"sub"}`).refused(400, "must have at least one bound constraint when creating/updating a role")
		s.post("auth/$jwt_mount/role/$ci", `{"role_type":"jwt","user_claim":"sub","bound_audiences":["vault"],"bound_claims":{"repository":"tamshai/*"},"bound_claims_type":"glob","token_policies":["p1"],"token_ttl":"10m"}`).is(204)
		s.get("auth/$jwt_mount/role/$ci").is(200)
		s.post("auth/$jwt_mount/role/$ci", `{"role_type":"jwt","user_claim":"sub","claim_mappings":{"repository":"repo"}}`).is(204)
		s.get("auth/$jwt_mount/role/$ci").is(200)
		s.list("auth/$jwt_mount/role").is(200)
		s.get("auth/$jwt_mount/role/nosuch").refused(404)
		s.del("auth/$jwt_mount/role/$ci").is(204)
		s.del("auth/$jwt_mount/role/$ci").is(204)
	}),
	scripted("jwt, login by RS256", func(s *script) {
		i := s.issuer(false)
		i.mount()
		s.post("auth/$jwt_mount/role/$ci", `{"role_type":"jwt","user_claim":"sub","bound_audiences":["vault"],"bound_claims":{"repository":"tamshai/*"},"bound_claims_type":"glob","token_policies":["p1"],"token_ttl":"10m","claim_mappings":{"repository":"repo"}}`).is(204)
		i.login(nil).is(200).has("auth.metadata", `{"repo":"tamshai/phoenix","role":"$ci"}`).has("auth.lease_duration", "600").let("tok", "auth.client_token")
		s.as("$tok").get("auth/token/lookup-self").is(200)
		s.as("$tok").post("auth/token/renew-self", `{}`).is(200)
		i.login(map[string]any{"aud": []string{"other", "vault"}}).is(200)
		i.login(map[string]any{"aud": "other"}).is(400)
		i.login(map[string]any{"repository": "evil/x"}).is(400)
		i.login(map[string]any{"repository": nil}).is(400)
		i.login(map[string]any{"iss": "https://other.test"}).refused(400, "error validating token: invalid issuer (iss) claim")
		i.login(map[string]any{"iat": 1000, "exp": 2000}).refused(400, "error validating token: invalid expiration time (exp) claim: token is expired")
		i.login(map[string]any{"nbf": time.Now().Add(time.Hour).Unix()}).is(400)
		i.login(map[string]any{"iat": nil, "exp": nil}).is(400)
		i.login(map[string]any{"sub": nil}).refused(400, `claim "sub" not found in token`)
		i.key = s.issuer(false).key
		i.login(nil).is(400)
		s.as("$none").post("auth/$jwt_mount/login", `{"role":"nosuch","jwt":"$jwt"}`).refused(400, `role "nosuch" could not be found`)
		s.as("$none").post("auth/$jwt_mount/login", `{"role":"$ci"}`).refused(400, "missing token")
		s.as("$none").post("auth/$jwt_mount/login", `{"jwt":"x"}`).refused(400, "missing role")
		s.as("$none").post("auth/$jwt_mount/login", `{"role":"$ci","jwt":"bad"}`).is(400)
		s.del("auth/$jwt_mount/role/$ci").is(204)
		s.as("$tok").post("auth/token/renew-self", `{}`).is(500)
	}),
	scripted("jwt, login by ES256", func(s *script) {
		i := s.issuer(true)
		i.mount()
		s.post("auth/$jwt_mount/role/$ci", `{"role_type":"jwt","user_claim":"sub","bound_claims":{"repository":["x","tamshai/phoenix"]}}`).is(204)
		i.login(map[string]any{"aud": nil}).is(200)
		i.login(nil).refused(400, "audience claim found in JWT but no audiences bound to the role")
		s.post("auth/$jwt_mount/role/$ci", `{"role_type":"jwt","user_claim":"repository","bound_subject":"repo:tamshai/phoenix","bound_audiences":"vault","bound_claims":{}}`).is(204)
		i.login(nil).is(200)
		s.post("auth/$jwt_mount/role/$ci", `{"role_type":"jwt","user_claim":"sub","bound_subject":"","bound_audiences":"vault","bound_claims":{"/job/ref":"main","/job/run":[7,8],"ok":true}}`).is(204)
		i.login(map[string]any{"job": map[string]any{"ref": "main", "run": 7}, "ok": true}).is(200)
		i.login(map[string]any{"job": map[string]any{"ref": "dev", "run": 7}, "ok": true}).is(400)
		i.login(map[string]any{"job": "main", "ok": true}).is(400)
		s.post("auth/$jwt_mount/role/$ci", `{"role_type":"jwt","user_claim":"repository","bound_subject":"repo:tamshai/phoenix","bound_audiences":"vault","bound_claims":{}}`).is(204)
		i.login(map[string]any{"sub": "other"}).refused(400, "error validating token: invalid subject (sub) claim")
	}),
}
