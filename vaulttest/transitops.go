package vaulttest

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"math/big"
)

// secretKey is one version of a key. It also implements signer or sealer.
type secretKey interface {
	private() string // as export shows it
}

type asymmetric interface {
	curve() string
	public() string
}

type signer interface {
	asymmetric
	sign(message []byte, how signing) (string, error)
	verify(message []byte, signature string, how signing) bool
}

type sealer interface {
	seal(plain []byte) ([]byte, error)
	unseal(sealed []byte) ([]byte, error)
}

// signing is how a signature is made.
type signing struct {
	hash      crypto.Hash
	named     bool // the request said which hash
	prehashed bool // the message is a digest already
	jws       bool // ECDSA's two numbers bare instead of in ASN.1
	pkcs1     bool // RSA by PKCS #1 v1.5 instead of PSS
}

func (s signing) digest(message []byte) []byte {
	if s.prehashed {
		return message
	}
	h := s.hash.New()
	h.Write(message)
	return h.Sum(nil)
}

var hashes = map[string]crypto.Hash{
	"": crypto.SHA256, "sha2-224": crypto.SHA224, "sha2-256": crypto.SHA256,
	"sha2-384": crypto.SHA384, "sha2-512": crypto.SHA512,
}

// keyKinds make a new key of each type.
var keyKinds = map[string]func() (secretKey, error){
	"aes256-gcm96": func() (secretKey, error) {
		key := make([]byte, 32)
		rand.Read(key)
		return aesKey(key), nil
	},
	"ed25519": func() (secretKey, error) {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return edKey{key}, err
	},
	"ecdsa-p256": ecKeyMaker(elliptic.P256()),
	"ecdsa-p384": ecKeyMaker(elliptic.P384()),
	"rsa-2048":   rsaKeyMaker(2048, "rsa-2048"),
	"rsa-4096":   rsaKeyMaker(4096, "rsa-4096"),
}

type edKey struct{ ed25519.PrivateKey }

func (k edKey) private() string { return base64.StdEncoding.EncodeToString(k.PrivateKey) }
func (k edKey) curve() string   { return "ed25519" }
func (k edKey) public() string {
	return base64.StdEncoding.EncodeToString(k.Public().(ed25519.PublicKey))
}

func (k edKey) sign(message []byte, how signing) (string, error) {
	if how.named {
		return "", refuse("failed to parse batch item: only Pure Ed25519 signatures supported, hash_alogithm should not be set") // Vault's spelling
	}
	return base64.StdEncoding.EncodeToString(ed25519.Sign(k.PrivateKey, message)), nil
}

func (k edKey) verify(message []byte, signature string, _ signing) bool {
	sig, err := base64.StdEncoding.DecodeString(signature)
	return err == nil && ed25519.Verify(k.Public().(ed25519.PublicKey), message, sig)
}

type ecKey struct{ *ecdsa.PrivateKey }

func ecKeyMaker(curve elliptic.Curve) func() (secretKey, error) {
	return func() (secretKey, error) {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		return ecKey{key}, err
	}
}

func (k ecKey) private() string {
	der, _ := x509.MarshalECPrivateKey(k.PrivateKey)
	return string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
}
func (k ecKey) curve() string  { return k.Curve.Params().Name }
func (k ecKey) public() string { return publicPEM(k.Public()) }

func publicPEM(key crypto.PublicKey) string {
	der, _ := x509.MarshalPKIXPublicKey(key)
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func (k ecKey) sign(message []byte, how signing) (string, error) {
	if !how.jws {
		sig, err := ecdsa.SignASN1(rand.Reader, k.PrivateKey, how.digest(message))
		return base64.StdEncoding.EncodeToString(sig), err
	}
	r, s, err := ecdsa.Sign(rand.Reader, k.PrivateKey, how.digest(message))
	if err != nil {
		return "", err
	}
	size := (k.Curve.Params().BitSize + 7) / 8
	sig := append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...)
	return base64.RawURLEncoding.EncodeToString(sig), nil
}

func (k ecKey) verify(message []byte, signature string, how signing) bool {
	if !how.jws {
		sig, err := base64.StdEncoding.DecodeString(signature)
		return err == nil && ecdsa.VerifyASN1(&k.PublicKey, how.digest(message), sig)
	}
	sig, err := base64.RawURLEncoding.DecodeString(signature)
	return err == nil && verifyRaw(&k.PublicKey, how.digest(message), sig)
}

// verifyRaw verifies an ECDSA signature in the form of a JWT: two numbers.
func verifyRaw(key *ecdsa.PublicKey, digest, sig []byte) bool {
	if half := (key.Curve.Params().BitSize + 7) / 8; len(sig) == 2*half {
		r, s := new(big.Int).SetBytes(sig[:half]), new(big.Int).SetBytes(sig[half:])
		return ecdsa.Verify(key, digest, r, s)
	}
	return false
}

