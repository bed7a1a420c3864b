package sidecar_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tamshai/phoenix/internal/agent/sidecar"
)

// A service is one of gRPC's own tests, in a program of its own.
type service struct {
	pb.UnimplementedTestServiceServer
	calls  atomic.Int64  // unary ones
	cancel chan error    // why a call that waits has ended
	block  chan struct{} // closed: calls that do not read go on
}

func newService() *service {
	return &service{cancel: make(chan error, 8), block: make(chan struct{})}
}

func (s *service) UnaryCall(ctx context.Context, r *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	s.calls.Add(1)
	in, _ := metadata.FromIncomingContext(ctx)
	if in.Get("wait") != nil {
		deadline, ok := ctx.Deadline()
		if !ok || time.Until(deadline) > time.Minute {
			s.cancel <- errors.New("it has not been told of the deadline")
			return nil, status.Error(codes.Internal, "no deadline")
		}
		<-ctx.Done()
		s.cancel <- ctx.Err()
		return nil, ctx.Err()
	}
	_ = grpc.SetHeader(ctx, metadata.Pairs("x-peer", strings.Join(in.Get("phoenix-peer"), " "), "x-bin-bin", strings.Join(in.Get("x-bin-bin"), " "),
		"x-user", strings.Join(append(in.Get("x-user-id"), in.Get("x-user-roles")...), " ")))
	_ = grpc.SetTrailer(ctx, metadata.Pairs("x-after", "after"))
	if e := r.GetResponseStatus(); e != nil {
		return nil, status.Error(codes.Code(e.Code), e.Message) //nolint:gosec // G115: a code
	}
	return &pb.SimpleResponse{Payload: r.Payload}, nil
}

func (s *service) StreamingOutputCall(r *pb.StreamingOutputCallRequest, out pb.TestService_StreamingOutputCallServer) error {
	for _, p := range r.ResponseParameters {
		if err := out.Send(&pb.StreamingOutputCallResponse{Payload: &pb.Payload{Body: make([]byte, p.Size)}}); err != nil {
			return err
		}
	}
	if e := r.GetResponseStatus(); e != nil {
		return status.Error(codes.Code(e.Code), e.Message) //nolint:gosec // G115: a code
	}
	return nil
}

func (s *service) StreamingInputCall(in pb.TestService_StreamingInputCallServer) error {
	meta, _ := metadata.FromIncomingContext(in.Context())
	if meta.Get("block") != nil {
		<-s.block // and nothing is read
	}
	var sum int32
	for {
		r, err := in.Recv()
		if errors.Is(err, io.EOF) {
			return in.SendAndClose(&pb.StreamingInputCallResponse{AggregatedPayloadSize: sum})
		}
		if err != nil {
			return err
		}
		if sum += int32(len(r.Payload.GetBody())); sum > 1000 && meta.Get("limit") != nil { //nolint:gosec // G115: it is small
			return status.Error(codes.ResourceExhausted, "that is enough")
		}
	}
}

func (s *service) FullDuplexCall(both pb.TestService_FullDuplexCallServer) error {
	for {
		r, err := both.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			s.cancel <- err
			return err
		}
		if err := both.Send(&pb.StreamingOutputCallResponse{Payload: r.Payload}); err != nil {
			return err
		}
	}
}

// grpcServer is a program that speaks gRPC without TLS.
func (w *world) grpcServer(s *service) (string, *grpc.Server) {
	w.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.Fatal(err)
	}
	srv := grpc.NewServer()
	pb.RegisterTestServiceServer(srv, s)
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	w.Cleanup(func() { srv.Stop(); <-done })
	return l.Addr().String(), srv
}

// grpcClient is a program that calls in gRPC without TLS.
func (w *world) grpcClient(addr string) pb.TestServiceClient {
	w.Helper()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { conn.Close() })
	return pb.NewTestServiceClient(conn)
}

// grpcPair is a client and a service with two sidecars between them.
func (w *world) grpcPair(s *service, with func(callee, caller *sidecar.Config, h *sidecar.Host)) pb.TestServiceClient {
	w.Helper()
	to, _ := w.grpcServer(s)
	callee := sidecar.Config{Serve: []sidecar.Inbound{{At: anywhere, To: to, Protocol: sidecar.H2C, Peers: map[string]sidecar.Peer{"mcp-gateway": {}}}}}
	caller := sidecar.Config{Call: []sidecar.Call{{At: anywhere, Peer: "mcp-hr", Protocol: sidecar.H2C}}}
	var host sidecar.Host
	if with != nil {
		with(&callee, &caller, &host)
	}
	hr := w.start("mcp-hr", callee, host)
	caller.Call[0].To = hr.Addr(anywhere).String()
	gateway := w.start("mcp-gateway", caller, host)
	return w.grpcClient(gateway.Addr(anywhere).String())
}

