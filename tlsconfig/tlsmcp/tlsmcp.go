// Package tlsmcp makes the MCP servers of the official Go SDK know who calls
// over mutual TLS, on each request.
//
// A stateful MCP server runs the handlers of a session with the context of the
// request that created it. So whoever learns a session's id, and has any
// certificate that is accepted, is taken for the peer that created the session.
// [Bind] ties each session to its peer, and the SDK then answers 403:
//
//	handler := mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, nil)
//	server.AddReceivingMiddleware(tlsmcp.Rules{Tools: map[string]tlsconfig.Authorizer{
//		"list_employees": tlsconfig.AllowDNS("mcp-gateway"),
//	}}.Middleware())
//	srv := &http.Server{Handler: tlsmcp.Bind(handler)}
//	drainer, err := tlsconfig.WrapServer(srv, identity, tlsconfig.AllowDNS("mcp-gateway", "mcp-ui"))
//
// In a handler, [Peer] is who sent this request. Where users' bearer tokens
// come along, use [Verifier] in place of Bind. [Rules] say which peer may call
// which tool.
//
// A client needs nothing of this package: give mcp.StreamableClientTransport an
// HTTPClient whose Transport is tlsconfig.NewTransport's.
package tlsmcp

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/tamshai/phoenix/tlsconfig"
)

// peerKey is where TokenInfo.Extra holds the peer.
const peerKey = "github.com/tamshai/phoenix/tlsconfig/tlsmcp.peer"

// Bind returns a handler that ties each session of next to the peer that was
// verified for the connection. next is a handler of the SDK; Bind stands behind
// tlsconfig's WrapServer, and answers 403 where there is no verified peer.
//
// The peer is known by the names in its certificate, so that a renewed
// certificate may go on with the session, and one with other names may not.
// What a request has in Authorization reaches next, but is not looked at.
func Bind(next http.Handler) http.Handler {
	const header = "Authorization"
	// The SDK takes an identity from a bearer token alone. It gets one that
	// says nothing; what counts is the connection.
	bound := auth.RequireBearerToken(Verifier(nil), nil)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if given, ok := r.Context().Value(givenKey{}).([]string); ok && given != nil {
			r.Header[header] = given
		} else {
			r.Header.Del(header)
		}
		next.ServeHTTP(w, r)
	}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := peerOf(r); err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		given := r.Header[header]
		r = r.Clone(context.WithValue(r.Context(), givenKey{}, given))
		r.Header.Set(header, "Bearer peer")
		bound.ServeHTTP(w, r)
	})
}

type givenKey struct{}

// Verifier returns a verifier of bearer tokens, for auth.RequireBearerToken,
// that binds sessions to the peer of the connection and to the user whom next
// finds in the token. With a nil next any token will do, and says nothing.
func Verifier(next auth.TokenVerifier) auth.TokenVerifier {
	return func(ctx context.Context, token string, r *http.Request) (*auth.TokenInfo, error) {
		peer, err := peerOf(r)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", auth.ErrInvalidToken, err)
		}
		info := &auth.TokenInfo{Expiration: peer.Certificate.NotAfter}
		if next != nil {
			verified, err := next(ctx, token, r)
			if err != nil {
				return nil, err
			}
			if verified == nil {
				return nil, fmt.Errorf("%w: the verifier knows nothing of it", auth.ErrInvalidToken)
			}
			copied := *verified
			info = &copied
		}
		extra := map[string]any{}
		for name, value := range info.Extra {
			extra[name] = value
		}
		extra[peerKey] = peer
		info.UserID, info.Extra = bound(peer, info.UserID), extra
		return info, nil
	}
}

// bound names the peer, by all of its names, and the user.
func bound(peer tlsconfig.PeerIdentity, user string) string {
	uris, dns := slices.Sorted(slices.Values(peer.URIs)), slices.Sorted(slices.Values(peer.DNSNames))
	return fmt.Sprintf("%q %q %q", uris, dns, user)
}

func peerOf(r *http.Request) (tlsconfig.PeerIdentity, error) {
	peer, ok := tlsconfig.Peer(r)
	if !ok {
		return peer, fmt.Errorf("no peer was verified for the connection; serve with tlsconfig.WrapServer")
	}
	if len(peer.URIs) == 0 && len(peer.DNSNames) == 0 {
		return peer, fmt.Errorf("the certificate of %s names nobody: it has no URI and no DNS name", peer)
	}
	return peer, nil
}

// Peer returns who sent the request that a handler answers: the identity that
// was verified for the connection on which it came, not on which its session
// was created. It is false behind neither Bind nor Verifier.
func Peer(r mcp.Request) (tlsconfig.PeerIdentity, bool) {
	extra := r.GetExtra()
	if extra == nil || extra.TokenInfo == nil {
		return tlsconfig.PeerIdentity{}, false
	}
	peer, ok := extra.TokenInfo.Extra[peerKey].(tlsconfig.PeerIdentity)
	return peer, ok
}
