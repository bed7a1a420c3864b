// Package post sends bodies to collectors over HTTPS and says what the answer
// means for a batch of audit events.
package post

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/tamshai/phoenix/auditlog"
)

// A Config says where a collector is and how to get in.
type Config struct {
	URL    string                      // https://…; http:// only to a loopback address
	Token  func() (string, error)      // read for each request; nil: none
	Scheme string                      // before the token; empty: "Bearer"
	User   string                      // not empty: HTTP's basic authentication, with the token as password
	TLS    func() (*tls.Config, error) // read for each connection; nil: the system's roots, and HTTPS_PROXY is heeded
}

// A Client posts to one address. It is safe for concurrent use.
type Client struct {
	cfg  Config
	url  string
	host string // for errors: what is behind it may be a secret
	http *http.Client
}

// New checks cfg. It does not connect.
func New(cfg Config) (*Client, error) {
	u, err := url.Parse(cfg.URL)
	switch {
	case err != nil || u.Host == "":
		return nil, errors.New("the collector's URL is none; it is like https://logs.example.com/path")
	case u.User != nil:
		return nil, errors.New("the collector's URL has a user or a password in it; give them apart")
	case u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())):
		return nil, fmt.Errorf("the collector at %s must be spoken to over https; http is for a loopback address only", u.Host)
	}
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:   10 * time.Second,
		MaxIdleConns:          2,
		IdleConnTimeout:       90 * time.Second,
		ExpectContinueTimeout: time.Second,
		ForceAttemptHTTP2:     true,
	}
	if cfg.TLS != nil {
		transport.Proxy = nil // the certificate is for the collector
		transport.DialTLSContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			return Dial(ctx, addr, cfg.TLS)
		}
	}
	c := &Client{cfg: cfg, url: cfg.URL, host: u.Scheme + "://" + u.Host, http: &http.Client{
		Transport: transport,
		// The token is for the address that the operator named.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	return c, nil
}

// Dial connects and shakes hands with what source returns at this moment.
func Dial(ctx context.Context, addr string, source func() (*tls.Config, error)) (*tls.Conn, error) {
	cfg := &tls.Config{}
	if source != nil {
		given, err := source()
		if err != nil {
			return nil, fmt.Errorf("the certificate: %w", err)
		}
		cfg = given.Clone()
	}
	cfg.MinVersion = max(cfg.MinVersion, tls.VersionTLS12)
	dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second}, Config: cfg}
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return conn.(*tls.Conn), nil
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// An Answer is what a collector said.
type Answer struct {
	Status     int
	Text       string        // the beginning of the body, without the token
	RetryAfter time.Duration // when to come back; 0: it does not say
	host       string
}

// Post sends body, compressed if zip says so. An error means that there was no
// answer that can be understood.
func (c *Client) Post(ctx context.Context, contentType string, body []byte, zip bool, header map[string]string) (Answer, error) {
	if zip {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, err := w.Write(body)
		if err = errors.Join(err, w.Close()); err != nil {
			return Answer{}, err
		}
		body = b.Bytes()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return Answer{}, c.plain(err, "")
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("User-Agent", "phoenix-audit")
	if zip {
		req.Header.Set("Content-Encoding", "gzip")
	}
	for name, value := range header {
		req.Header.Set(name, value)
	}
	token := "" // and what stands for it in the header
	if c.cfg.Token != nil {
		if token, err = c.cfg.Token(); err != nil {
			return Answer{}, fmt.Errorf("the token for %s: %w", c.host, err)
		}
		if token = strings.TrimSpace(token); token == "" || strings.ContainsFunc(token, func(r rune) bool { return r < ' ' || r > '~' }) {
			return Answer{}, fmt.Errorf("the token for %s is empty or has characters that none has", c.host)
		}
		if c.cfg.User != "" {
			req.SetBasicAuth(c.cfg.User, token)
			token += " " + strings.TrimPrefix(req.Header.Get("Authorization"), "Basic ")
		} else if c.cfg.Scheme != "" {
			req.Header.Set("Authorization", c.cfg.Scheme+" "+token)
		} else {
			req.Header.Set("Authorization", "Bearer "+token)
		}
	}
	res, err := c.http.Do(req)
	if err != nil {
		return Answer{}, c.plain(err, token)
	}
	defer res.Body.Close()
	const most = 64 << 10
	text, err := io.ReadAll(io.LimitReader(res.Body, most))
	if err != nil {
		return Answer{}, c.plain(err, token)
	}
	return Answer{
		Status: res.StatusCode, Text: hide(string(text), token), host: c.host,
		RetryAfter: retryAfter(res.Header.Get("Retry-After"), res.Header.Get("Date")),
	}, nil
}

// plain makes an error that has neither path nor query nor token.
func (c *Client) plain(err error, token string) error {
	var inURL *url.Error
	if errors.As(err, &inURL) {
		err = inURL.Err
	}
	return &opaque{hide(fmt.Sprintf("%s: %v", c.host, err), token), err}
}

// opaque shows a text of ours and still unwraps.
type opaque struct {
	text string
	err  error
}

func (e *opaque) Error() string { return e.text }
func (e *opaque) Unwrap() error { return e.err }

func hide(text, token string) string {
	for part := range strings.FieldsSeq(token) {
		text = strings.ReplaceAll(text, part, "[token]")
	}
	return text
}

// retryAfter reads the header of RFC 9110, section 10.2.3: seconds or a date,
// which is compared with the server's own clock.
func retryAfter(value, date string) time.Duration {
	if seconds, err := strconv.ParseInt(value, 10, 32); err == nil {
		return time.Duration(max(seconds, 0)) * time.Second
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(date)
	if err != nil {
		now = time.Now()
	}
	return max(at.Sub(now), 0)
}

// String is the answer in a line, for errors.
func (a Answer) String() string {
	const most = 200
	text := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, a.Text[:min(len(a.Text), most)])
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " ")
	if text == "" {
		return fmt.Sprintf("%s answers %d", a.host, a.Status)
	}
	return fmt.Sprintf("%s answers %d: %s", a.host, a.Status, text)
}

// Err is what an answer that is no success means to auditlog: see
// auditlog.Sink. What may be the operator's mistake (credentials, paths,
// formats, redirects) is tried again; what can only be the events is not.
func (a Answer) Err() error {
	err := errors.New(a.String())
	switch a.Status {
	case http.StatusBadRequest, http.StatusNotAcceptable, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		return auditlog.Refused(err)
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired:
		err = fmt.Errorf("%w; it does not take the credentials: put a valid token in its place", err)
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		err = fmt.Errorf("%w; redirects are not followed: configure the address that it names", err)
	}
	if a.RetryAfter > 0 {
		return auditlog.RetryAfter(err, a.RetryAfter)
	}
	return err
}