// brief bounds a call.
func brief(t testing.TB, pairs ...string) context.Context {
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), pairs...), patience)
	t.Cleanup(cancel)
	return ctx
}

func payload(size int) *pb.Payload { return &pb.Payload{Body: bytes.Repeat([]byte("x"), size)} }

func wantStatus(t testing.TB, what string, err error, code codes.Code, text string) {
	t.Helper()
	if s := status.Convert(err); s.Code() != code || !strings.Contains(s.Message(), text) {
		t.Errorf("%s: %v %q, want %v %q", what, s.Code(), s.Message(), code, text)
	}
}

// A program's gRPC goes through two sidecars as it goes without them.
func TestGRPC(t *testing.T) {
	w := newWorld(t)
	s := newService()
	c := w.grpcPair(s, nil)

	for _, size := range []int{0, 1, 3 << 20} {
		var header, trailer metadata.MD
		resp, err := c.UnaryCall(brief(t, "phoenix-peer", "root", "x-bin-bin", "\x00\xff"), &pb.SimpleRequest{Payload: payload(size)}, grpc.Header(&header), grpc.Trailer(&trailer))
		if err != nil || len(resp.Payload.GetBody()) != size {
			t.Fatalf("%d bytes: %d came back, %v", size, len(resp.GetPayload().GetBody()), err)
		}
		if got := fmt.Sprintf("%q %q %q", header.Get("x-peer"), header.Get("x-bin-bin"), trailer.Get("x-after")); got != `["mcp-gateway"] ["\x00\xff"] ["after"]` {
			t.Errorf("peer, metadata and trailer: %s", got)
		}
	}
	// An error alone is in a header that ends the stream, one after an answer in trailers.
	const odd = "\t\nwhitespace\r\nand ☺ and 😈 and 100%\t\n"
	for range 50 {
		var trailer metadata.MD
		_, err := c.UnaryCall(brief(t), &pb.SimpleRequest{ResponseStatus: &pb.EchoStatus{Code: int32(codes.FailedPrecondition), Message: odd}}, grpc.Trailer(&trailer))
		wantStatus(t, "an error alone", err, codes.FailedPrecondition, odd)
		if strings.Join(trailer.Get("x-after"), "") != "after" {
			t.Errorf("its trailer: %v", trailer)
		}
	}
	_, err := c.EmptyCall(brief(t), &pb.Empty{})
	wantStatus(t, "an unknown method", err, codes.Unimplemented, "EmptyCall")

	out, err := c.StreamingOutputCall(brief(t), &pb.StreamingOutputCallRequest{
		ResponseParameters: []*pb.ResponseParameters{{Size: 1}, {Size: 1 << 20}, {Size: 0}},
		ResponseStatus:     &pb.EchoStatus{Code: int32(codes.DataLoss), Message: "in the end"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{1, 1 << 20, 0} {
		if r, err := out.Recv(); err != nil || len(r.Payload.GetBody()) != size {
			t.Errorf("a stream: %d bytes, %v", len(r.GetPayload().GetBody()), err)
		}
	}
	_, err = out.Recv()
	wantStatus(t, "the stream's end", err, codes.DataLoss, "in the end")

	in, err := c.StreamingInputCall(brief(t))
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if err := in.Send(&pb.StreamingInputCallRequest{Payload: payload(10)}); err != nil {
			t.Fatal(err)
		}
	}
	if sum, err := in.CloseAndRecv(); err != nil || sum.AggregatedPayloadSize != 1000 {
		t.Errorf("what was streamed: %v %v", sum, err)
	}
	// The service has enough before the client has done.
	in, err = c.StreamingInputCall(brief(t, "limit", "yes"))
	for err == nil {
		err = in.Send(&pb.StreamingInputCallRequest{Payload: payload(10)})
	}
	_, err = in.CloseAndRecv()
	wantStatus(t, "enough", err, codes.ResourceExhausted, "that is enough")
}

// Both sides talk in turn, and then one of them goes.
func TestGRPCBothWays(t *testing.T) {
	w := newWorld(t)
	s := newService()
	c := w.grpcPair(s, func(callee, caller *sidecar.Config, _ *sidecar.Host) {
		callee.Serve[0].Stall, caller.Call[0].Stall = 200*time.Millisecond, 200*time.Millisecond
	})
	ctx, cancel := context.WithCancel(brief(t))
	both, err := c.FullDuplexCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	say := func() {
		t.Helper()
		for range 20 {
			if err := both.Send(&pb.StreamingOutputCallRequest{Payload: payload(100)}); err != nil {
				t.Fatal(err)
			}
			if r, err := both.Recv(); err != nil || len(r.Payload.Body) != 100 {
				t.Fatal(r, err)
			}
		}
	}
	say()
	// A client that has nothing to say has not stalled: a body of HTTP of the same
	// silence is over meanwhile.
	silent, stop := io.Pipe()
	defer stop.Close()
	plain := w.client("mcp-gateway", true)
	hr, _ := w.callee(tell, func(c *sidecar.Config, _ *sidecar.Host) { c.Serve[0].Stall = 400 * time.Millisecond })
	resp, err := plain.Post("https://"+hr+"/", "text/plain", silent)
	if code, body := read(t, resp, err); code != 408 {
		t.Errorf("a body that nobody sends: %d %s", code, body)
	}
	say()
	cancel()
	if err := <-s.cancel; status.Code(err) != codes.Canceled {
		t.Errorf("the service was told %v", err)
	}
	_, err = both.Recv()
	wantStatus(t, "after the end", err, codes.Canceled, "")

	_, err = c.UnaryCall(func() context.Context {
		ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "wait", "yes"), 300*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}(), &pb.SimpleRequest{})
	wantStatus(t, "too late", err, codes.DeadlineExceeded, "")
	if err := <-s.cancel; !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
		t.Errorf("the service was told %v", err)
	}
}

