package auditlog_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"

	"github.com/tamshai/phoenix/auditlog"
)

// A log is opened before anything else, signed and anchored later, closed, and
// verified by somebody who has the public key and the anchors.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	public, private, _ := ed25519.GenerateKey(nil)

	anchors := filepath.Join(dir, "anchors") // elsewhere, in earnest
	anchor, err := auditlog.DirAnchor(anchors)
	if err != nil {
		fmt.Println(err)
		return
	}
	log, err := auditlog.Open(filepath.Join(dir, "log"), auditlog.Config{Service: "mcp-hr", Anchor: anchor})
	if err != nil {
		fmt.Println(err)
		return
	}
	// On stable storage when it returns.
	if err := log.Append(ctx, auditlog.Accessed(auditlog.Actor{User: "alice"}, "employees/4711", auditlog.Success)); err != nil {
		fmt.Println(err)
		return
	}
	signer, err := auditlog.NewSigner(private)
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := log.Attach(signer); err != nil {
		fmt.Println(err)
		return
	}
	if err := log.Close(ctx); err != nil {
		fmt.Println(err)
		return
	}

	report, err := auditlog.Verify(ctx, os.DirFS(log.Dir()), auditlog.VerifyConfig{Keys: []ed25519.PublicKey{public}, Anchors: os.DirFS(anchors)})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(report.Err(), report.Events, report.Epochs[0].Open, report.Epochs[0].Closed)
	// Output:
	// <nil> 1 0 true
}

// A sink for another destination is a type with two methods.
type lines struct{ file *os.File }

func (lines) Info() auditlog.SinkInfo { return auditlog.SinkInfo{Name: "lines", MaxEvents: 100} }

func (s lines) Deliver(_ context.Context, batch []auditlog.Entry) error {
	for _, e := range batch {
		if _, err := s.file.Write(append(e.JSON, '\n')); err != nil {
			return err // the batch comes again
		}
	}
	return nil
}

func ExampleSink() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	log, err := auditlog.Open(dir, auditlog.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	e := full()
	e.Attributes = nil
	if err := log.Append(context.Background(), e); err != nil {
		fmt.Println(err)
		return
	}
	if err := log.Attach(nil, lines{os.Stdout}); err != nil {
		fmt.Println(err)
		return
	}
	if err := log.Close(context.Background()); err != nil { // delivers what is left
		fmt.Println(err)
	}
	// Output:
	// {"time":"2026-11-25T09:00:00.123456789Z","id":"0193a2f4-7c1e-7d3a-9a55-3b1c2d4e5f60","service":"mcp-hr","environment":"stage","severity":"warning","category":"data_access","action":"employee.read","resource":"employees/4711","actor":{"user":"alice","peer":"mcp-gateway","client":"10.0.0.7"},"request_id":"r1","outcome":"blocked"}
}

func ExampleProve() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	public, private, _ := ed25519.GenerateKey(nil)
	signer, err := auditlog.NewSigner(private)
	if err != nil {
		fmt.Println(err)
		return
	}
	log, err := auditlog.Open(dir, auditlog.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	e := full()
	if err := log.Append(context.Background(), e); err != nil {
		fmt.Println(err)
		return
	}
	if err := log.Attach(signer); err != nil {
		fmt.Println(err)
		return
	}
	if err := log.Close(context.Background()); err != nil {
		fmt.Println(err)
		return
	}
	proof, err := auditlog.Prove(os.DirFS(dir), e.ID)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(proof.Check([]ed25519.PublicKey{public}))
	// Output:
	// <nil>
}
