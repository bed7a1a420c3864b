package conformance

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/bits"
	"regexp"
	"slices"
	"strings"
	"time"
)

// What is random in a PKI's answers, but not in what it says, is written here
// so that transcripts can be compared: certificates as what they certify,
// serial numbers and ids by the words SERIAL and UUID.

var (
	pemBlock = regexp.MustCompile(`(?s)-----BEGIN [A-Z0-9 ]+-----.*?-----END [A-Z0-9 ]+-----`)
	serial   = regexp.MustCompile(`\b([0-9a-f]{2}:){12,19}[0-9a-f]{2}\b`)
	uuid     = regexp.MustCompile(`\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b`)
)

// namedByChance reports whether a list or the keys of an object are all ids or
// serial numbers, whose order is random.
func namedByChance(names []string) bool {
	return len(names) > 0 && !slices.ContainsFunc(names, func(name string) bool {
		return name == "" || uuid.FindString(name) != name && serial.FindString(name) != name
	})
}

// unordered is an object with keys of chance as the list of its values.
func unordered(obj map[string]any) (any, bool) {
	var names, values []string
	for name, value := range obj {
		text, err := json.Marshal(normalize("", value))
		if err != nil {
			return nil, false
		}
		names, values = append(names, name), append(values, string(text))
	}
	if !namedByChance(names) {
		return nil, false
	}
	slices.Sort(values)
	list := make([]any, len(values))
	for i, text := range values {
		list[i] = json.RawMessage(text)
	}
	return list, true
}

// describePEM writes what the PEM blocks of a text say.
func describePEM(text string) string {
	return pemBlock.ReplaceAllStringFunc(text, func(text string) string {
		block, _ := pem.Decode([]byte(text))
		if block == nil {
			return text
		}
		return "<" + block.Type + describeDER(block.Bytes) + ">"
	})
}

// describeRaw is for an answer that is no JSON: PEM, or DER.
func describeRaw(raw []byte) string {
	if len(raw) > 0 && raw[0] == 0x30 {
		return "<DER" + describeDER(raw) + ">"
	}
	return describePEM(string(raw))
}

func describeDER(der []byte) string {
	if c, err := x509.ParseCertificate(der); err == nil {
		return describeCertificate(c)
	}
	if list, err := x509.ParseRevocationList(der); err == nil {
		return fmt.Sprintf(" of %s, %d revoked, for %v", list.Issuer, len(list.RevokedCertificateEntries), list.NextUpdate.Sub(list.ThisUpdate))
	}
	if r, err := x509.ParseCertificateRequest(der); err == nil {
		return fmt.Sprintf(" %s %v%v%v%v %s", r.Subject, r.DNSNames, r.IPAddresses, r.URIs, r.EmailAddresses, r.PublicKeyAlgorithm)
	}
	return ""
}

func describeCertificate(c *x509.Certificate) string {
	var b strings.Builder
	fmt.Fprintf(&b, " %s by %s, %s, for %v", c.Subject, c.Issuer, c.PublicKeyAlgorithm, roundLife(c.NotAfter.Sub(c.NotBefore)))
	fmt.Fprintf(&b, ", names %v%v%v%v", c.DNSNames, c.IPAddresses, c.URIs, c.EmailAddresses)
	fmt.Fprintf(&b, ", usage %b(%d) %v", c.KeyUsage, bits.OnesCount(uint(c.KeyUsage)), c.ExtKeyUsage)
	if c.IsCA {
		fmt.Fprintf(&b, ", CA with path length %d", c.MaxPathLen)
	}
	if !c.BasicConstraintsValid {
		b.WriteString(", without constraints")
	}
	if c.CRLDistributionPoints != nil || c.IssuingCertificateURL != nil {
		fmt.Fprintf(&b, ", see %v %v", c.CRLDistributionPoints, c.IssuingCertificateURL)
	}
	return b.String()
}

// roundLife forgives the seconds between two steps, on a busy machine too.
func roundLife(d time.Duration) time.Duration { return (d + 50*time.Second).Truncate(time.Minute) }
