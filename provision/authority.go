package provision

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// pkiIssuer is an authority that a PKI mount holds.
type pkiIssuer struct {
	id, name string
	keyID    string // "": the mount has its certificate alone
	isMain   bool   // the mount's default
	cert     *x509.Certificate
}

// selfSigned reports whether it is a root.
func (i pkiIssuer) selfSigned() bool { return i.cert.CheckSignatureFrom(i.cert) == nil }

// below reports whether root has signed it.
func (i pkiIssuer) below(root pkiIssuer) bool {
	return bytes.Equal(i.cert.RawIssuer, root.cert.RawSubject) && i.cert.CheckSignatureFrom(root.cert) == nil
}

// issuers returns what a mount holds, in the order of its age. Vault tells that
// to everybody.
func (c *conn) issuers(ctx context.Context, mount string) ([]pkiIssuer, error) {
	data, err := c.read(ctx, mount+"/issuers", url.Values{"list": {"true"}})
	if err != nil {
		return nil, err
	}
	info, _ := data["key_info"].(map[string]any)
	var out []pkiIssuer
	for id, about := range info {
		about, _ := about.(map[string]any)
		i := pkiIssuer{id: id}
		i.name, _ = about["issuer_name"].(string)
		i.keyID, _ = about["key_id"].(string)
		i.isMain, _ = about["is_default"].(bool)
		data, err := c.read(ctx, mount+"/issuer/"+id+"/json", nil)
		if err != nil {
			return nil, err
		}
		if data == nil { // it has gone meanwhile
			continue
		}
		text, _ := data["certificate"].(string)
		if i.cert, err = parsePEM(text); err != nil {
			return nil, fmt.Errorf("provision: the issuer %s of %s: %w", id, mount, err)
		}
		out = append(out, i)
	}
	slices.SortFunc(out, func(a, b pkiIssuer) int {
		return cmp.Or(a.cert.NotBefore.Compare(b.cert.NotBefore), cmp.Compare(a.number(), b.number()), cmp.Compare(a.id, b.id))
	})
	return out, nil
}

func parsePEM(text string) (*x509.Certificate, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("Vault's answer holds no certificate in PEM form")
	}
	return x509.ParseCertificate(block.Bytes)
}

// rootName begins the name of each root that is made here, before its number.
// No two issuers of a mount have the same name, so that two runs at once do not
// make two roots.
const rootName = "phoenix-root-"

// intermediateName begins the name of each intermediate's key, before the
// number of its root.
const intermediateName = "phoenix-intermediate-"

func intermediateKey(root pkiIssuer) string {
	return intermediateName + strconv.Itoa(max(root.number(), 1))
}

// number is that in the issuer's name, 0 if it has another name.
func (i pkiIssuer) number() int {
	n, _ := strconv.Atoi(strings.TrimPrefix(i.name, rootName))
	return n
}

// roots are the issuers of a root mount that can sign, the oldest first.
func roots(all []pkiIssuer) []pkiIssuer {
	return slices.DeleteFunc(slices.Clone(all), func(i pkiIssuer) bool { return i.keyID == "" || !i.selfSigned() })
}

// mainIssuer returns the mount's default issuer, nil if there is none.
func mainIssuer(all []pkiIssuer) *pkiIssuer {
	for i := range all {
		if all[i].isMain {
			return &all[i]
		}
	}
	return nil
}

// under returns the issuers with a key that root has signed, the oldest first.
func under(all []pkiIssuer, root pkiIssuer) []pkiIssuer {
	return slices.DeleteFunc(slices.Clone(all), func(i pkiIssuer) bool { return i.keyID == "" || !i.below(root) })
}

// makeRoot makes another root, the one of that number. It does not become the
// mount's default unless it is the first.
func (c *conn) makeRoot(ctx context.Context, e *Estate, number int) error {
	name := rootName + strconv.Itoa(number)
	return c.write(ctx, e.PKI.Root.Mount+"/root/generate/internal", map[string]any{
		"common_name": fmt.Sprintf("%s root %d", e.Owner, number), "issuer_name": name, "key_name": name,
		"key_type": "ec", "key_bits": 256, "ttl": seconds(e.PKI.Root.TTL), "max_path_length": 1,
		"exclude_cn_from_sans": true,
	})
}

// makeIntermediate makes an intermediate below root. An attempt that ended
// half-way has left a key without a certificate, which is used; the key of
// another root's intermediate never is.
func (c *conn) makeIntermediate(ctx context.Context, e *Estate, root pkiIssuer) error {
	mount := e.PKI.Intermediate.Mount
	all, err := c.issuers(ctx, mount)
	if err != nil {
		return err
	}
	spare, err := c.spareKeys(ctx, mount, all)
	if err != nil {
		return err
	}
	key := intermediateKey(root)
	name := fmt.Sprintf("%s intermediate %d", e.Owner, max(root.number(), 1))
	body, path := map[string]any{"common_name": name, "exclude_cn_from_sans": true}, mount+"/intermediate/generate/"
	if slices.ContainsFunc(spare, func(k mountKey) bool { return k.name == key }) {
		path += "existing"
		body["key_ref"] = key
	} else {
		path += "internal"
		body["key_type"], body["key_bits"], body["key_name"] = "ec", 256, key
	}
	made, err := c.send(ctx, path, body)
	if err != nil {
		return err
	}
	csr, _ := made["csr"].(string)
	signed, err := c.send(ctx, e.PKI.Root.Mount+"/issuer/"+root.id+"/sign-intermediate", map[string]any{
		"csr": csr, "common_name": name, "ttl": seconds(e.life(root)), "max_path_length": 0, "format": "pem_bundle", "exclude_cn_from_sans": true,
	})
	if err != nil {
		return err
	}
	bundle, _ := signed["certificate"].(string)
	return c.write(ctx, mount+"/intermediate/set-signed", map[string]any{"certificate": bundle})
}

// life is how long an intermediate below root can be good.
func (e *Estate) life(root pkiIssuer) time.Duration {
	return min(e.PKI.Intermediate.TTL, time.Until(root.cert.NotAfter).Truncate(time.Second))
}

// spareKeys returns the keys of a mount that no issuer has.
func (c *conn) spareKeys(ctx context.Context, mount string, all []pkiIssuer) ([]mountKey, error) {
	data, err := c.read(ctx, mount+"/keys", url.Values{"list": {"true"}})
	if err != nil {
		return nil, err
	}
	info, _ := data["key_info"].(map[string]any)
	var spare []mountKey
	for id, about := range info {
		if !slices.ContainsFunc(all, func(i pkiIssuer) bool { return i.keyID == id }) {
			about, _ := about.(map[string]any)
			name, _ := about["key_name"].(string)
			spare = append(spare, mountKey{mount, id, name})
		}
	}
	return spare, nil
}