type rsaKey struct {
	*rsa.PrivateKey
	kind string
}

func rsaKeyMaker(bits int, kind string) func() (secretKey, error) {
	return func() (secretKey, error) {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		return rsaKey{key, kind}, err
	}
}

func (k rsaKey) private() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(k.PrivateKey)}))
}
func (k rsaKey) curve() string  { return k.kind }
func (k rsaKey) public() string { return publicPEM(k.Public()) }

func (k rsaKey) sign(message []byte, how signing) (string, error) {
	var sig []byte
	var err error
	if how.pkcs1 {
		sig, err = rsa.SignPKCS1v15(rand.Reader, k.PrivateKey, how.hash, how.digest(message))
	} else {
		sig, err = rsa.SignPSS(rand.Reader, k.PrivateKey, how.hash, how.digest(message), nil)
	}
	return base64.StdEncoding.EncodeToString(sig), err
}

func (k rsaKey) verify(message []byte, signature string, how signing) bool {
	sig, err := base64.StdEncoding.DecodeString(signature)
	if err != nil {
		return false
	}
	if how.pkcs1 {
		return rsa.VerifyPKCS1v15(&k.PublicKey, how.hash, how.digest(message), sig) == nil
	}
	return rsa.VerifyPSS(&k.PublicKey, how.hash, how.digest(message), sig, nil) == nil
}

func (k rsaKey) seal(plain []byte) ([]byte, error) {
	return rsa.EncryptOAEP(crypto.SHA256.New(), rand.Reader, &k.PublicKey, plain, nil)
}

func (k rsaKey) unseal(sealed []byte) ([]byte, error) {
	return rsa.DecryptOAEP(crypto.SHA256.New(), nil, k.PrivateKey, sealed, nil)
}

type aesKey []byte

func (k aesKey) private() string { return base64.StdEncoding.EncodeToString(k) }

func (k aesKey) gcm() cipher.AEAD {
	block, err := aes.NewCipher(k)
	if err != nil {
		panic("vaulttest: AES key: " + err.Error())
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		panic("vaulttest: GCM: " + err.Error())
	}
	return gcm
}

func (k aesKey) seal(plain []byte) ([]byte, error) {
	gcm := k.gcm()
	nonce := make([]byte, gcm.NonceSize())
	rand.Read(nonce)
	return gcm.Seal(nonce, nonce, plain, nil), nil
}

func (k aesKey) unseal(sealed []byte) ([]byte, error) {
	gcm := k.gcm()
	if len(sealed) < gcm.NonceSize() {
		return nil, errors.New("invalid ciphertext length")
	}
	plain, err := gcm.Open(nil, sealed[:gcm.NonceSize()], sealed[gcm.NonceSize():], nil)
	if err != nil {
		return nil, errors.New("cipher: message authentication failed")
	}
	return plain, nil
}

// signingOf reads how a request wants its signature.
func signingOf(req *request, p params) (signing, error) {
	name := req.arg("hash")
	if name == "" {
		name = p.str("hash_algorithm")
	}
	hash, ok := hashes[name]
	if !ok {
		return signing{}, refuse("invalid hash algorithm %q", name)
	}
	prehashed, err := p.boolean("prehashed", false)
	if err != nil {
		return signing{}, err
	}
	return signing{
		hash: hash, named: name != "", prehashed: prehashed,
		jws:   p.str("marshaling_algorithm") == "jws",
		pkcs1: p.str("signature_algorithm") == "pkcs1v15",
	}, nil
}

// macOf reads the hash of an HMAC, whose field has another name.
func macOf(req *request, p params) (signing, error) {
	name := req.arg("hash")
	if name == "" {
		name = p.str("algorithm")
	}
	hash, ok := hashes[name]
	if !ok {
		return signing{}, refuse("unsupported algorithm %q", '\x00') // Vault prints the number that it has found none for
	}
	return signing{hash: hash}, nil
}

func (b *transit) sign(req *request) (*response, error) {
	k := b.keys[req.arg("name")]
	if k == nil {
		return nil, refuse("signing key not found")
	}
	if _, ok := k.latest().(signer); !ok {
		return nil, refuse("key type %s does not support signing", k.kind)
	}
	return batchOf(req, func(p params) (map[string]any, error) {
		message, err := input(p, "input", "unable to decode input: %s")
		if err != nil {
			return nil, err
		}
		how, err := signingOf(req, p)
		if err != nil {
			return nil, err
		}
		n, v, err := k.pick(p)
		if err != nil {
			return nil, err
		}
		signature, err := v.secret.(signer).sign(message, how)
		if err != nil {
			return nil, err
		}
		return map[string]any{"signature": prefixed(n, signature), "key_version": asNumber(n)}, nil
	})
}

