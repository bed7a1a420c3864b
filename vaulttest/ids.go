package vaulttest

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
)

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// newName returns n random letters and digits: accessors, lease ids.
func newName(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	for i := range b {
		b[i] = base62[int(b[i])%len(base62)] // the slight bias is no matter here
	}
	return string(b)
}

func newUUID() string {
	b := make([]byte, 16)
	rand.Read(b)
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

func newHex(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// newTokenID returns a token of the form and length that Vault's have.
func newTokenID(kind tokenKind, root bool) string {
	switch {
	case kind == batch:
		return "hvb.AAAAAQ" + newBase64(100)
	case root:
		return "hvs." + newName(24)
	}
	return "hvs.CAESI" + newBase64(64)
}

func newBase64(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return base64.RawURLEncoding.EncodeToString(b)
}
