package httpguard

import (
	"net/http"
)

// headers returns those of the request that may leave: without what is for the
// gateway or for one connection, and without any that has personal data in it.
func (x *exchange) headers() http.Header {
	out := x.request.Header.Clone()
	for _, name := range []string{SessionHeader, TurnHeader, "Cookie", "Connection", "Upgrade", "Http2-Settings"} {
		out.Del(name)
	}
	for name, values := range out {
		if credentials[name] {
			continue
		}
		for _, value := range values {
			for _, f := range x.gateway.Guard.Scan([]byte(name + ": " + value)) {
				if f.Label == "IP_ADDRESS" || !inAddresses[f.Label] {
					x.counts[f.Label]++
					delete(out, name)
				}
			}
		}
	}
	out.Set("Accept-Encoding", "identity")
	return out
}

// credentials are the headers that are the provider's to read, and those without a
// value of anybody's: a version of a browser looks like an address.
var credentials = set(`Authorization X-Api-Key Api-Key X-Goog-Api-Key User-Agent`)

// inAddresses are the kinds of values that addresses and identifiers have anyway.
var inAddresses = set(`SECRET URL DOMAIN_NAME IP_ADDRESS DATE_TIME CRYPTO`)

// address refuses personal data in the path and the query, which cannot be
// rewritten without being another address. Keys and identifiers belong there.
func (x *exchange) address() error {
	refused := map[string]int{}
	for _, part := range []string{x.request.URL.Path, x.request.URL.RawQuery, x.request.URL.Opaque} {
		for _, f := range x.gateway.Guard.Scan([]byte(part)) {
			x.hidden = x.hidden || f.Label == "SECRET" || !inAddresses[f.Label]
			if !inAddresses[f.Label] {
				x.counts[f.Label]++
				refused[f.Label]++
			}
		}
	}
	if len(refused) > 0 {
		return refuse(http.StatusBadRequest, "the address has personal data in it (%s); send it in the body", listed(refused))
	}
	return nil
}