// Certificates of both sides rotate while calls and streams are under way: none
// fails, and none is made twice.
func TestGRPCRotates(t *testing.T) {
	w := newWorld(t)
	s := newService()
	c := w.grpcPair(s, func(_, _ *sidecar.Config, h *sidecar.Host) { h.Drain = time.Hour })
	both, err := c.FullDuplexCall(brief(t))
	if err != nil {
		t.Fatal(err)
	}
	var sent atomic.Int64
	var wg sync.WaitGroup
	stop, more := make(chan struct{}), make(chan struct{})
	for range 16 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				resp, err := c.UnaryCall(brief(t), &pb.SimpleRequest{Payload: payload(1000)})
				if err != nil || len(resp.Payload.Body) != 1000 {
					t.Errorf("%v", err)
					return
				}
				sent.Add(1)
				select {
				case more <- struct{}{}:
				case <-stop:
				}
			}
		})
	}
	for i := range 20 {
		w.rotate([]string{"mcp-hr", "mcp-gateway"}[i%2])
		for range 100 {
			select {
			case <-more:
			case <-time.After(patience):
				t.Fatal("nothing goes on")
			}
		}
		if err := both.Send(&pb.StreamingOutputCallRequest{Payload: payload(10)}); err != nil {
			t.Fatal(err)
		}
		if _, err := both.Recv(); err != nil {
			t.Fatalf("rotation %d: the stream: %v", i, err)
		}
	}
	close(stop)
	wg.Wait()
	if s.calls.Load() != sent.Load() {
		t.Errorf("%d calls were sent and %d arrived", sent.Load(), s.calls.Load())
	}
}

