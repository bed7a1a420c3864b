package auditlog

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"iter"
)

// A segment is a file of records, one after the other, in little-endian order:
//
//	 0   3  "PXA"
//	 3   1  the kind: G, E or C
//	 4   4  length of the payload
//	 8   8  sequence number
//	16  32  chain: SHA-256(chain before, kind, sequence number, leaf)
//	48   4  how many records stand before it in the batch that it was synced with
//	52   4  CRC-32C of the payload and then of the 52 bytes above
//	56      payload: JSON
//
// The leaf is the record's leaf hash in the sense of RFC 6962, section 2.1:
// SHA-256(0x00, kind, payload). The chain before the first record of an epoch
// is SHA-256("phoenix audit epoch\n", the epoch's ID). What follows the last
// record is zero: space that is allocated ahead.
//
// The place in the batch tells a crash from damage: where a record cannot be
// read, one of a later batch behind it shows that it was durable.
const (
	headerSize = 56
	chainAt    = 16
	batchAt    = 48
	crcAt      = 52

	// maxPayload is more than any record has: an event is at most MaxEvent, a
	// checkpoint has 43 bytes for each of at most maxSealed records.
	maxPayload = 8 << 20
)

const magic = "PXA"

// A Hash is a SHA-256. Its text form is hexadecimal.
type Hash [sha256.Size]byte

// String returns the hash in hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText returns the hash in hexadecimal.
func (h Hash) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h[:]), nil }

// UnmarshalText reads what MarshalText returns.
func (h *Hash) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(h)) {
		return fmt.Errorf("a hash has %d digits, not %d", hex.EncodedLen(len(h)), len(text))
	}
	_, err := hex.Decode(h[:], text)
	return err
}

type record struct {
	kind    Kind
	seq     uint64
	chain   Hash
	batch   uint64 // the first number of its batch
	payload []byte
	raw     []byte // header and payload
}

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) } // made once by the package

var (
	errShort = errors.New("the record is cut off")
	errFrame = errors.New("these bytes are no record")
)

// parseRecord returns the record at the start of b. It is errShort if b may be
// the beginning of one.
func parseRecord(b []byte) (record, error) {
	if n := min(len(b), len(magic)); string(b[:n]) != magic[:n] {
		return record{}, errFrame
	}
	if len(b) < headerSize {
		return record{}, errShort
	}
	kind, length := Kind(b[3]), binary.LittleEndian.Uint32(b[4:])
	if (kind != KindGenesis && kind != KindEvent && kind != KindCheckpoint) || length > maxPayload {
		return record{}, errFrame
	}
	size := headerSize + int(length)
	if len(b) < size {
		return record{}, errShort
	}
	crc := crc32.Update(crc32.Checksum(b[headerSize:size], castagnoli()), castagnoli(), b[:crcAt])
	if crc != binary.LittleEndian.Uint32(b[crcAt:]) {
		return record{}, errFrame
	}
	seq := binary.LittleEndian.Uint64(b[8:])
	return record{
		kind: kind, seq: seq, chain: Hash(b[chainAt:batchAt]), batch: seq - uint64(binary.LittleEndian.Uint32(b[batchAt:])),
		payload: b[headerSize:size:size], raw: b[:size:size],
	}, nil
}

// recordsIn yields the records of a segment that can be read, in their order.
func recordsIn(data []byte) iter.Seq[record] {
	return func(yield func(record) bool) {
		for len(data) > 0 {
			r, err := parseRecord(data)
			if err != nil {
				skip := findRecord(data)
				if skip < 0 {
					return
				}
				data = data[skip:]
				continue
			}
			if !yield(r) {
				return
			}
			data = data[len(r.raw):]
		}
	}
}

// findRecord returns the offset of the first record in b, and -1 if there is
// none: what stands before it is damaged.
func findRecord(b []byte) int {
	for from := 0; ; {
		i := bytes.Index(b[from:], []byte(magic))
		if i < 0 {
			return -1
		}
		from += i
		if _, err := parseRecord(b[from:]); err == nil {
			return from
		}
		from++
	}
}

// appendFrame appends a record that finish will complete. Until then its leaf
// stands in the place of the chain, and the payload's CRC in that of the whole.
// leafInput is 0x00, the kind and the payload.
func appendFrame(dst, leafInput []byte) []byte {
	payload := leafInput[2:]
	dst = append(dst, magic...)
	dst = append(dst, leafInput[1])
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(payload)))
	dst = binary.LittleEndian.AppendUint64(dst, 0)
	leaf := sha256.Sum256(leafInput)
	dst = append(dst, leaf[:]...)
	dst = binary.LittleEndian.AppendUint32(dst, 0)
	dst = binary.LittleEndian.AppendUint32(dst, crc32.Checksum(payload, castagnoli()))
	return append(dst, payload...)
}

// finish gives the records that appendFrame left in frames their numbers and
// their chain, and returns the last of both.
func finish(frames []byte, seq uint64, chain Hash) (uint64, Hash) {
	for i := uint32(0); len(frames) > 0; i++ {
		seq++
		binary.LittleEndian.PutUint64(frames[8:], seq)
		chain = link(chain, Kind(frames[3]), seq, Hash(frames[chainAt:batchAt]))
		copy(frames[chainAt:], chain[:])
		binary.LittleEndian.PutUint32(frames[batchAt:], i)
		crc := crc32.Update(binary.LittleEndian.Uint32(frames[crcAt:]), castagnoli(), frames[:crcAt])
		binary.LittleEndian.PutUint32(frames[crcAt:], crc)
		frames = frames[headerSize+int(binary.LittleEndian.Uint32(frames[4:])):]
	}
	return seq, chain
}

func link(before Hash, kind Kind, seq uint64, leaf Hash) Hash {
	var b [sha256.Size + 1 + 8 + sha256.Size]byte
	copy(b[:], before[:])
	b[32] = byte(kind)
	binary.LittleEndian.PutUint64(b[33:], seq)
	copy(b[41:], leaf[:])
	return sha256.Sum256(b[:])
}

// firstChain is the chain before the first record of an epoch.
func firstChain(epoch string) Hash { return sha256.Sum256([]byte("phoenix audit epoch\n" + epoch)) }

// A leafHasher computes leaves without allocating for each.
type leafHasher struct{ buf []byte }

func (h *leafHasher) leaf(kind Kind, payload []byte) Hash {
	h.buf = append(append(h.buf[:0], 0, byte(kind)), payload...)
	return sha256.Sum256(h.buf)
}
