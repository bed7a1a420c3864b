package auditlog

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"
)

// A Genesis is the first record of an epoch: the life of one directory, from
// the first Open until it is wiped.
type Genesis struct {
	Epoch       string    `json:"epoch"` // a UUIDv7
	Service     string    `json:"service,omitempty"`
	Environment string    `json:"environment,omitempty"`
	Host        string    `json:"host,omitempty"`
	Time        time.Time `json:"time"`
}

// A Checkpoint is a statement about records From to To of an epoch. What it
// says is fixed once it is signed and anchored.
type Checkpoint struct {
	Epoch   string    `json:"epoch"`
	Number  uint64    `json:"number"`  // 1, 2, 3, … in the epoch
	Segment uint64    `json:"segment"` // the first record of the Merkle tree
	From    uint64    `json:"from"`    // the first record after the checkpoint before
	To      uint64    `json:"to"`      // the last record of the tree
	Root    Hash      `json:"root"`    // of the RFC 6962 Merkle tree over records Segment to To
	Head    Hash      `json:"head"`    // the chain at record To
	Time    time.Time `json:"time"`

	// Previous is the hash of the checkpoint before. For the first of an epoch
	// it is that of the last anchored one of the epoch before, if it is known.
	Previous      Hash   `json:"previous"`
	PreviousEpoch string `json:"previous_epoch,omitempty"`

	// Closed says that the log was closed properly after record To.
	Closed bool `json:"closed,omitempty"`
}

// A Seal is a signed checkpoint with the leaves that it covers. The signature
// is over the checkpoint's JSON as it stands, after a line that says what it is.
// The leaves need none: with those of the seals before, they give the root.
type Seal struct {
	Checkpoint json.RawMessage `json:"checkpoint"`
	Key        []byte          `json:"key"` // the public key, Ed25519
	Signature  []byte          `json:"signature"`
	Leaves     []byte          `json:"leaves"` // the leaf hashes of records From to To, 32 bytes each
}

// A Signer signs checkpoints with an Ed25519 key, which need not be on this
// host. It is safe for concurrent use.
type Signer interface {
	// Sign returns the signature of message and the public key it was made
	// with. An error means to try again after a while, unless it wraps
	// ErrSignerGone.
	Sign(ctx context.Context, message []byte) (signature []byte, public ed25519.PublicKey, err error)
}

// ErrSignerGone is the error of a Signer that will never sign again. What it
// has not signed is covered by the first checkpoint after the next Open.
var ErrSignerGone = errors.New("auditlog: the key is not at hand any more")

const signedFor = "phoenix audit checkpoint v1\n"

func signedMessage(checkpoint []byte) []byte { return append([]byte(signedFor), checkpoint...) }

// Hash identifies the checkpoint: SHA-256 of what is signed.
func (s *Seal) Hash() Hash { return sha256.Sum256(signedMessage(s.Checkpoint)) }

// ParseSeal reads a seal, and its checkpoint, as it is in a log or an anchor.
// It does not verify anything but the form.
func ParseSeal(data []byte) (*Seal, Checkpoint, error) {
	var s Seal
	var c Checkpoint
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, c, fmt.Errorf("auditlog: this is no checkpoint: %w", err)
	}
	if err := json.Unmarshal(s.Checkpoint, &c); err != nil {
		return nil, c, fmt.Errorf("auditlog: this is no checkpoint: %w", err)
	}
	if c.From == 0 || c.Segment == 0 || c.Segment > c.From || c.From > c.To || c.To-c.From >= maxPayload || len(s.Leaves) != int(c.To-c.From+1)*sha256.Size {
		return nil, c, fmt.Errorf("auditlog: this is no checkpoint: it covers records %d to %d of segment %d with %d bytes of hashes", c.From, c.To, c.Segment, len(s.Leaves))
	}
	return &s, c, nil
}

