// Package s3lock keeps an audit log and its checkpoints in a bucket with Object
// Lock, where nobody, the owner of the account included, can change or remove
// them before their time.
//
//	client, err := s3lock.Client(ctx, "eu-central-1", "")
//	sink, err := s3lock.New(s3lock.Config{Client: client, Bucket: "audit", Prefix: "mcp-hr", Retain: 365 * 24 * time.Hour})
//	log.Attach(signer, sink)
//
// The bucket must have been made with Object Lock. Each batch becomes an object
// PREFIX/EPOCH/NUMBER.seg with the records as they stand in a segment, each
// checkpoint an object PREFIX/anchors/EPOCH-NUMBER.seal: the sink is the log's
// [auditlog.Anchor] too. [FS] reads both, for auditlog.Verify.
//
// Every object is locked in compliance mode, has a SHA-256 that the service
// checks, and is written only if there is none (If-None-Match). Who has the
// host's credentials can still put newer versions and delete markers over it;
// so whatever reads takes the oldest version.
//
// The credentials need s3:PutObject, PutObjectRetention, GetObject,
// GetObjectVersion, GetObjectRetention and ListBucketVersions, and should have
// no others.
package s3lock

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"path"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/auditlog/sink/internal/awsio"
)

// Config is a place in a bucket. Client, Bucket and Retain are required.
type Config struct {
	Name   string // of the sink; empty: "s3lock"
	Client *s3.Client
	Bucket string
	Prefix string        // before every key, without a slash at its ends; each log needs its own
	Retain time.Duration // how long an object cannot be removed, from when it is written

	MaxBatch int           // records in an object; 0: 10,000
	MaxBytes int           // bytes of JSON in an object; 0: 8 MiB
	Linger   time.Duration // how long to wait for more records; 0: ten seconds; negative: not at all
}

// A Sink is a log's place in a bucket. It is also the log's Anchor.
type Sink struct {
	cfg    Config
	locked atomic.Bool // the service was seen to lock what it is given
}

var (
	_ auditlog.Sink   = (*Sink)(nil)
	_ auditlog.Anchor = (*Sink)(nil)
)

// ErrNotLocked says that the bucket takes objects and does not lock them.
var ErrNotLocked = errors.New("s3lock: the bucket does not lock what is put into it; make one with Object Lock, which cannot be added with every provider")

// errOther says that something else stands in an object's place.
var errOther = errors.New("another object is there; two logs write under one prefix, or somebody else does")

// Client returns a client with the SDK's default credentials. Region and
// endpoint may be empty; the endpoint is for services other than Amazon's.
func Client(ctx context.Context, region, endpoint string) (*s3.Client, error) {
	cfg, err := awsio.Load(ctx, region, endpoint)
	if err != nil {
		return nil, fmt.Errorf("s3lock: %w", err)
	}
	return s3.NewFromConfig(cfg, func(o *s3.Options) { o.UsePathStyle = endpoint != "" }), nil
}

// New returns the sink of cfg. It does not connect.
func New(cfg Config) (*Sink, error) {
	switch {
	case cfg.Client == nil:
		return nil, errors.New("s3lock: Client is missing; see Client")
	case cfg.Bucket == "":
		return nil, errors.New("s3lock: Bucket is missing")
	case cfg.Retain <= 0:
		return nil, errors.New("s3lock: Retain is missing; say how long objects are to be locked")
	case strings.Trim(cfg.Prefix, "/") != cfg.Prefix || cfg.Prefix != "" && path.Clean(cfg.Prefix) != cfg.Prefix:
		return nil, fmt.Errorf("s3lock: the prefix %q must have no slash at its ends and no empty part", cfg.Prefix)
	}
	cfg.Name = cmp.Or(cfg.Name, "s3lock")
	cfg.MaxBatch = cmp.Or(cfg.MaxBatch, 10_000)
	cfg.MaxBytes = cmp.Or(cfg.MaxBytes, 8<<20)
	cfg.Linger = max(cmp.Or(cfg.Linger, 10*time.Second), 0)
	return &Sink{cfg: cfg}, nil
}

// Info is what the log needs to know.
func (s *Sink) Info() auditlog.SinkInfo {
	return auditlog.SinkInfo{
		Name: s.cfg.Name, MaxEvents: s.cfg.MaxBatch, MaxBytes: s.cfg.MaxBytes, Linger: s.cfg.Linger,
		Timeout: time.Minute, AllRecords: true, Overhead: 56,
	}
}

// Deliver stores a batch as an object. What was stored of it before a crash is
// recognised, so that no record is there twice.
func (s *Sink) Deliver(ctx context.Context, batch []auditlog.Entry) error {
	for len(batch) > 0 {
		var data []byte
		for _, e := range batch {
			data = append(data, e.Raw...)
		}
		key := s.key(fmt.Sprintf("%s/%020d.seg", batch[0].Epoch, batch[0].Seq))
		there, err := s.put(ctx, key, data)
		switch {
		case err != nil:
			return err
		case len(there) >= len(data) && bytes.HasPrefix(there, data):
			return nil
		case !bytes.HasPrefix(data, there):
			return fmt.Errorf("s3://%s/%s: %w", s.cfg.Bucket, key, errOther)
		}
		// A shorter batch was stored under this name; the rest gets its own.
		for n := 0; n < len(there) && len(batch) > 0; batch = batch[1:] {
			n += len(batch[0].Raw)
		}
	}
	return nil
}

