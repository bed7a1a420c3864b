package vaulttest

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
)

// version is the Vault that is imitated.
const version = "1.21.1"

// sealState is the bookkeeping of the unseal keys. Any of the keys count as a
// share; there is nothing to decrypt.
type sealState struct {
	initialized bool
	sealed      bool
	shares      []string // base64
	threshold   int
	given       map[string]bool
	nonce       string
}

func newSealState() sealState {
	key := make([]byte, 32)
	rand.Read(key)
	return sealState{initialized: true, shares: []string{base64.StdEncoding.EncodeToString(key)}, threshold: 1, given: map[string]bool{}}
}

// standby is a server that is not the leader.
type standby struct{ leader string }

// Seal seals Vault: everything but its status answers 503.
func (s *Server) Seal() { s.vault().setSealed(true) }

// Unseal unseals Vault again; what it held is still there.
func (s *Server) Unseal() { s.vault().setSealed(false) }

// UnsealKey returns the key that PUT sys/unseal takes, in base64.
func (s *Server) UnsealKey() string {
	c := s.vault()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seal.shares[0]
}

// SetStandby makes the server a standby of the Vault at leader, a URL: its health
// is 429, and requests are redirected with 307. With an empty URL no leader is
// known, and requests end in a 500. [Server.SetActive] takes it back.
func (s *Server) SetStandby(leader string) { s.vault().setStandby(&standby{leader: leader}) }

// SetActive makes the server the active one again.
func (s *Server) SetActive() { s.vault().setStandby(nil) }

func (c *core) setSealed(sealed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seal.sealed, c.seal.given, c.seal.nonce = sealed, map[string]bool{}, ""
}

func (c *core) setStandby(s *standby) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.standby = s
}

func (c *core) isSealed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seal.sealed
}

// redirect tells whether the server is a standby, and whose.
func (c *core) redirect() (leader string, isStandby bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.standby == nil || c.seal.sealed {
		return "", false
	}
	return c.standby.leader, true
}

// serveStatus answers the paths that need no unsealed Vault.
func (c *core) serveStatus(w http.ResponseWriter, r *http.Request, body []byte) bool {
	write := r.Method == http.MethodPut || r.Method == http.MethodPost
	c.mu.Lock()
	defer c.mu.Unlock()
	switch path := strings.TrimPrefix(r.URL.Path, "/v1/sys/"); path {
	case "health":
		c.serveHealth(w, r)
	case "seal-status":
		writeJSON(w, http.StatusOK, c.sealStatus())
	case "leader":
		writeJSON(w, http.StatusOK, c.leader())
	case "init":
		if write {
			writeErrors(w, http.StatusBadRequest, "Vault is already initialized")
			break
		}
		writeJSON(w, http.StatusOK, map[string]bool{"initialized": c.seal.initialized})
	case "unseal":
		if !write {
			writeErrors(w, http.StatusMethodNotAllowed)
			break
		}
		c.serveUnseal(w, body)
	case "seal":
		if !c.seal.sealed || !write {
			return false // it takes a token to seal, but none to seal again
		}
		w.WriteHeader(http.StatusNoContent)
	default:
		return false
	}
	return true
}

