package auditlog

import (
	"crypto/sha256"
	"math/bits"
)

// node is the hash of an inner node of a Merkle tree: RFC 6962, section 2.1.
func node(left, right Hash) Hash {
	var b [1 + 2*sha256.Size]byte
	b[0] = 1
	copy(b[1:], left[:])
	copy(b[1+sha256.Size:], right[:])
	return sha256.Sum256(b[:])
}

// A tree is a Merkle tree of which only the roots of its complete subtrees are
// kept, the largest first: as many as size has bits set.
type tree struct {
	size  uint64
	roots []Hash
}

func (t *tree) add(leaf Hash) {
	for range bits.TrailingZeros64(^t.size) {
		last := len(t.roots) - 1
		leaf = node(t.roots[last], leaf)
		t.roots = t.roots[:last]
	}
	t.roots = append(t.roots, leaf)
	t.size++
}

// root is the Merkle tree hash; for an empty tree, the hash of nothing.
func (t *tree) root() Hash {
	if t.size == 0 {
		return sha256.Sum256(nil)
	}
	last := len(t.roots) - 1
	root := t.roots[last]
	for i := last - 1; i >= 0; i-- {
		root = node(t.roots[i], root)
	}
	return root
}

func rootOf(leaves []Hash) Hash {
	var t tree
	for _, leaf := range leaves {
		t.add(leaf)
	}
	return t.root()
}

// inclusionPath is PATH(m, leaves) of RFC 6962, section 2.1.1: from the leaf up.
func inclusionPath(m int, leaves []Hash) []Hash {
	if len(leaves) <= 1 {
		return nil
	}
	k := 1 << (bits.Len(uint(len(leaves)-1)) - 1) // the largest power of two below
	if m < k {
		return append(inclusionPath(m, leaves[:k]), rootOf(leaves[k:]))
	}
	return append(inclusionPath(m-k, leaves[k:]), rootOf(leaves[:k]))
}

// rootFromPath returns the root that the path of leaf number index leads to, in
// a tree of size leaves: RFC 9162, section 2.1.3.2. It is false if the path
// does not fit such a tree.
func rootFromPath(leaf Hash, index, size uint64, path []Hash) (Hash, bool) {
	if index >= size {
		return Hash{}, false
	}
	fn, sn, r := index, size-1, leaf
	for _, p := range path {
		if sn == 0 {
			return Hash{}, false
		}
		if fn&1 == 1 || fn == sn {
			r = node(p, r)
			for fn&1 == 0 && fn != 0 {
				fn, sn = fn>>1, sn>>1
			}
		} else {
			r = node(r, p)
		}
		fn, sn = fn>>1, sn>>1
	}
	return r, sn == 0
}