// Put anchors a checkpoint: see auditlog.Anchor.
func (s *Sink) Put(ctx context.Context, name string, data []byte) error {
	key := s.key("anchors/" + path.Base(name))
	there, err := s.put(ctx, key, data)
	if err == nil && !bytes.Equal(there, data) {
		err = fmt.Errorf("%w: s3://%s/%s", auditlog.ErrAnchorTaken, s.cfg.Bucket, key)
	}
	return err
}

func (s *Sink) key(name string) string { return strings.TrimPrefix(s.cfg.Prefix+"/"+name, "/") }

// put stores data if the key has nothing, and returns what the key then has.
func (s *Sink) put(ctx context.Context, key string, data []byte) ([]byte, error) {
	sum := sha256.Sum256(data)
	out, err := s.cfg.Client.PutObject(ctx, &s3.PutObjectInput{
		Bucket: &s.cfg.Bucket, Key: &key, Body: bytes.NewReader(data),
		ChecksumSHA256:            aws.String(base64.StdEncoding.EncodeToString(sum[:])),
		IfNoneMatch:               aws.String("*"),
		ObjectLockMode:            types.ObjectLockModeCompliance,
		ObjectLockRetainUntilDate: aws.Time(time.Now().Add(s.cfg.Retain)),
	})
	var api smithy.APIError
	switch {
	case errors.As(err, &api) && api.ErrorCode() == "PreconditionFailed":
		return s.oldest(ctx, key)
	case err != nil:
		return nil, fmt.Errorf("s3://%s/%s: %w", s.cfg.Bucket, key, err)
	case s.locked.Load():
		return data, nil
	}
	// There are services that take the headers and do nothing.
	head, err := s.cfg.Client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.cfg.Bucket, Key: &key, VersionId: out.VersionId})
	if err != nil {
		return nil, fmt.Errorf("s3://%s/%s: see whether it is locked: %w", s.cfg.Bucket, key, err)
	}
	if head.ObjectLockMode != types.ObjectLockModeCompliance || head.ObjectLockRetainUntilDate == nil || head.ObjectLockRetainUntilDate.Before(time.Now().Add(s.cfg.Retain-time.Hour)) {
		return nil, ErrNotLocked
	}
	s.locked.Store(true)
	return data, nil
}

// oldest reads the first version of an object.
func (s *Sink) oldest(ctx context.Context, key string) ([]byte, error) {
	files, err := list(ctx, s.cfg.Client, s.cfg.Bucket, key)
	if err != nil {
		return nil, err
	}
	f, ok := files[key]
	if !ok {
		return nil, fmt.Errorf("s3://%s/%s is there and has no version", s.cfg.Bucket, key)
	}
	data, _, err := get(ctx, s.cfg.Client, s.cfg.Bucket, f)
	return data, err
}

// Last returns the newest anchored checkpoint: see auditlog.Anchor. It asks
// for a handful of keys, however many there are.
func (s *Sink) Last(ctx context.Context) ([]byte, error) {
	prefix := s.key("anchors/")
	// next is the first key after one, and "" if there is none.
	next := func(after string) (string, error) {
		out, err := s.cfg.Client.ListObjectVersions(ctx, &s3.ListObjectVersionsInput{
			Bucket: &s.cfg.Bucket, Prefix: &prefix, KeyMarker: &after, MaxKeys: aws.Int32(1),
		})
		if err != nil {
			return "", fmt.Errorf("s3://%s/%s: %w", s.cfg.Bucket, prefix, err)
		}
		for _, v := range out.Versions {
			return *v.Key, nil
		}
		for _, v := range out.DeleteMarkers {
			return *v.Key, nil
		}
		return "", nil
	}
	const uuid = 36
	last := ""
	for {
		key, err := next(last + "~")
		if last == "" {
			key, err = next(prefix)
		}
		if err != nil {
			return nil, err
		}
		if len(key) < len(prefix)+uuid {
			break
		}
		last = key[:len(prefix)+uuid]
	}
	if last == "" {
		return nil, nil
	}
	// The numbers of an epoch have no gaps to speak of: double, then halve.
	name := func(n uint64) string { return fmt.Sprintf("%s-%010d~", last, n) }
	low, step := uint64(0), uint64(1)
	newest, err := next(last + "-")
	for growing := true; err == nil && step > 0; {
		var key string
		if key, err = next(name(low + step)); err != nil {
			break
		}
		if found := strings.HasPrefix(key, last+"-"); found {
			low, newest = low+step, key
			if growing {
				step *= 2
			}
		} else {
			growing = false
		}
		if !growing {
			step /= 2
		}
	}
	if err != nil {
		return nil, err
	}
	return s.oldest(ctx, newest)
}
