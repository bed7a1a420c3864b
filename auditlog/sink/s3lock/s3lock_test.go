package s3lock_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/auditlog/sink/internal/sinktest"
	"github.com/tamshai/phoenix/auditlog/sink/s3lock"
	"github.com/tamshai/phoenix/internal/leak"
	"github.com/tamshai/phoenix/internal/reals3"
)

var (
	server  *reals3.Server
	buckets atomic.Int64 // made so far: a test that is run again has one of its own
)

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "s3lock")
	if err != nil {
		panic(err)
	}
	s, stop, err := reals3.Start(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	server = s
	code := m.Run()
	stop()
	_ = os.RemoveAll(dir)
	if err := leak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// checked asserts what Amazon wants of each object, which test servers do not.
type checked struct {
	t  *testing.T
	rt *http.Transport
}

func (c checked) RoundTrip(r *http.Request) (*http.Response, error) {
	if h := r.Header; r.Method == http.MethodPut && r.URL.RawQuery == "x-id=PutObject" {
		until, err := time.Parse(time.RFC3339, h.Get("X-Amz-Object-Lock-Retain-Until-Date"))
		if h.Get("X-Amz-Checksum-Sha256") == "" || h.Get("If-None-Match") != "*" || h.Get("X-Amz-Object-Lock-Mode") != "COMPLIANCE" || err != nil || time.Until(until) < 50*time.Minute {
			c.t.Errorf("%s: %v", r.URL, h)
		}
	}
	return c.rt.RoundTrip(r)
}

func clientOf(t *testing.T, endpoint string, rt http.RoundTripper) *s3.Client {
	return s3.New(s3.Options{
		BaseEndpoint: &endpoint, Region: reals3.Region, UsePathStyle: true, RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider(reals3.AccessKey, reals3.SecretKey, ""),
		HTTPClient:  &http.Client{Transport: rt},
	})
}

// client is checked; raw is an attacker's.
func client(t *testing.T) *s3.Client {
	rt := &http.Transport{}
	t.Cleanup(rt.CloseIdleConnections)
	return clientOf(t, server.Endpoint, checked{t, rt})
}

func raw(t *testing.T) *s3.Client {
	rt := &http.Transport{}
	t.Cleanup(rt.CloseIdleConnections)
	return clientOf(t, server.Endpoint, rt)
}

func bucket(t *testing.T, locked bool) string {
	t.Helper()
	name := strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name())) + fmt.Sprintf("-%d", buckets.Add(1))
	_, err := raw(t).CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &name, ObjectLockEnabledForBucket: &locked})
	must(t, err)
	return name
}

