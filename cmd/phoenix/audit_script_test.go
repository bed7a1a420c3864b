package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tamshai/phoenix/internal/reals3"
)

// These need no Vault. Each has a signing key, audit.key and audit.pub, and
// those of somebody else, other.key and other.pub. There is an S3 server with
// Object Lock, and a collector that answers 202, at $COLLECTOR.
func TestAuditScripts(t *testing.T) {
	server := reals3.StartT(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/audit",
		Setup: func(env *testscript.Env) error {
			env.Setenv("UID", strconv.Itoa(os.Getuid()))
			for _, name := range []string{"audit", "other"} {
				if err := writeKeys(filepath.Join(env.WorkDir, name)); err != nil {
					return err
				}
			}
			c := newAuditCollector()
			env.Defer(c.Close)
			env.Vars = append(env.Vars, "S3="+server.Endpoint, "AWS_ACCESS_KEY_ID="+reals3.AccessKey, "AWS_SECRET_ACCESS_KEY="+reals3.SecretKey, "AWS_EC2_METADATA_DISABLED=true", "COLLECTOR="+c.URL)
			return os.WriteFile(filepath.Join(env.WorkDir, "collector.pem"), c.certificate(), 0o600)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// bucket NAME: makes one with Object Lock.
			"bucket": func(ts *testscript.TestScript, _ bool, args []string) {
				_, err := s3Client(server).CreateBucket(context.Background(), &s3.CreateBucketInput{Bucket: &args[0], ObjectLockEnabledForBucket: aws.Bool(true)})
				ts.Check(err)
			},
			// upload DIR BUCKET PREFIX: puts files as objects, not locked.
			"upload": func(ts *testscript.TestScript, _ bool, args []string) {
				dir := ts.MkAbs(args[0])
				ts.Check(filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
					if err != nil || d.IsDir() {
						return err
					}
					data, err := os.ReadFile(path)
					if err != nil {
						return err
					}
					key := args[2] + strings.TrimPrefix(filepath.ToSlash(path), filepath.ToSlash(dir))
					_, err = s3Client(server).PutObject(context.Background(), &s3.PutObjectInput{Bucket: &args[1], Key: &key, Body: bytes.NewReader(data)})
					return err
				}))
			},
			// forge BUCKET: overwrites every object, and deletes every second.
			"forge": func(ts *testscript.TestScript, _ bool, args []string) {
				list, err := s3Client(server).ListObjectsV2(context.Background(), &s3.ListObjectsV2Input{Bucket: &args[0]})
				ts.Check(err)
				for i, o := range list.Contents {
					_, err := s3Client(server).PutObject(context.Background(), &s3.PutObjectInput{Bucket: &args[0], Key: o.Key, Body: strings.NewReader("forged")})
					ts.Check(err)
					if i%2 == 0 {
						_, err := s3Client(server).DeleteObject(context.Background(), &s3.DeleteObjectInput{Bucket: &args[0], Key: o.Key})
						ts.Check(err)
					}
				}
			},
			// exits CODE CMD…: the command ends with the code.
			"exits": func(ts *testscript.TestScript, _ bool, args []string) {
				err := ts.Exec(args[1], args[2:]...)
				var exit *exec.ExitError
				code := 0
				if errors.As(err, &exit) {
					code = exit.ExitCode()
				} else if err != nil {
					ts.Fatalf("%v", err)
				}
				if strconv.Itoa(code) != args[0] {
					ts.Fatalf("it ends with %d", code)
				}
			},
			// edit OLD NEW GLOB: replaces bytes in a file, as an editor would.
			"edit": func(ts *testscript.TestScript, _ bool, args []string) {
				file := one(ts, args[2])
				data, err := os.ReadFile(file)
				ts.Check(err)
				if !bytes.Contains(data, []byte(args[0])) {
					ts.Fatalf("%s has no %s", file, args[0])
				}
				ts.Check(os.WriteFile(file, bytes.Replace(data, []byte(args[0]), []byte(args[1]), 1), 0o600))
			},
			// cut N GLOB: takes bytes from a file's end.
			"cut": func(ts *testscript.TestScript, _ bool, args []string) {
				file := one(ts, args[1])
				n, err := strconv.ParseInt(args[0], 10, 64)
				ts.Check(err)
				info, err := os.Stat(file)
				ts.Check(err)
				ts.Check(os.Truncate(file, info.Size()-n))
			},
			// post CODE SOCKET PATH FILE [TOKEN]: posts a file over a unix socket,
			// once somebody listens there; the answer is in the file "answer".
			"post": func(ts *testscript.TestScript, _ bool, args []string) { post(ts, args) },
			// lines N FILE
			"lines": func(ts *testscript.TestScript, _ bool, args []string) {
				if n := bytes.Count([]byte(ts.ReadFile(args[1])), []byte("\n")); strconv.Itoa(n) != args[0] {
					ts.Fatalf("%s has %d lines", args[1], n)
				}
			},
			// first VAR FILE: sets a variable to the first line.
			"first": func(ts *testscript.TestScript, _ bool, args []string) {
				line, _, _ := bytes.Cut([]byte(ts.ReadFile(args[1])), []byte("\n"))
				ts.Setenv(args[0], string(line))
			},
		},
	})
}

