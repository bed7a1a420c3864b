package vault

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/tamshai/phoenix/secrets"
)

// ErrSigningKey is a key, or an answer, that is not fit to sign audit logs.
var ErrSigningKey = errors.New("this is no Ed25519 signing key")

// SigningKey is the public side of an Ed25519 key in a transit engine.
type SigningKey struct {
	Public map[int]ed25519.PublicKey // by version; those that Vault still verifies with
	Latest int                       // the version that signs
}

// SplitSigner takes a reference like "transit/sign/mcp-hr" apart.
func SplitSigner(ref string) (mount, key string, err error) {
	parts := strings.Split(ref, "/")
	if n := len(parts); secrets.CheckPath(ref) == nil && n >= 3 && parts[n-2] == "sign" {
		return strings.Join(parts[:n-2], "/"), parts[n-1], nil
	}
	return "", "", fmt.Errorf("vault: the signing key %q is malformed; write it as mount/sign/key, like transit/sign/mcp-hr", ref)
}

// SigningKey reads the public keys of ref.
func (c *Client) SigningKey(ctx context.Context, ref string) (*SigningKey, error) {
	mount, name, err := SplitSigner(ref)
	if err != nil {
		return nil, err
	}
	path := mount + "/keys/" + name
	resp, err := c.Read(ctx, path, nil)
	if err != nil {
		return nil, err
	}
	wrong := func(detail string) (*SigningKey, error) {
		return nil, &Error{Op: "read the signing key", Path: path, Class: ErrSigningKey, Sent: true, Detail: detail}
	}
	if resp == nil {
		return wrong("the answer is empty")
	}
	if kind, _ := resp.Data["type"].(string); kind != "ed25519" {
		return wrong(fmt.Sprintf("it is of type %.40q; make one of type ed25519", kind))
	}
	key := &SigningKey{Public: map[int]ed25519.PublicKey{}}
	versions, _ := resp.Data["keys"].(map[string]any)
	for number, version := range versions {
		n, err := strconv.Atoi(number)
		fields, _ := version.(map[string]any)
		text, _ := fields["public_key"].(string)
		public, decoded := base64.StdEncoding.DecodeString(text)
		if err != nil || decoded != nil || len(public) != ed25519.PublicKeySize {
			return wrong("version " + number + " has no public key")
		}
		key.Public[n], key.Latest = public, max(key.Latest, n)
	}
	if key.Latest == 0 {
		return wrong("it has no version")
	}
	return key, nil
}

// Sign has Vault sign message with the newest version of ref, and returns that
// version. It is sent once; to repeat it does no harm.
func (c *Client) Sign(ctx context.Context, ref string, message []byte) (signature []byte, version int, err error) {
	if _, _, err := SplitSigner(ref); err != nil {
		return nil, 0, err
	}
	const op = "sign"
	resp, err := c.write(ctx, op, ref, map[string]any{"input": base64.StdEncoding.EncodeToString(message)})
	if err != nil {
		return nil, 0, err
	}
	if resp != nil {
		text, _ := resp.Data["signature"].(string)
		signature, version = parseSignature(text)
		if n, ok := resp.Data["key_version"].(json.Number); ok && n.String() != strconv.Itoa(version) {
			signature = nil
		}
	}
	if len(signature) != ed25519.SignatureSize {
		return nil, 0, &Error{Op: op, Path: ref, Class: ErrSigningKey, Sent: true, Detail: "the answer is no Ed25519 signature"}
	}
	return signature, version, nil
}

// parseSignature reads vault:v1:BASE64.
func parseSignature(text string) ([]byte, int) {
	rest, ok := strings.CutPrefix(text, "vault:v")
	number, encoded, found := strings.Cut(rest, ":")
	version, err := strconv.Atoi(number)
	signature, decoded := base64.StdEncoding.DecodeString(encoded)
	if !ok || !found || err != nil || decoded != nil || version < 1 {
		return nil, 0
	}
	return signature, version
}