func (c *core) serveHealth(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	code := func(name string, fallback int) int {
		if n, err := strconv.Atoi(query.Get(name)); err == nil {
			return n
		}
		return fallback
	}
	flag := func(name string) bool {
		on, err := strconv.ParseBool(query.Get(name))
		return query.Has(name) && (on || err != nil)
	}
	status := code("activecode", http.StatusOK)
	isStandby := c.standby != nil || c.seal.sealed
	switch {
	case c.seal.sealed:
		status = code("sealedcode", http.StatusServiceUnavailable)
	case isStandby && !flag("standbyok"):
		status = code("standbycode", http.StatusTooManyRequests)
	}
	body := map[string]any{
		"initialized":                       c.seal.initialized,
		"sealed":                            c.seal.sealed,
		"standby":                           isStandby,
		"performance_standby":               false,
		"replication_performance_mode":      "disabled",
		"replication_dr_mode":               "disabled",
		"server_time_utc":                   c.clock.now().Unix(),
		"version":                           version,
		"enterprise":                        false,
		"echo_duration_ms":                  0,
		"clock_skew_ms":                     0,
		"replication_primary_canary_age_ms": 0,
	}
	if c.seal.sealed {
		body["replication_performance_mode"], body["replication_dr_mode"] = "unknown", "unknown"
	} else {
		body["cluster_name"], body["cluster_id"] = c.cluster, c.clusterID
	}
	if r.Method == http.MethodHead {
		w.WriteHeader(status)
		return
	}
	writeJSON(w, status, body)
}

func (c *core) sealStatus() map[string]any {
	d := map[string]any{
		"type":          "shamir",
		"initialized":   c.seal.initialized,
		"sealed":        c.seal.sealed,
		"t":             c.seal.threshold,
		"n":             len(c.seal.shares),
		"progress":      len(c.seal.given),
		"nonce":         c.seal.nonce,
		"version":       version,
		"build_date":    "2025-11-18T13:04:32Z",
		"migration":     false,
		"recovery_seal": false,
		"storage_type":  "inmem",
	}
	if !c.seal.sealed {
		d["cluster_name"], d["cluster_id"] = c.cluster, c.clusterID
	}
	return d
}

func (c *core) leader() map[string]any {
	d := map[string]any{
		"ha_enabled":                          c.standby != nil,
		"is_self":                             false,
		"active_time":                         "0001-01-01T00:00:00Z",
		"leader_address":                      "",
		"leader_cluster_address":              "",
		"performance_standby":                 false,
		"performance_standby_last_remote_wal": 0,
	}
	if c.standby != nil {
		d["leader_address"] = c.standby.leader
	}
	return d
}

func (c *core) serveUnseal(w http.ResponseWriter, body []byte) {
	data, err := parseBody(body)
	if err != nil {
		writeErrors(w, http.StatusBadRequest, "error parsing JSON")
		return
	}
	if reset, _ := data.boolean("reset", false); reset {
		c.seal.given, c.seal.nonce = map[string]bool{}, ""
		writeJSON(w, http.StatusOK, c.sealStatus())
		return
	}
	key := data.str("key")
	if key == "" {
		writeErrors(w, http.StatusBadRequest, "'key' must be specified in request body as JSON, or 'reset' set to true")
		return
	}
	if raw, err := hex.DecodeString(key); err == nil {
		key = base64.StdEncoding.EncodeToString(raw)
	}
	if _, err := base64.StdEncoding.DecodeString(key); err != nil {
		writeErrors(w, http.StatusBadRequest, "'key' must be a valid hex or base64 string")
		return
	}
	if c.seal.sealed {
		c.unsealWith(w, key)
		return
	}
	writeJSON(w, http.StatusOK, c.sealStatus())
}

func (c *core) unsealWith(w http.ResponseWriter, key string) {
	if c.seal.nonce == "" {
		c.seal.nonce = newUUID()
	}
	c.seal.given[key] = true
	if len(c.seal.given) < c.seal.threshold {
		writeJSON(w, http.StatusOK, c.sealStatus())
		return
	}
	good := 0
	for _, share := range c.seal.shares {
		if c.seal.given[share] {
			good++
		}
	}
	c.seal.given, c.seal.nonce = map[string]bool{}, ""
	if good < c.seal.threshold {
		writeErrors(w, http.StatusBadRequest, "unable to retrieve stored keys: invalid key: failed to decrypt keys from storage: error decrypting seal wrapped value\nerror decrypting using seal shamir: cipher: message authentication failed")
		return
	}
	c.seal.sealed = false
	writeJSON(w, http.StatusOK, c.sealStatus())
}