func sink(t *testing.T, bucket string, cfg s3lock.Config) *s3lock.Sink {
	t.Helper()
	cfg.Client, cfg.Bucket, cfg.Retain, cfg.Linger = client(t), bucket, time.Hour, -1
	s, err := s3lock.New(cfg)
	must(t, err)
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// record appends n events to a log in dir, delivers and anchors them.
func record(t *testing.T, dir string, key ed25519.PrivateKey, n int, s *s3lock.Sink) {
	t.Helper()
	signer, err := auditlog.NewSigner(key)
	must(t, err)
	l, err := auditlog.Open(dir, auditlog.Config{Service: "mcp-hr"})
	must(t, err)
	for i := range n {
		must(t, l.Append(t.Context(), auditlog.Event{Action: fmt.Sprintf("e%03d", i)}))
	}
	must(t, l.Attach(signer, s))
	must(t, l.Close(t.Context()))
}

func newKey(t *testing.T) ed25519.PrivateKey {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	return key
}

func verify(t *testing.T, bucket, prefix string, key ed25519.PrivateKey) (*auditlog.Report, *s3lock.FS) {
	t.Helper()
	fsys, err := s3lock.NewFS(t.Context(), raw(t), bucket, prefix)
	must(t, err)
	anchors, err := fs.Sub(fsys, "anchors")
	must(t, err)
	r, err := auditlog.Verify(t.Context(), fsys, auditlog.VerifyConfig{Keys: []ed25519.PublicKey{key.Public().(ed25519.PublicKey)}, Anchors: anchors})
	must(t, err)
	return r, fsys
}

func TestTheCopyVerifies(t *testing.T) {
	b, key := bucket(t, true), newKey(t)
	record(t, t.TempDir(), key, 50, sink(t, b, s3lock.Config{Prefix: "logs/mcp-hr", MaxBatch: 20}))
	r, fsys := verify(t, b, "logs/mcp-hr", key)
	if r.Err() != nil || r.Events != 50 || len(r.Epochs) != 1 || r.Epochs[0].Open != 0 || !r.Epochs[0].Closed || len(fsys.Unlocked()) != 0 {
		t.Errorf("%v %+v", r.Err(), r)
	}
	must(t, fstest.TestFS(fsys, "anchors", r.Epochs[0].Epoch+"/00000000000000000001.seg"))

	// A host that was wiped goes on with another epoch, which names the last
	// checkpoint that is anchored.
	record(t, t.TempDir(), key, 5, sink(t, b, s3lock.Config{Prefix: "logs/mcp-hr"}))
	if r, _ := verify(t, b, "logs/mcp-hr", key); r.Err() != nil || len(r.Epochs) != 2 || r.Events != 55 || r.Epochs[1].Follows == "" {
		t.Errorf("%v %+v", r.Err(), r)
	}
}

// Who has the host's credentials can hide and overwrite objects, and cannot
// remove or change the versions that were first.
func TestAttacks(t *testing.T) {
	b, key, attacker := bucket(t, true), newKey(t), raw(t)
	record(t, t.TempDir(), key, 30, sink(t, b, s3lock.Config{MaxBatch: 10}))
	versions, err := attacker.ListObjectVersions(t.Context(), &s3.ListObjectVersionsInput{Bucket: &b})
	must(t, err)
	for i, v := range versions.Versions {
		_, err := attacker.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &b, Key: v.Key, VersionId: v.VersionId, BypassGovernanceRetention: aws.Bool(true)})
		if err == nil {
			t.Errorf("%s was removed", *v.Key)
		}
		for _, until := range []time.Time{time.Now().Add(time.Minute), time.Now().Add(48 * time.Hour)} {
			_, err = attacker.PutObjectRetention(t.Context(), &s3.PutObjectRetentionInput{
				Bucket: &b, Key: v.Key, VersionId: v.VersionId, BypassGovernanceRetention: aws.Bool(true),
				Retention: &types.ObjectLockRetention{Mode: types.ObjectLockRetentionModeCompliance, RetainUntilDate: &until},
			})
			if longer := time.Until(until) > time.Hour; longer != (err == nil) {
				t.Errorf("%s, retention until %v: %v", *v.Key, until, err)
			}
		}
		if i%2 == 0 {
			_, err = attacker.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &b, Key: v.Key}) // a delete marker
			must(t, err)
		}
		_, err = attacker.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &b, Key: v.Key, Body: strings.NewReader("forged")})
		must(t, err)
		if i%3 == 0 {
			_, err = attacker.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &b, Key: v.Key})
			must(t, err)
		}
	}
	if r, fsys := verify(t, b, "", key); r.Err() != nil || r.Events != 30 || len(fsys.Unlocked()) > 0 {
		t.Errorf("%v %+v %v", r.Err(), r, fsys.Unlocked())
	}

	// What was never locked is seen.
	_, err = attacker.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &b, Key: aws.String("anchors/0193a2f4-7c1e-7d3a-9a55-3b1c2d4e5f60-0000000001.seal"), Body: strings.NewReader("forged")})
	must(t, err)
	if r, fsys := verify(t, b, "", key); r.Err() == nil || len(fsys.Unlocked()) != 1 {
		t.Errorf("%v %v", r.Err(), fsys.Unlocked())
	}
}

// The cursor is lost, and batches are cut elsewhere: each record is there once.
func TestAgain(t *testing.T) {
	b := bucket(t, true)
	dir := sinktest.Log(t, 40)
	count := func() (n int) {
		fsys, err := s3lock.NewFS(t.Context(), raw(t), b, "")
		must(t, err)
		for e, err := range auditlog.Read(fsys, func(text string) { t.Error(text) }) {
			must(t, err)
			if e.Kind == auditlog.KindEvent {
				n++
			}
		}
		return n
	}
	for _, size := range []int{7, 12, 100, 5, 41} {
		if status := sinktest.Ship(t, dir, sink(t, b, s3lock.Config{MaxBatch: size})); !status.Delivered() || status.Sinks[0].Name != "s3lock" {
			t.Errorf("%+v", status)
		}
		if n := count(); n != 40 {
			t.Fatalf("%d events after batches of %d", n, size)
		}
		must(t, os.RemoveAll(filepath.Join(dir, "cursors")))
	}
	sinktest.Append(t, dir, 5)
	sinktest.Ship(t, dir, sink(t, b, s3lock.Config{MaxBatch: 3}))
	if n := count(); n != 45 {
		t.Errorf("%d events at last", n)
	}
}

func TestSomethingElseIsThere(t *testing.T) {
	b := bucket(t, true)
	batch := sinktest.Entries(t, sinktest.Log(t, 2))
	_, err := raw(t).PutObject(t.Context(), &s3.PutObjectInput{Bucket: &b, Key: aws.String(fmt.Sprintf("%s/%020d.seg", batch[0].Epoch, batch[0].Seq)), Body: strings.NewReader("forged")})
	must(t, err)
	if err := sink(t, b, s3lock.Config{}).Deliver(t.Context(), batch); err == nil || errors.Is(err, auditlog.ErrRefused) || !strings.Contains(err.Error(), "another object is there") {
		t.Errorf("%v", err)
	}
}