func post(ts *testscript.TestScript, args []string) {
	socket := ts.MkAbs(args[1])
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (conn net.Conn, err error) {
		for ctx.Err() == nil {
			if conn, err = new(net.Dialer).DialContext(ctx, "unix", socket); err == nil {
				break
			}
			runtime.Gosched()
		}
		return conn, err
	}}, Timeout: time.Minute}
	req, err := http.NewRequest("POST", "http://audit"+args[2], strings.NewReader(ts.ReadFile(args[3])))
	ts.Check(err)
	req.Header.Set("Content-Type", "application/json")
	if len(args) > 4 {
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(ts.ReadFile(args[4])))
	}
	resp, err := client.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("answer"), body, 0o600))
	if strconv.Itoa(resp.StatusCode) != args[0] {
		ts.Fatalf("%s: %s", resp.Status, body)
	}
}

func s3Client(server *reals3.Server) *s3.Client {
	return s3.New(s3.Options{
		BaseEndpoint: &server.Endpoint, Region: reals3.Region, UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(reals3.AccessKey, reals3.SecretKey, ""),
		HTTPClient:  &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
	})
}

// An auditCollector takes every batch that has the right token, and refuses
// batches with an event that is called poison, but at /antidote.
type auditCollector struct{ *httptest.Server }

func newAuditCollector() auditCollector {
	return auditCollector{httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		z, err := gzip.NewReader(r.Body)
		var body []byte
		if err == nil {
			body, err = io.ReadAll(z)
		}
		switch {
		case r.Header.Get("Authorization") != "Bearer t0ken":
			w.WriteHeader(http.StatusForbidden)
		case err != nil || bytes.Contains(body, []byte("poison")) && r.URL.Path != "/antidote":
			w.WriteHeader(http.StatusNotAcceptable)
		default:
			w.WriteHeader(http.StatusAccepted)
		}
	}))}
}

func (c auditCollector) certificate() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Server.Certificate().Raw})
}

// The example can be loaded, whatever happens to the schema.
func TestShipExample(t *testing.T) {
	sinks, anchor, err := loadShip(t.Context(), "../../examples/audit/ship.yaml")
	if err != nil || len(sinks) != 4 || anchor != "" {
		t.Fatal(len(sinks), anchor, err)
	}
	for _, sink := range sinks {
		if c, ok := sink.(io.Closer); ok {
			c.Close()
		}
	}
}

func one(ts *testscript.TestScript, pattern string) string {
	files, err := filepath.Glob(ts.MkAbs(pattern))
	ts.Check(err)
	if len(files) != 1 {
		ts.Fatalf("%s is %d files", pattern, len(files))
	}
	return files[0]
}

func writeKeys(path string) error {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	for file, key := range map[string]any{path + ".key": private, path + ".pub": public} {
		var der []byte
		kind := "PUBLIC KEY"
		if _, private := key.(ed25519.PrivateKey); private {
			kind = "PRIVATE KEY"
			der, err = x509.MarshalPKCS8PrivateKey(key)
		} else {
			der, err = x509.MarshalPKIXPublicKey(key)
		}
		if err != nil {
			return err
		}
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			return err
		}
	}
	return nil
}
