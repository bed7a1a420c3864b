package secrets

import (
	"encoding/base64"
	"fmt"
	"hash/maphash"
	"io"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/tamshai/phoenix/internal/secmem"
)

// minScrubbed is the length in bytes below which a value is not searched for:
// replacing every "a" or "1234" would make a text unreadable and protect
// nothing.
const minScrubbed = 5

// A Scrubber removes known secret values from texts that come from elsewhere:
// a server's error, a child's output. Its zero value knows no values and is
// ready to use. It is safe for concurrent use.
//
// It finds a value as it is, in JSON and URL escapes, in hexadecimal, and in
// base64 at each of the three alignments a longer encoded text can give it.
// Values shorter than five bytes are left alone.
//
// It keeps no value: of each spelling it knows the length and keyed hashes, of
// the whole and of its first five bytes.
type Scrubber struct {
	mu    sync.RWMutex
	seed  maphash.Seed          // drawn with the first value
	known map[uint64]struct{}   // hashes of values
	heads map[uint64][]spelling // by the hash of their first five bytes
	sieve sieve                 // of those five bytes
}

// spelling is a way in which a value may stand in a text, without the text.
type spelling struct {
	value  uint64 // the hash of the value that is spelled
	length int
	hash   uint64
	bit    uint64 // of its head in the sieve
}

// A sieve tells most places of a text that are not the head of a spelling, at
// the cost of a multiplication: a keyed hash of each would cost twenty times as
// much, and every audit event goes through here.
type sieve struct {
	key  uint64 // odd
	bits [64]uint64
}

// roll adds a byte to the five of a head, and drops the first.
func roll(head uint64, b byte) uint64 { return head>>8 | uint64(b)<<(8*(minScrubbed-1)) }

func (s *sieve) bit(head uint64) uint64 { return head * s.key >> 52 }
func (s *sieve) set(bit uint64)         { s.bits[bit>>6] |= 1 << (bit & 63) }
func (s *sieve) has(bit uint64) bool    { return s.bits[bit>>6]>>(bit&63)&1 != 0 }

// Add makes values known. Adding one twice does nothing.
func (s *Scrubber) Add(values ...Secret) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil {
		s.seed, s.known, s.heads = maphash.MakeSeed(), map[uint64]struct{}{}, map[uint64][]spelling{}
		s.sieve.key = rand.Uint64() | 1
	}
	for _, v := range values {
		value, _ := v.load() // a live handle's may change meanwhile
		v = fixed(value)
		id, length := s.identify(v)
		if _, twice := s.known[id]; twice || length < minScrubbed {
			continue
		}
		s.known[id] = struct{}{}
		secmem.Do(func() {
			for _, text := range spellings(v.Bytes()) {
				head, five := maphash.String(s.seed, text[:minScrubbed]), uint64(0)
				for i := range minScrubbed {
					five = roll(five, text[i])
				}
				bit := s.sieve.bit(five)
				s.sieve.set(bit)
				s.heads[head] = append(s.heads[head], spelling{id, len(text), maphash.String(s.seed, text), bit})
			}
		})
	}
}

// identify returns the hash by which a value is known, and its length.
func (s *Scrubber) identify(v Secret) (id uint64, length int) {
	value, _ := v.load()
	value.Use(func(b []byte) { id, length = maphash.Bytes(s.seed, b), len(b) })
	return id, length
}

// Remove forgets values that are not secret any more, like a dead SecretID.
func (s *Scrubber) Remove(values ...Secret) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil {
		return
	}
	for _, v := range values {
		id, _ := s.identify(v)
		if _, ok := s.known[id]; !ok {
			continue
		}
		delete(s.known, id)
		for head, all := range s.heads {
			if all = slices.DeleteFunc(all, func(sp spelling) bool { return sp.value == id }); len(all) > 0 {
				s.heads[head] = all
			} else {
				delete(s.heads, head)
			}
		}
	}
	s.sieve.bits = [64]uint64{}
	for _, all := range s.heads {
		for _, sp := range all {
			s.sieve.set(sp.bit)
		}
	}
}

// Format writes Redacted for every verb: fmt must not walk through what lives.
func (s *Scrubber) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, Redacted) }

// Scrub returns text with every known value replaced by Redacted. Where values
// overlap, all of what they cover is replaced.
func (s *Scrubber) Scrub(text string) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if len(s.known) == 0 {
		return text
	}
	var out strings.Builder
	done := 0 // what comes before is written, or replaced
	var head uint64
	for i := 0; i < min(minScrubbed-1, len(text)); i++ {
		head = roll(head, text[i])
	}
	for i := range len(text) - minScrubbed + 1 {
		head = roll(head, text[i+minScrubbed-1])
		if !s.sieve.has(s.sieve.bit(head)) {
			continue
		}
		end := s.match(text, i)
		if end == 0 {
			continue
		}
		if i >= done {
			out.WriteString(text[done:i])
			out.WriteString(Redacted)
		}
		done = max(done, end)
	}
	if done == 0 {
		return text
	}
	out.WriteString(text[done:])
	return out.String()
}

// match returns where the longest spelling that begins at i ends, 0 if none
// begins there.
func (s *Scrubber) match(text string, i int) (end int) {
	for _, sp := range s.heads[maphash.String(s.seed, text[i:i+minScrubbed])] {
		if to := i + sp.length; to > end && to <= len(text) && maphash.String(s.seed, text[i:to]) == sp.hash {
			end = to
		}
	}
	return end
}

// spellings returns the ways in which value may stand in a text, each
// of them once.
func spellings(value []byte) []string {
	plain := string(value)
	quoted := string(secmem.AppendJSON(nil, value))
	hexText := make([]byte, 0, 2*len(value))
	for _, b := range value {
		hexText = append(hexText, hexDigits[b>>4], hexDigits[b&15])
	}
	all := []string{
		plain, quoted[1 : len(quoted)-1], url.QueryEscape(plain), url.PathEscape(plain),
		string(hexText), strings.ToUpper(string(hexText)),
	}
	// In a longer base64 text the value starts at one of three alignments;
	// the characters that its neighbours share are cut off at both ends.
	for lead := range 3 {
		padded := append(make([]byte, lead), value...)
		first := (lead*8 + 5) / 6
		last := len(padded) * 8 / 6
		if last-first < minScrubbed {
			continue
		}
		all = append(all,
			base64.RawStdEncoding.EncodeToString(padded)[first:last],
			base64.RawURLEncoding.EncodeToString(padded)[first:last])
	}
	slices.Sort(all)
	return slices.Compact(all)
}

const hexDigits = "0123456789abcdef"
