package provision

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/secrets"
)

// GitHubLogin is how a job of GitHub Actions logs in to Vault: it fetches an
// identity token from GitHub and trades it at a JWT mount.
type GitHubLogin struct {
	Role     string // of the JWT mount
	Mount    string // "" means "jwt"
	Audience string // what the identity token is for; the role is bound to it

	// RequestURL and RequestToken are what GitHub gives a job that has the
	// permission "id-token: write": ACTIONS_ID_TOKEN_REQUEST_URL and _TOKEN.
	RequestURL   string
	RequestToken secrets.Secret

	// HTTP fetches the identity token; nil means a client that follows no
	// redirect and gives up after 15 s.
	HTTP *http.Client
}

// maxAnswer bounds the answer of GitHub in bytes.
const maxAnswer = 64 << 10

// Login returns a client with a token of its own, which the caller revokes
// (RevokeSelf) when done. Both requests are sent once.
func (g GitHubLogin) Login(ctx context.Context, client *vault.Client) (*vault.Client, error) {
	if g.Mount == "" {
		g.Mount = "jwt"
	}
	if g.RequestURL == "" || g.RequestToken.IsZero() {
		return nil, errors.New("provision: this is no job of GitHub Actions that may ask for an identity token; give the job permissions: {id-token: write}")
	}
	identity, err := g.fetch(ctx, client)
	if err != nil {
		return nil, fmt.Errorf("provision: fetch the identity token from GitHub: %w", err)
	}
	resp, err := client.Write(ctx, "auth/"+g.Mount+"/login", map[string]any{"role": g.Role, "jwt": identity.Reveal()})
	if err != nil {
		return nil, fmt.Errorf("provision: log in as the JWT role %s: %w; compare its bound audience and claims with this job's", g.Role, err)
	}
	if resp == nil || resp.Auth == nil || resp.Auth.Token.IsZero() {
		return nil, fmt.Errorf("provision: log in as the JWT role %s: the answer holds no token", g.Role)
	}
	return client.WithToken(resp.Auth.Token)
}

func (g GitHubLogin) fetch(ctx context.Context, client *vault.Client) (secrets.Secret, error) {
	client.Scrubber().Add(g.RequestToken)
	u, err := url.Parse(g.RequestURL)
	if err != nil || u.Host == "" || u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Hostname())) {
		return secrets.Secret{}, errors.New("ACTIONS_ID_TOKEN_REQUEST_URL is not an https address")
	}
	query := u.Query()
	query.Set("audience", g.Audience)
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return secrets.Secret{}, errors.New("ACTIONS_ID_TOKEN_REQUEST_URL is malformed")
	}
	req.Header.Set("Authorization", "Bearer "+g.RequestToken.Reveal())
	httpClient := g.HTTP
	if httpClient == nil {
		transport := &http.Transport{Proxy: http.ProxyFromEnvironment}
		defer transport.CloseIdleConnections()
		httpClient = &http.Client{
			Transport: transport, Timeout: 15 * time.Second,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	resp, err := httpClient.Do(req)
	if err != nil {
		// The address in err may hold what should not be shown.
		var inner *url.Error
		if errors.As(err, &inner) {
			err = inner.Err
		}
		return secrets.Secret{}, fmt.Errorf("no answer from %s: %w", u.Host, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return secrets.Secret{}, fmt.Errorf("%s answers %s", u.Host, resp.Status)
	}
	var answer struct {
		Value string `json:"value"`
	}
	if json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&answer) != nil || answer.Value == "" {
		return secrets.Secret{}, fmt.Errorf("%s answers without a token", u.Host)
	}
	identity := secrets.NewString(answer.Value)
	client.Scrubber().Add(identity)
	return identity, nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
