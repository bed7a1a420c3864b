package guard

// A reading is how far a text was read for what is encoded in it.
type reading struct {
	// open is where the first code begins that more text could make or change;
	// len(text) if there is none.
	open  int
	steps int // bytes looked at, again for each way of looking
}

// looked notes that what begins at i is no code, as far as text[i:i+n] tells.
func (r *reading) looked(text []byte, i, n int) {
	r.steps += n + 1
	if i+n >= len(text) {
		r.open = min(r.open, i)
	}
}

// add adds how far l, a layer of the text, was read.
func (r *reading) add(of reading, l *layer) {
	r.steps += of.steps
	if of.open < len(l.text) {
		start, _ := l.span(of.open, of.open+1)
		r.open = min(r.open, start)
	}
}

// A reader replaces the codes of a layer by what they stand for.
type reader struct {
	reading
	under *layer
	text  []byte
	codes []code
	joins joins
}

// A code is text[start:end] of a layer, which stands for something else.
type code struct {
	start, end int
	meaning    []byte
}

// joins says where lines were joined in vain.
type joins struct {
	end   int // of these lines
	tries int // how often that may be tried
}

func newReader(l *layer) *reader {
	return &reader{reading: reading{open: len(l.text)}, under: l, text: l.text}
}

// try lets read decode what begins at r.text[i], and returns that and its length; or
// nil, and where read stopped.
func (r *reader) try(i int, read func([]byte) ([]byte, int)) ([]byte, int) {
	decoded, n := read(r.text[i:])
	if decoded == nil {
		r.looked(r.text, i, n)
	}
	return decoded, n
}

// replace puts decoded in the place of r.text[i:i+n].
func (r *reader) replace(decoded []byte, i, n int) {
	r.steps += n + len(decoded)
	r.open = min(r.open, i)
	r.codes = append(r.codes, code{i, i + n, decoded})
}

// codeContext is how much is read with a code, in bytes, in front of it and behind it.
// What is farther away was read before.
const codeContext = 1024

// decoded returns what is around the codes, with what they stand for in their place.
func (r *reader) decoded() (parts []*layer) {
	for k := 0; k < len(r.codes); {
		first := k
		for k++; k < len(r.codes) && r.codes[k].start-r.codes[k-1].end <= 2*codeContext; k++ {
		}
		codes := r.codes[first:k]
		parts = append(parts, r.rewrite(codes, max(0, codes[0].start-codeContext), min(len(r.text), codes[len(codes)-1].end+codeContext)))
	}
	return parts
}

// rewrite returns r.text[start:end] with the codes replaced.
func (r *reader) rewrite(codes []code, start, end int) *layer {
	n := end - start
	out := &layer{make([]byte, 0, n), make([]int32, 0, n), make([]int32, 0, n)}
	for _, c := range codes {
		out.keep(r.under, start, c.start)
		out.add(c.meaning, r.under, c.start, c.end)
		start = c.end
	}
	out.keep(r.under, start, end)
	return out
}
