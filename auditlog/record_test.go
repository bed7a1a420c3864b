package auditlog_test

import (
	"encoding/binary"
	"encoding/hex"
	"testing"
	"testing/fstest"

	"pgregory.net/rapid"

	"github.com/tamshai/phoenix/auditlog"
)

// The vectors of RFC 6962 that implementations share: the leaves "", 00, 10,
// 2021, 3031, 40414243, 5051525354555657, 60…6f.
func TestMerkleVectors(t *testing.T) {
	var leaves []auditlog.Hash
	for _, text := range []string{"", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"} {
		data, err := hex.DecodeString(text)
		must(t, err)
		leaves = append(leaves, auditlog.LeafOf(data))
	}
	for n, want := range map[int]string{
		0: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
		8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
	} {
		if got := auditlog.RootOf(leaves[:n]).String(); got != want {
			t.Errorf("of %d leaves: %s", n, got)
		}
	}
}

// A path proves its own leaf at its own place, and nothing else.
func TestInclusion(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 70).Draw(t, "n")
		leaves := make([]auditlog.Hash, n)
		for i := range leaves {
			leaves[i] = auditlog.LeafOf(binary.LittleEndian.AppendUint64(nil, uint64(i)))
		}
		m := rapid.IntRange(0, n-1).Draw(t, "m")
		path, root := auditlog.InclusionPath(m, leaves), auditlog.RootOf(leaves)
		if got, ok := auditlog.RootFromPath(leaves[m], uint64(m), uint64(n), path); !ok || got != root {
			t.Fatal("the path does not lead to the root")
		}
		other := rapid.IntRange(0, n-1).Draw(t, "other")
		if got, ok := auditlog.RootFromPath(leaves[other], uint64(m), uint64(n), path); other != m && ok && got == root {
			t.Fatal("it proves another leaf")
		}
		if got, ok := auditlog.RootFromPath(leaves[m], uint64(other), uint64(n), path); other != m && ok && got == root {
			t.Fatal("it proves another place")
		}
		if _, ok := auditlog.RootFromPath(leaves[m], uint64(n), uint64(n), path); ok {
			t.Fatal("a place outside the tree")
		}
	})
}

// Whatever stands in a segment, reading and verifying it ends, without a panic,
// and opening it is not refused.
func FuzzSegment(f *testing.F) {
	const epoch = "0193a2f4-7c1e-7d3a-9a55-3b1c2d4e5f60"
	var sound []byte
	chain := auditlog.FirstChain(epoch)
	for i, payload := range []string{`{"epoch":"` + epoch + `","time":"2026-11-25T00:00:00Z"}`, `{"time":"2026-11-25T00:00:00Z","id":"x","severity":"info","action":"a"}`, `{}`, `{"checkpoint":{},"leaves":""}`} {
		r := auditlog.RawRecord{Kind: auditlog.Kind("GEEC"[i]), Seq: uint64(i + 1), Payload: []byte(payload)}
		r.Chain = r.Link(chain)
		chain = r.Chain
		sound = append(sound, r.Frame()...)
	}
	f.Add(sound, uint16(0), byte(0))
	f.Add(sound, uint16(60), byte(1))
	f.Add(append(sound, make([]byte, 5000)...), uint16(6), byte(255))
	f.Fuzz(func(t *testing.T, data []byte, at uint16, bits byte) {
		if int(at) < len(data) {
			data[at] ^= bits
		}
		fsys := fstest.MapFS{epoch: {Mode: 0o700 | 1<<31}, epoch + "/00000000000000000001.seg": {Data: data}}
		for e, err := range auditlog.Read(fsys, nil) {
			if err != nil {
				t.Fatal(err)
			}
			_, _ = e.Event()
		}
		if _, err := auditlog.Verify(t.Context(), fsys, auditlog.VerifyConfig{}); err != nil {
			t.Fatal(err)
		}
		if _, err := auditlog.Inspect(fsys); err != nil {
			t.Fatal(err)
		}
		disk := newSimDisk()
		must(t, disk.Mkdir(epoch))
		file, err := disk.Create(epoch + "/00000000000000000001.seg")
		must(t, err)
		_, err = file.WriteAt(data, 0)
		must(t, err)
		l, err := auditlog.OpenOn(disk, simConfig)
		must(t, err)
		must(t, l.Append(t.Context(), event("after")))
		must(t, l.Close(t.Context()))
	})
}

func TestSealsThatAreRefused(t *testing.T) {
	for _, text := range []string{"", "{}", "null", `{"checkpoint":{"from":1,"to":2,"segment":1},"leaves":""}`, `{"checkpoint":{"from":2,"to":1,"segment":1},"leaves":""}`, `{"checkpoint":{"from":1,"to":18446744073709551615,"segment":1},"leaves":""}`} {
		if _, _, err := auditlog.ParseSeal([]byte(text)); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}