// The user whom the caller names in its metadata is told to the callee as in HTTP,
// proven and clean.
func TestGRPCUsers(t *testing.T) {
	w := newWorld(t)
	c := w.grpcPair(newService(), func(callee, caller *sidecar.Config, _ *sidecar.Host) {
		callee.Users, caller.Users = headers, headers
		callee.Serve[0].Peers["mcp-gateway"] = sidecar.Peer{User: sidecar.Required}
	})
	for range 2 { // an assertion is good for one use
		var header metadata.MD
		_, err := c.UnaryCall(brief(t, "x-user-id", "alice", "x-user-roles", "hr-read", "phoenix-user", "forged"), &pb.SimpleRequest{Payload: payload(10)}, grpc.Header(&header))
		if got := strings.Join(header.Get("x-user"), " "); err != nil || got != "alice hr-read" {
			t.Errorf("%v %q", err, got)
		}
	}
	_, err := c.UnaryCall(brief(t), &pb.SimpleRequest{})
	wantStatus(t, "nobody", err, codes.PermissionDenied, "phoenix-agent: the user that the caller names is not proven")
	both, err := c.FullDuplexCall(brief(t, "x-user-id", "alice"))
	if err == nil {
		err = both.Send(&pb.StreamingOutputCallRequest{Payload: payload(10)})
	}
	if err == nil {
		_, err = both.Recv()
	}
	if err != nil {
		t.Errorf("a stream for a user: %v", err)
	}
	_ = both.CloseSend()
	if _, err := both.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("its end: %v", err)
	}
}

// What goes wrong is told in gRPC's own words.
func TestGRPCFails(t *testing.T) {
	w := newWorld(t)
	s := newService()
	to, srv := w.grpcServer(s)
	hr := w.start("mcp-hr", sidecar.Config{Serve: []sidecar.Inbound{{At: anywhere, To: to, Protocol: sidecar.H2C, MaxBody: 10_000, Peers: map[string]sidecar.Peer{"mcp-gateway": {}}}}},
		sidecar.Host{Drain: time.Second})
	call := func(peer, at string) pb.TestServiceClient {
		sc := w.start("mcp-gateway", sidecar.Config{Call: []sidecar.Call{{At: anywhere, Peer: peer, To: at, Protocol: sidecar.H2C}}}, sidecar.Host{})
		return w.grpcClient(sc.Addr(anywhere).String())
	}
	at := hr.Addr(anywhere).String()
	_, err := call("mcp-payroll", at).UnaryCall(brief(t), &pb.SimpleRequest{})
	wantStatus(t, "another callee", err, codes.Unavailable, "phoenix-agent: mcp-payroll is not to be trusted")
	_, err = call("mcp-hr", "127.0.0.1:1").UnaryCall(brief(t), &pb.SimpleRequest{})
	wantStatus(t, "nobody there", err, codes.Unavailable, "phoenix-agent: mcp-hr cannot be reached")
	c := call("mcp-hr", at)
	_, err = c.UnaryCall(brief(t), &pb.SimpleRequest{Payload: payload(20_000)})
	wantStatus(t, "too long", err, codes.ResourceExhausted, "phoenix-agent: the body is longer")

	// A stream may go on for the drain after a rotation. Its end is a reason to call
	// again.
	both, err := c.FullDuplexCall(brief(t))
	if err != nil {
		t.Fatal(err)
	}
	_ = both.Send(&pb.StreamingOutputCallRequest{Payload: payload(10)})
	if _, err := both.Recv(); err != nil {
		t.Fatal(err)
	}
	w.rotate("mcp-hr")
	_, err = both.Recv()
	wantStatus(t, "drained", err, codes.Unavailable, "phoenix-agent: the connection ended in the middle of the answer")
	<-s.cancel // the service knows too

	srv.Stop()
	_, err = c.UnaryCall(brief(t), &pb.SimpleRequest{})
	wantStatus(t, "the program is down", err, codes.Unavailable, "phoenix-agent: the program behind")
}

// resetting is a program of HTTP/2 that resets every stream, before or after it has
// begun to answer.
func (w *world) resetting(code byte, begun bool) string {
	w.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.Fatal(err)
	}
	var done sync.WaitGroup
	handle := func(conn net.Conn) {
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		_, _ = io.ReadFull(conn, make([]byte, len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")))
		_, _ = conn.Write(frame(frameSettings, 0, 0, nil))
		for {
			head := make([]byte, 9)
			if _, err := io.ReadFull(conn, head); err != nil {
				return
			}
			if _, err := io.CopyN(io.Discard, conn, int64(head[0])<<16|int64(head[1])<<8|int64(head[2])); err != nil {
				return
			}
			switch {
			case head[3] == frameSettings && head[4]&ack == 0:
				_, _ = conn.Write(frame(frameSettings, ack, 0, nil))
			case head[3] == frameHeaders:
				stream := binary.BigEndian.Uint32(head[5:])
				if begun {
					_, _ = conn.Write(frame(frameHeaders, endHeaders, stream, fields(":status", "200", "content-type", "application/grpc")))
				}
				_, _ = conn.Write(frame(frameReset, 0, stream, []byte{0, 0, 0, code}))
			}
		}
	}
	done.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			done.Go(func() { handle(conn) })
		}
	})
	w.Cleanup(func() { l.Close(); done.Wait() })
	return l.Addr().String()
}

