// Package cloudwatch delivers audit events to a log stream of Amazon CloudWatch
// Logs.
//
//	client, err := cloudwatch.Client(ctx, "eu-central-1", "")
//	sink, err := cloudwatch.New(cloudwatch.Config{Client: client, Group: "/phoenix/audit", Stream: "mcp-hr"})
//	log.Attach(signer, sink)
//
// The group must exist; the stream is made when it does not. A success may
// still name events that were too old (14 days, or the group's retention) or
// too new (2 hours): they become dead letters, and the others are stored.
//
// The credentials need logs:PutLogEvents and logs:CreateLogStream, and should
// have no others.
//
// See https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html.
package cloudwatch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	cwl "github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/auditlog/sink/internal/awsio"
)

// Config is a log stream. Client, Group and Stream are required. Two logs do
// not share a stream.
type Config struct {
	Name   string // of the sink; empty: "cloudwatch"
	Client *cwl.Client
	Group  string
	Stream string
	Linger time.Duration // how long to wait for more events; 0: one second; negative: not at all
}

// A Sink is a log stream.
type Sink struct{ cfg Config }

var _ auditlog.Sink = (*Sink)(nil)

// Client returns a client with the SDK's default credentials. Region and
// endpoint may be empty.
func Client(ctx context.Context, region, endpoint string) (*cwl.Client, error) {
	cfg, err := awsio.Load(ctx, region, endpoint)
	if err != nil {
		return nil, fmt.Errorf("cloudwatch: %w", err)
	}
	return cwl.NewFromConfig(cfg), nil
}

// New returns the sink of cfg. It does not connect.
func New(cfg Config) (*Sink, error) {
	if cfg.Client == nil || cfg.Group == "" || cfg.Stream == "" {
		return nil, errors.New("cloudwatch: Client, Group and Stream are required")
	}
	cfg.Name = cmp.Or(cfg.Name, "cloudwatch")
	cfg.Linger = max(cmp.Or(cfg.Linger, time.Second), 0)
	return &Sink{cfg}, nil
}

// The limits of PutLogEvents.
const (
	maxEvents = 10_000
	maxBytes  = 1_048_576
	overhead  = 26
	maxSpan   = 24 * time.Hour
)

// Info is what the log needs to know.
func (s *Sink) Info() auditlog.SinkInfo {
	return auditlog.SinkInfo{
		Name: s.cfg.Name, MaxEvents: maxEvents, MaxBytes: maxBytes, MaxEvent: maxBytes - overhead, Overhead: overhead,
		MaxSpan: maxSpan, Linger: s.cfg.Linger,
	}
}

// Deliver puts a batch into the stream, in the order of the events' times.
func (s *Sink) Deliver(ctx context.Context, batch []auditlog.Entry) error {
	order := make([]int, len(batch))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return batch[a].Time.Compare(batch[b].Time) })
	// A clock that went back can make a batch span more than it may, though no
	// event is so far from the first.
	if n := len(order) - 1; batch[order[n]].Time.Sub(batch[order[0]].Time) > maxSpan && n > 0 {
		half := len(batch) / 2
		return both(s.Deliver(ctx, batch[:half]), func() error { return s.Deliver(ctx, batch[half:]) }, half)
	}
	in := &cwl.PutLogEventsInput{LogGroupName: &s.cfg.Group, LogStreamName: &s.cfg.Stream, LogEvents: make([]types.InputLogEvent, len(order))}
	for i, at := range order {
		in.LogEvents[i] = types.InputLogEvent{Message: aws.String(string(batch[at].JSON)), Timestamp: aws.Int64(batch[at].Time.UnixMilli())}
	}
	out, err := s.cfg.Client.PutLogEvents(ctx, in)
	var missing *types.ResourceNotFoundException
	if errors.As(err, &missing) {
		_, made := s.cfg.Client.CreateLogStream(ctx, &cwl.CreateLogStreamInput{LogGroupName: &s.cfg.Group, LogStreamName: &s.cfg.Stream})
		var exists *types.ResourceAlreadyExistsException
		if made != nil && !errors.As(made, &exists) {
			return fmt.Errorf("the log stream %s of %s is not there and cannot be made: %w; make the log group first", s.cfg.Stream, s.cfg.Group, made)
		}
		out, err = s.cfg.Client.PutLogEvents(ctx, in)
	}
	var already *types.DataAlreadyAcceptedException
	var invalid *types.InvalidParameterException
	switch {
	case errors.As(err, &already):
		return nil
	case errors.As(err, &invalid):
		return auditlog.Refused(err)
	case err != nil:
		return err
	}
	return rejected(out.RejectedLogEventsInfo, order)
}

// rejected says which events a success has left out.
func rejected(info *types.RejectedLogEventsInfo, order []int) error {
	if info == nil {
		return nil
	}
	reasons := map[int]string{}
	add := func(from, to int, reason string) {
		for i := max(from, 0); i < min(to, len(order)); i++ {
			reasons[order[i]] = reason
		}
	}
	if end := info.TooOldLogEventEndIndex; end != nil {
		add(0, int(*end), "CloudWatch says that it is too old")
	}
	if end := info.ExpiredLogEventEndIndex; end != nil {
		add(0, int(*end), "CloudWatch says that it is older than the group's retention")
	}
	if start := info.TooNewLogEventStartIndex; start != nil {
		add(int(*start), len(order), "CloudWatch says that it is too new")
	}
	if len(reasons) == 0 {
		return nil
	}
	return &auditlog.RejectedError{Reasons: reasons}
}

// both joins what became of two halves, the second of which begins at half. A
// half that failed has the whole come again.
func both(first error, second func() error, half int) error {
	var a, b *auditlog.RejectedError
	if first != nil && !errors.As(first, &a) {
		return first
	}
	err := second()
	if err != nil && !errors.As(err, &b) {
		return err
	}
	reasons := map[int]string{}
	if a != nil {
		for i, reason := range a.Reasons {
			reasons[i] = reason
		}
	}
	if b != nil {
		for i, reason := range b.Reasons {
			reasons[i+half] = reason
		}
	}
	if len(reasons) == 0 {
		return nil
	}
	return &auditlog.RejectedError{Reasons: reasons}
}
