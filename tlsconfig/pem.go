package tlsconfig

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// ParseMaterial makes a Material of PEM texts, as NewMaterial does. cert holds
// the certificate and then those between it and the root. cert and key may be
// one combined text.
func ParseMaterial(cert, key, bundle []byte) (*Material, error) {
	chain, err := ParseCertificates(cert)
	if err != nil {
		return nil, &MaterialError{What: "certificate", Err: err}
	}
	signer, err := parseKey(key)
	if err != nil {
		return nil, &MaterialError{What: "key", Err: err}
	}
	trusted, err := ParseCertificates(bundle)
	if err != nil {
		return nil, &MaterialError{What: "bundle", Err: err}
	}
	return NewMaterial(signer, chain, trusted)
}

// ParseCertificates reads the certificates in a PEM text, in their order. Keys
// and parameters between them are passed over. A text that is cut off, or that
// holds no certificate, is an error: half a bundle must not pass for a whole.
func ParseCertificates(text []byte) ([]*x509.Certificate, error) {
	blocks, err := pemBlocks(text)
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for _, block := range blocks {
		if block.Type != "CERTIFICATE" {
			if passedOver(block.Type) {
				continue
			}
			return nil, fmt.Errorf("a PEM block of type %q where a CERTIFICATE belongs; is it the right file?", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d does not parse: %w", len(certs)+1, err)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, errors.New("no CERTIFICATE in it; is it the right file, in PEM?")
	}
	return certs, nil
}

func passedOver(blockType string) bool {
	return blockType == "EC PARAMETERS" || strings.HasSuffix(blockType, "PRIVATE KEY")
}

// parseKey reads the one private key in a PEM text. Its errors hold nothing of
// the text.
func parseKey(text []byte) (crypto.Signer, error) {
	blocks, err := pemBlocks(text)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, b := range blocks {
			clear(b.Bytes)
		}
	}()
	var found crypto.Signer
	for _, block := range blocks {
		if strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") { // RFC 1421, as OpenSSL writes it
			return nil, fmt.Errorf("the %s is encrypted; encrypted keys are not supported, keep it on tmpfs without a password", block.Type)
		}
		var key any
		var err error
		switch block.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "CERTIFICATE", "EC PARAMETERS":
			continue
		default:
			return nil, fmt.Errorf("a PEM block of type %q where a private key belongs; encrypted keys are not supported, keep it on tmpfs without a password", block.Type)
		}
		if err != nil {
			return nil, fmt.Errorf("the %s does not parse; is the file whole?", block.Type)
		}
		signer, ok := key.(crypto.Signer)
		if !ok {
			return nil, fmt.Errorf("a key of type %T cannot sign; use ECDSA, Ed25519 or RSA", key)
		}
		if found != nil {
			return nil, errors.New("more than one private key; keep the one of the certificate")
		}
		found = signer
	}
	if found == nil {
		return nil, errors.New("no private key in it; is it the right file, in PEM?")
	}
	return found, nil
}

// pemBlocks decodes text. encoding/pem silently passes over what is damaged,
// so each beginning must have become a block.
func pemBlocks(text []byte) ([]*pem.Block, error) {
	var blocks []*pem.Block
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		blocks = append(blocks, block)
	}
	if begun := bytes.Count(text, []byte("-----BEGIN ")); begun != len(blocks) {
		return nil, fmt.Errorf("%d PEM blocks begin, and %d are whole: it is cut off or damaged; write it anew, under another name, and rename it", begun, len(blocks))
	}
	return blocks, nil
}
