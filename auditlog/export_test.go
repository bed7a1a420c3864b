package auditlog

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"hash/crc32"
)

// A RawRecord is what stands in a segment, for tests that know the format as
// an attacker does.
type RawRecord struct {
	Kind    Kind
	Seq     uint64
	Chain   Hash
	Batch   uint32
	Payload []byte
}

// ParseSegment returns the records of a segment.
func ParseSegment(data []byte) (out []RawRecord) {
	for {
		r, err := parseRecord(data)
		if err != nil {
			return out
		}
		out = append(out, RawRecord{r.kind, r.seq, r.chain, uint32(r.seq - r.batch), append([]byte(nil), r.payload...)})
		data = data[len(r.raw):]
	}
}

// Frame returns the record with a CRC that fits.
func (r RawRecord) Frame() []byte {
	b := appendFrame(nil, append([]byte{0, byte(r.Kind)}, r.Payload...))
	binary.LittleEndian.PutUint64(b[8:], r.Seq)
	copy(b[chainAt:], r.Chain[:])
	binary.LittleEndian.PutUint32(b[batchAt:], r.Batch)
	crc := crc32.Update(crc32.Checksum(r.Payload, castagnoli()), castagnoli(), b[:crcAt])
	binary.LittleEndian.PutUint32(b[crcAt:], crc)
	return b
}

// Leaf is the record's leaf hash.
func (r RawRecord) Leaf() Hash {
	return sha256.Sum256(append([]byte{0, byte(r.Kind)}, r.Payload...))
}

// Link is the chain at r, after before.
func (r RawRecord) Link(before Hash) Hash { return link(before, r.Kind, r.Seq, r.Leaf()) }

// FirstChain is the chain before the first record of an epoch.
func FirstChain(epoch string) Hash { return firstChain(epoch) }

// RootOf is the root of a Merkle tree.
func RootOf(leaves []Hash) Hash { return rootOf(leaves) }

// InclusionPath and RootFromPath are the two sides of an inclusion proof.
func InclusionPath(m int, leaves []Hash) []Hash { return inclusionPath(m, leaves) }

func RootFromPath(leaf Hash, index, size uint64, path []Hash) (Hash, bool) {
	return rootFromPath(leaf, index, size, path)
}

// MakeSeal signs a checkpoint and returns the payload of its record.
func MakeSeal(signer Signer, c Checkpoint, leaves []Hash) ([]byte, Hash) {
	var flat []byte
	for _, leaf := range leaves {
		flat = append(flat, leaf[:]...)
	}
	s, err := seal(context.Background(), signer, c, flat)
	if err != nil {
		panic(err)
	}
	data, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return data, s.Hash()
}

// NetworkName names the network file system with a number of statfs(2).
var NetworkName = networkName

// Filesystem and File are what a simulated disk implements.
type (
	Filesystem = filesystem
	File       = file
)

// OpenOn is Open on another file system.
func OpenOn(fsys Filesystem, cfg Config) (*Log, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	return open(fsys, "sim", cfg)
}

// AppendJSONForTest renders an event that has no address.
func (e Event) AppendJSONForTest() []byte { return e.AppendJSON(nil) }

// LeafOf is the leaf hash of RFC 6962 over data.
func LeafOf(data []byte) Hash { return sha256.Sum256(append([]byte{0}, data...)) }

// ReadTail looks for the end of a segment, as Open does.
func ReadTail(data []byte) uint64 { return readTail(data, "", 1).seq }
