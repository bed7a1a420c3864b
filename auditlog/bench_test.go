package auditlog_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/tamshai/phoenix/auditlog"
)

func BenchmarkEncode(b *testing.B) {
	e := full()
	e.Attributes["query"] = strings.Repeat("x", 140)
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		buf = e.AppendJSON(buf[:0])
	}
	b.SetBytes(int64(len(buf)))
}

// aLog is a log of about so many bytes, in memory.
func aLog(b *testing.B, size int) (fsys fstest.MapFS, file string) {
	dir := b.TempDir()
	l := openT(b, dir, auditlog.Config{SegmentSize: 64 << 20, MaxBytes: 4 << 30})
	e := full()
	e.ID, e.Attributes["query"] = "", strings.Repeat("x", 140)
	var receipts []*auditlog.Receipt
	for n := 0; n < size; n += 580 {
		r, err := l.Submit(b.Context(), e)
		must(b, err)
		receipts = append(receipts, r)
	}
	for _, r := range receipts {
		must(b, r.Wait(b.Context()))
	}
	signer, _ := key(b)
	must(b, l.Attach(signer))
	must(b, l.Close(b.Context()))
	files, err := filepath.Glob(filepath.Join(dir, "*", "*.seg"))
	must(b, err)
	fsys = fstest.MapFS{}
	for _, path := range files {
		data, err := os.ReadFile(path)
		must(b, err)
		file, err = filepath.Rel(dir, path)
		must(b, err)
		fsys[file] = &fstest.MapFile{Data: data}
	}
	return fsys, file
}

// BenchmarkVerify is to verify 200 MB and more in a second.
func BenchmarkVerify(b *testing.B) {
	fsys, _ := aLog(b, 100<<20)
	size := 0
	for _, f := range fsys {
		size += len(f.Data)
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		r, err := auditlog.Verify(b.Context(), fsys, auditlog.VerifyConfig{})
		must(b, err)
		must(b, r.Err())
	}
}

// BenchmarkRecover opens a log that was killed: only its last segment is read.
func BenchmarkRecover(b *testing.B) {
	fsys, file := aLog(b, 30<<20)
	data := fsys[file].Data
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		auditlog.ReadTail(data)
	}
}
