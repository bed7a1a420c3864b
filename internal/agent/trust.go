package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"time"
)

// Trust is what /trust shows, for "phoenix certs roll --agent": whom the agent's
// connections trust at this moment, and with which certificate of its own.
type Trust struct {
	// Generation is that of the certificate with its roots, 0 if there is none.
	Generation uint64    `json:"generation"`
	Expires    time.Time `json:"expires,omitzero"` // the end of the certificate
	Roots      []Root    `json:"roots"`
}

// A Root is an authority that is trusted.
type Root struct {
	Subject string `json:"subject"`
	SHA256  string `json:"sha256"` // of the certificate, in hexadecimal digits
}

// trust answers with what is in use, not with what Vault says should be.
func (s *status) trust(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	session := s.session
	s.mu.Unlock()
	out := Trust{Roots: []Root{}}
	if session != nil {
		roots, _ := session.Roots()
		if m := session.Identity().Current(); m.Leaf() != nil {
			roots, out.Generation, out.Expires = m.Bundle(), m.Generation(), m.Expires().UTC()
		}
		for _, r := range roots {
			sum := sha256.Sum256(r.Raw)
			out.Roots = append(out.Roots, Root{Subject: r.Subject.String(), SHA256: hex.EncodeToString(sum[:])})
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(out)
}
