package vault_test

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tamshai/phoenix/internal/vault"
)

// A pkiMount answers as the public paths of a PKI mount do.
type pkiMount struct {
	certs map[string]string // by the issuer's id
	keys  map[string]string // likewise; those that are not here have none
	gone  string            // the id of one that is deleted once it is listed
	crl   string
}

func (p *pkiMount) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer := func(data any) { _ = json.NewEncoder(w).Encode(map[string]any{"data": data}) }
	if r.Header.Get("X-Vault-Token") != "" {
		w.WriteHeader(http.StatusTeapot) // nobody needs one here
		return
	}
	id, form, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v1/pki-root/issuer/"), "/")
	switch {
	case r.URL.Path == "/v1/pki-root/issuers" && len(p.certs) > 0:
		info := map[string]any{}
		for id := range p.certs {
			info[id] = map[string]any{"key_id": p.keys[id]}
		}
		answer(map[string]any{"key_info": info})
	case id == p.gone && id != "":
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = w.Write([]byte(`{"errors":["1 error occurred:\n\t* unable to find PKI issuer for reference: ` + id + `\n\n"]}`))
	case form == "json":
		answer(map[string]any{"certificate": p.certs[id]})
	case form == "crl":
		answer(map[string]any{"crl": p.crl})
	default:
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(`{"errors":[]}`))
	}
}

func TestRootsThatCannotBeHad(t *testing.T) {
	s := newSigner(t, time.Hour)
	tests := map[string]struct {
		certs map[string]string
		want  error
		word  string
	}{
		"none":                    {nil, vault.ErrNotFound, "no self-signed issuer"},
		"only one below the root": {map[string]string{"i": encode(s.ca)}, vault.ErrNotFound, "no self-signed issuer"},
		"no PEM":                  {map[string]string{"i": "x"}, nil, "does not parse"},
		"a damaged one":           {map[string]string{"r": encode(s.root), "i": strings.Replace(encode(s.ca), "MII", "AAA", 1)}, nil, "does not parse"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := serve(t, (&pkiMount{certs: test.certs}).ServeHTTP)
			k, err := vault.KeepRoots(t.Context(), c, vault.RootsConfig{Mount: "pki-root", Poll: -1, Log: slog.New(slog.DiscardHandler)})
			if err == nil {
				k.Close()
				t.Fatal("kept")
			}
			if test.want != nil && !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.word) || !strings.Contains(err.Error(), "pki-root/issuer") {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestRootsAndCRLs(t *testing.T) {
	s := newSigner(t, time.Hour)
	p := &pkiMount{certs: map[string]string{"i": encode(s.ca), "r": encode(s.root)}, keys: map[string]string{"r": "k"}, crl: "the CRL"}
	c := serve(t, p.ServeHTTP)
	k, err := vault.KeepRoots(t.Context(), c, vault.RootsConfig{Mount: "pki-root", Poll: -1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if roots := k.Current(); len(roots) != 1 || !roots[0].Equal(s.root) {
		t.Errorf("the roots are %v", roots)
	}
	if changed, err := k.Refresh(t.Context()); changed || err != nil {
		t.Errorf("nothing has changed: %v, %v", changed, err)
	}
	if lists, err := c.CRLs(t.Context(), "pki-root"); err != nil || len(lists) != 1 || string(lists[0].List) != "the CRL" || !lists[0].Authority.Equal(s.root) {
		t.Errorf("the CRLs are %v, %v", lists, err)
	}
	if lists, err := c.CRLs(t.Context(), "elsewhere"); err != nil || len(lists) > 0 {
		t.Errorf("of a mount without issuers: %v, %v", lists, err)
	}
}

// An authority that a roll deletes between two requests is no failure.
func TestIssuerDeletedMeanwhile(t *testing.T) {
	s := newSigner(t, time.Hour)
	p := &pkiMount{certs: map[string]string{"i": encode(s.ca), "r": encode(s.root)}, keys: map[string]string{"i": "k", "r": "k"}, crl: "the CRL", gone: "i"}
	c := serve(t, p.ServeHTTP)
	k, err := vault.KeepRoots(t.Context(), c, vault.RootsConfig{Mount: "pki-root", Poll: -1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if roots := k.Current(); len(roots) != 1 || !roots[0].Equal(s.root) {
		t.Errorf("the roots are %v", roots)
	}
	if lists, err := c.CRLs(t.Context(), "pki-root"); err != nil || len(lists) != 1 || !lists[0].Authority.Equal(s.root) {
		t.Errorf("the CRLs are %v, %v", lists, err)
	}
}