func TestAnchor(t *testing.T) {
	b, attacker := bucket(t, true), raw(t)
	s := sink(t, b, s3lock.Config{Prefix: "p"})
	last := func(want string) {
		t.Helper()
		if got, err := s.Last(t.Context()); err != nil || string(got) != want {
			t.Errorf("the last is %q, %v; want %q", got, err, want)
		}
	}
	last("")
	const one, two = "0193a2f4-7c1e-7d3a-9a55-3b1c2d4e5f60", "0194a2f4-7c1e-7d3a-9a55-3b1c2d4e5f60"
	for _, epoch := range []string{one, two} {
		for n := 1; n <= 21; n++ {
			name := fmt.Sprintf("%s-%010d.seal", epoch, n)
			must(t, s.Put(t.Context(), name, []byte(name)))
			if n < 6 || n > 18 {
				last(name)
			}
		}
	}
	name := two + "-0000000021.seal"
	must(t, s.Put(t.Context(), name, []byte(name)))
	if err := s.Put(t.Context(), name, []byte("another")); !errors.Is(err, auditlog.ErrAnchorTaken) {
		t.Errorf("%v", err)
	}
	// Hidden and overwritten, it is still the last, and taken.
	key := "p/anchors/" + name
	_, err := attacker.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &b, Key: &key, Body: strings.NewReader("forged")})
	must(t, err)
	_, err = attacker.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &b, Key: &key})
	must(t, err)
	last(name)
	if err := s.Put(t.Context(), name, []byte("another")); !errors.Is(err, auditlog.ErrAnchorTaken) {
		t.Errorf("behind a delete marker: %v", err)
	}
}

func TestBucketsThatDoNotLock(t *testing.T) {
	batch := sinktest.Entries(t, sinktest.Log(t, 1))
	if err := sink(t, bucket(t, false), s3lock.Config{}).Deliver(t.Context(), batch); err == nil || errors.Is(err, auditlog.ErrRefused) {
		t.Errorf("a bucket without Object Lock: %v", err)
	}
	if err := sink(t, "no-such-bucket", s3lock.Config{}).Deliver(t.Context(), batch); err == nil || errors.Is(err, auditlog.ErrRefused) {
		t.Errorf("no bucket: %v", err)
	}
	// One that takes the headers and does nothing.
	var mu sync.Mutex
	var methods []string
	fake := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		methods = append(methods, r.Method)
	}))
	defer fake.Close()
	rt := &http.Transport{}
	defer rt.CloseIdleConnections()
	s, err := s3lock.New(s3lock.Config{Client: clientOf(t, fake.URL, checked{t, rt}), Bucket: "b", Retain: time.Hour})
	must(t, err)
	if err := s.Deliver(t.Context(), batch); !errors.Is(err, s3lock.ErrNotLocked) || strings.Join(methods, " ") != "PUT HEAD" {
		t.Errorf("%v %v", err, methods)
	}
}

func TestBadAnswers(t *testing.T) {
	batch := sinktest.Entries(t, sinktest.Log(t, 1))
	for name, answer := range map[string]http.HandlerFunc{
		"garbage":     func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(400); fmt.Fprint(w, "\x00<<<") },
		"a portal":    func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(302); fmt.Fprint(w, "<html>") },
		"slow down":   func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) },
		"credentials": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) },
		"a bomb": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(412)
			fmt.Fprint(w, "<Error><Code>PreconditionFailed</Code></Error>")
		},
	} {
		t.Run(name, func(t *testing.T) {
			fake := httptest.NewServer(answer)
			defer fake.Close()
			rt := &http.Transport{}
			defer rt.CloseIdleConnections()
			s, err := s3lock.New(s3lock.Config{Client: clientOf(t, fake.URL, rt), Bucket: "b", Retain: time.Hour})
			must(t, err)
			if err := s.Deliver(t.Context(), batch); err == nil || errors.Is(err, auditlog.ErrRefused) || strings.Contains(err.Error(), reals3.SecretKey) {
				t.Errorf("%v", err)
			}
			if err := s.Put(t.Context(), "x.seal", []byte("x")); err == nil || errors.Is(err, auditlog.ErrAnchorTaken) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestConfig(t *testing.T) {
	c := raw(t)
	for _, cfg := range []s3lock.Config{
		{}, {Client: c}, {Client: c, Bucket: "b"}, {Client: c, Bucket: "b", Retain: 1, Prefix: "/x"}, {Client: c, Bucket: "b", Retain: 1, Prefix: "x/"}, {Client: c, Bucket: "b", Retain: 1, Prefix: "x//y"},
	} {
		if _, err := s3lock.New(cfg); err == nil {
			t.Errorf("%+v is taken", cfg)
		}
	}
	for _, endpoint := range []string{"nothing", "http://s3.example.com", "https://u:p@s3.example.com"} {
		if _, err := s3lock.Client(context.Background(), "x", endpoint); err == nil {
			t.Errorf("%s is taken", endpoint)
		}
	}
}