// A stream that a service resets is told to the client as its own would have been.
func TestGRPCResets(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		what, timeout string
		code          byte
		want          codes.Code
	}{
		{"CANCEL", "", 8, codes.Canceled},
		{"CANCEL in time", "99999999H", 8, codes.Canceled},
		{"CANCEL at the deadline", "1n", 8, codes.DeadlineExceeded},
		{"CANCEL with a deadline that is none", "1x", 8, codes.Canceled},
		{"ENHANCE_YOUR_CALM", "", 11, codes.ResourceExhausted},
		{"INADEQUATE_SECURITY", "", 12, codes.PermissionDenied},
		{"INTERNAL_ERROR", "", 2, codes.Internal},
	} {
		for _, begun := range []bool{false, true} {
			hr := w.start("mcp-hr", sidecar.Config{Serve: []sidecar.Inbound{{At: anywhere, To: w.resetting(c.code, begun), Protocol: sidecar.H2C,
				Peers: map[string]sidecar.Peer{"mcp-gateway": {}}}}}, sidecar.Host{})
			req, err := http.NewRequest("POST", "https://"+hr.Addr(anywhere).String()+"/a.B/C", strings.NewReader("\x00\x00\x00\x00\x00"))
			if err != nil {
				t.Fatal(err)
			}
			req.Header = http.Header{"Content-Type": {"application/grpc"}}
			if c.timeout != "" {
				req.Header.Set("Grpc-Timeout", c.timeout)
			}
			resp, err := w.client("mcp-gateway", true).Do(req)
			if code, _ := read(t, resp, err); code != 200 {
				t.Errorf("%s, begun %v: %d", c.what, begun, code)
			}
			got := resp.Header
			if begun {
				got = resp.Trailer
			}
			if got.Get("Grpc-Status") != strconv.Itoa(int(c.want)) || !strings.HasPrefix(got.Get("Grpc-Message"), "phoenix-agent: ") {
				t.Errorf("%s, begun %v: %v", c.what, begun, got)
			}
		}
	}
}

// A stream whose bytes nobody takes stops no other on the same connection.
func TestGRPCShares(t *testing.T) {
	w := newWorld(t)
	s := newService()
	c := w.grpcPair(s, nil)
	ctx, cancel := context.WithCancel(brief(t, "block", "yes"))
	defer cancel()
	var blocked sync.WaitGroup
	for range 8 {
		in, err := c.StreamingInputCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		full := make(chan struct{})
		blocked.Go(func() {
			for n := 0; in.Send(&pb.StreamingInputCallRequest{Payload: payload(1 << 16)}) == nil; n++ {
				if n == 7 { // half a MiB
					close(full)
				}
			}
		})
		select {
		case <-full:
		case <-time.After(patience):
			t.Fatal("it takes nothing")
		}
	}
	for range 20 {
		if resp, err := c.UnaryCall(brief(t), &pb.SimpleRequest{Payload: payload(100_000)}); err != nil || len(resp.Payload.Body) != 100_000 {
			t.Fatal(err)
		}
	}
	close(s.block)
	cancel()
	blocked.Wait()
}

// While an edge moves, plain callers speak gRPC too.
func TestGRPCPermissive(t *testing.T) {
	w := newWorld(t)
	to, _ := w.grpcServer(newService())
	hr := w.start("mcp-hr", sidecar.Config{Serve: []sidecar.Inbound{{At: anywhere, To: to, Protocol: sidecar.H2C,
		Peers: map[string]sidecar.Peer{"mcp-gateway": {Mode: sidecar.Permissive}}}}}, sidecar.Host{})
	var header metadata.MD
	if _, err := w.grpcClient(hr.Addr(anywhere).String()).UnaryCall(brief(t, "phoenix-peer", "root"), &pb.SimpleRequest{}, grpc.Header(&header)); err != nil || header.Get("x-peer")[0] != "" {
		t.Error(err, header)
	}
	if e := hr.Edges()[0]; e.Plain != 1 || e.TLS != 0 {
		t.Errorf("%+v", e)
	}
}
