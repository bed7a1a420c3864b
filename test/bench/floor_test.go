package bench_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"

	"golang.org/x/sync/errgroup"
)

// A floor is what somebody would write by hand who needs the same and nothing
// else: the same requests, as parallel as they can be, bare net/http, one
// connection. It has no retry, no renewal, no audit, no scrubbing, no handles,
// and its errors help nobody.
type floor struct {
	addr   string
	client *http.Client
	token  string
	values []string
}

type dialer func(ctx context.Context, network, addr string) (net.Conn, error)

func startFloor(ctx context.Context, addr string, ca []byte, dial dialer, r role, file string) (*floor, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, errors.New("no CA")
	}
	f := &floor{addr: addr, client: &http.Client{Transport: &http.Transport{
		DialContext: dial, TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true,
	}}}
	if err := f.start(ctx, r, file); err != nil {
		f.client.CloseIdleConnections()
		return nil, err
	}
	return f, nil
}

func (f *floor) start(ctx context.Context, r role, file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	wrapping, rolePath := strings.TrimSpace(string(data)), "auth/approle/role/"+r.name+"/secret-id"

	var wrap struct {
		Data struct {
			CreationPath string `json:"creation_path"`
			CreationTTL  int    `json:"creation_ttl"`
		}
	}
	if err := f.do(ctx, http.MethodPut, "sys/wrapping/lookup", "", obj{"token": wrapping}, &wrap); err != nil {
		return err
	}
	if wrap.Data.CreationPath != rolePath || wrap.Data.CreationTTL > 900 {
		return errors.New("tampered")
	}
	var unwrapped struct {
		Data struct {
			SecretID string `json:"secret_id"`
		}
	}
	if err := f.do(ctx, http.MethodPut, "sys/wrapping/unwrap", wrapping, nil, &unwrapped); err != nil {
		return err
	}
	secretID := obj{"secret_id": unwrapped.Data.SecretID}
	var login struct {
		Auth struct {
			ClientToken string `json:"client_token"`
			Metadata    struct {
				RoleName string `json:"role_name"`
			}
		}
	}
	if err := f.do(ctx, http.MethodPut, "auth/approle/login", "", obj{"role_id": r.id(), "secret_id": unwrapped.Data.SecretID}, &login); err != nil {
		return err
	}
	if login.Auth.Metadata.RoleName != r.name {
		return errors.New("another role")
	}
	f.token = login.Auth.ClientToken

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := f.do(ctx, http.MethodPut, rolePath+"/destroy", f.token, secretID, nil); err != nil {
			return err
		}
		var still any
		if err := f.do(ctx, http.MethodPut, rolePath+"/lookup", f.token, secretID, &still); err != nil {
			return err
		}
		if still != nil {
			return errors.New("not gone")
		}
		return os.Remove(file)
	})
	f.values = make([]string, r.secrets)
	for i, ref := range r.refs() {
		group.Go(func() error {
			path, _, _ := strings.Cut(strings.TrimPrefix(ref, mount+"/"), "#")
			var secret struct {
				Data struct{ Data struct{ Value string } }
			}
			err := f.do(ctx, http.MethodGet, mount+"/data/"+path, f.token, nil, &secret)
			f.values[i] = secret.Data.Data.Value
			return err
		})
	}
	return group.Wait()
}

// do sends one request. An answer without a body leaves out as it is.
func (f *floor) do(ctx context.Context, method, path, token string, in obj, out any) error {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, f.addr+"/v1/"+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("X-Vault-Request", "true")
	if token != "" {
		req.Header.Set("X-Vault-Token", token)
	}
	resp, err := f.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s: status %d", path, resp.StatusCode)
	}
	if resp.StatusCode == http.StatusNoContent || out == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		return err
	}
	return json.NewDecoder(resp.Body).Decode(out)
}

func (f *floor) close(ctx context.Context) error {
	err := f.do(ctx, http.MethodPut, "auth/token/revoke-self", f.token, nil, nil)
	f.client.CloseIdleConnections()
	return err
}