func (b *transit) verify(req *request) (*response, error) {
	k := b.keys[req.arg("name")]
	if k == nil {
		return nil, refuse("signature verification key not found")
	}
	return batchOf(req, func(p params) (map[string]any, error) {
		switch {
		case p.has("signature") && p.has("hmac"):
			return nil, refuse("provide one of 'signature', 'hmac' or 'cmac'")
		case p.has("hmac"):
			return k.verifyHMAC(req, p)
		case !p.has("signature"):
			return nil, refuse("missing one of 'signature', 'hmac' or 'cmac' arguments to verify")
		}
		if _, ok := k.latest().(signer); !ok {
			return nil, refuse("key type %s does not support verification", k.kind)
		}
		message, err := input(p, "input", "unable to decode input: %s")
		if err != nil {
			return nil, err
		}
		how, err := signingOf(req, p)
		if err != nil {
			return nil, err
		}
		v, signature, err := k.parse("signature", p.str("signature"))
		if err != nil {
			return nil, err
		}
		return map[string]any{"valid": v.secret.(signer).verify(message, signature, how)}, nil
	})
}

func (b *transit) hmac(req *request) (*response, error) {
	k := b.keys[req.arg("name")]
	if k == nil {
		return nil, refuse("encryption key not found")
	}
	return batchOf(req, func(p params) (map[string]any, error) {
		if !p.has("input") {
			return nil, refuse("missing input for HMAC")
		}
		message, err := input(p, "input", "unable to decode input as base64: %s")
		if err != nil {
			return nil, err
		}
		how, err := macOf(req, p)
		if err != nil {
			return nil, err
		}
		n, v, err := k.pick(p)
		if err != nil {
			return nil, err
		}
		return map[string]any{"hmac": prefixed(n, base64.StdEncoding.EncodeToString(v.mac(message, how.hash)))}, nil
	})
}

func (v transitVersion) mac(message []byte, hash crypto.Hash) []byte {
	m := hmac.New(hash.New, v.hmac)
	m.Write(message)
	return m.Sum(nil)
}

func (k *transitKey) verifyHMAC(req *request, p params) (map[string]any, error) {
	message, err := input(p, "input", "unable to decode input as base64: %s")
	if err != nil {
		return nil, err
	}
	how, err := macOf(req, p)
	if err != nil {
		return nil, err
	}
	v, text, err := k.parse("HMAC to verify", p.str("hmac"))
	if err != nil {
		return nil, err
	}
	sum, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, refuse("unable to decode verification string as base64: %s", err)
	}
	return map[string]any{"valid": hmac.Equal(sum, v.mac(message, how.hash))}, nil
}

func (b *transit) encrypt(req *request) (*response, error) {
	k := b.keys[req.arg("name")]
	if k == nil {
		var err error
		if k, err = b.newKey(req.arg("name"), "aes256-gcm96"); err != nil {
			return nil, err
		}
	}
	return batchOf(req, func(p params) (map[string]any, error) {
		if !p.has("plaintext") {
			return nil, refuse("missing plaintext to encrypt")
		}
		plain, err := input(p, "plaintext", "%s")
		if err != nil {
			return nil, err
		}
		n, v, err := k.pick(p)
		if err != nil {
			return nil, err
		}
		s, ok := v.secret.(sealer)
		if !ok {
			return nil, refuse("message encryption not supported for key type %s", k.kind)
		}
		sealed, err := s.seal(plain)
		if err != nil {
			return nil, refuse("%v", err)
		}
		return map[string]any{"ciphertext": prefixed(n, base64.StdEncoding.EncodeToString(sealed)), "key_version": asNumber(n)}, nil
	})
}

func (b *transit) decrypt(req *request) (*response, error) {
	k := b.keys[req.arg("name")]
	if k == nil {
		return nil, refuse("encryption key not found")
	}
	return batchOf(req, func(p params) (map[string]any, error) {
		if p.str("ciphertext") == "" {
			return nil, refuse("missing ciphertext to decrypt")
		}
		v, text, err := k.parse("ciphertext", p.str("ciphertext"))
		if err != nil {
			return nil, err
		}
		s, ok := v.secret.(sealer)
		if !ok {
			return nil, refuse("message decryption not supported for key type %s", k.kind)
		}
		sealed, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, refuse("invalid ciphertext: could not decode base64")
		}
		plain, err := s.unseal(sealed)
		if err != nil {
			return nil, refuse("%v", err)
		}
		return map[string]any{"plaintext": base64.StdEncoding.EncodeToString(plain)}, nil
	})
}