// signedBy reports whether the signature is by one of keys; without keys, by
// the key that the seal itself names.
func (s *Seal) signedBy(keys []ed25519.PublicKey) bool {
	if len(keys) == 0 {
		keys = []ed25519.PublicKey{s.Key}
	}
	message := signedMessage(s.Checkpoint)
	for _, key := range keys {
		if len(key) == ed25519.PublicKeySize && ed25519.Verify(key, message, s.Signature) {
			return true
		}
	}
	return false
}

func (s *Seal) leaf(i int) Hash { return Hash(s.Leaves[i*sha256.Size : (i+1)*sha256.Size]) }

// seal signs a checkpoint.
func seal(ctx context.Context, signer Signer, c Checkpoint, leaves []byte) (*Seal, error) {
	text, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	signature, public, err := signer.Sign(ctx, signedMessage(text))
	if err != nil {
		return nil, fmt.Errorf("auditlog: sign checkpoint %d of epoch %s: %w", c.Number, c.Epoch, err)
	}
	s := &Seal{Checkpoint: text, Key: public, Signature: signature, Leaves: leaves}
	if !s.signedBy([]ed25519.PublicKey{public}) {
		return nil, errors.New("auditlog: the signer returned a signature that its own key does not verify; it must be an Ed25519 key, not pre-hashed")
	}
	return s, nil
}

// NewSigner returns a Signer with a private key in memory. An attacker who
// takes the host takes such a key too: only anchors tell then. Prefer a key
// that stays in Vault.
func NewSigner(key crypto.Signer) (Signer, error) {
	public, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("auditlog: checkpoints are signed with Ed25519, not with %T", key.Public())
	}
	return memorySigner{key, public}, nil
}

type memorySigner struct {
	key    crypto.Signer
	public ed25519.PublicKey
}

func (s memorySigner) Sign(_ context.Context, message []byte) ([]byte, ed25519.PublicKey, error) {
	signature, err := s.key.Sign(rand.Reader, message, crypto.Hash(0))
	return signature, s.public, err
}

// FileSigner returns a Signer with the key in a file: PKCS #8 in PEM, as
// "openssl genpkey -algorithm ed25519" writes it, which others cannot read.
func FileSigner(path string) (Signer, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("auditlog: the signing key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("auditlog: others can read the signing key %s; chmod 600 %s, and replace it if somebody has", path, path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("auditlog: the signing key: %w", err)
	}
	block, _ := pem.Decode(data)
	clear(data)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("auditlog: %s is no private key in PEM; make one with: openssl genpkey -algorithm ed25519 -out %s", path, path)
	}
	defer clear(block.Bytes)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("auditlog: the signing key %s: not PKCS #8", path) // the error may quote it
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("auditlog: the signing key %s cannot sign", path)
	}
	return NewSigner(signer)
}

// ParsePublicKeys reads Ed25519 public keys in PEM, as "openssl pkey -pubout"
// writes them. The public half of a private key is taken from it as well.
func ParsePublicKeys(data []byte) ([]ed25519.PublicKey, error) {
	var keys []ed25519.PublicKey
	for len(bytes.TrimSpace(data)) > 0 {
		block, rest := pem.Decode(data)
		if block == nil {
			return nil, errors.New("auditlog: this is no public key in PEM")
		}
		data = rest
		var key any
		var err error
		switch block.Type {
		case "PUBLIC KEY":
			key, err = x509.ParsePKIXPublicKey(block.Bytes)
		case "PRIVATE KEY":
			if key, err = x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
				if private, ok := key.(ed25519.PrivateKey); ok {
					key = private.Public()
				}
			}
		default:
			err = fmt.Errorf("it is a %s", block.Type)
		}
		public, ok := key.(ed25519.PublicKey)
		if err != nil || !ok {
			return nil, errors.New("auditlog: this is no Ed25519 public key in PEM")
		}
		keys = append(keys, public)
	}
	if len(keys) == 0 {
		return nil, errors.New("auditlog: there is no public key in it")
	}
	return keys, nil
}
