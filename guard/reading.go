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
	out   *layer // nil until there is a code
	done  int    // so much of text is in out
	joins joins
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
	if r.out == nil {
		n := len(r.text)
		r.out = &layer{make([]byte, 0, n), make([]int32, 0, n), make([]int32, 0, n)}
	}
	r.steps += n + len(decoded)
	r.open = min(r.open, i)
	r.out.keep(r.under, r.done, i)
	r.out.add(decoded, r.under, i, i+n)
	r.done = i + n
}

// finish returns the layer with what was replaced, or nil if nothing was.
func (r *reader) finish() *layer {
	if r.out != nil {
		r.out.keep(r.under, r.done, len(r.text))
	}
	return r.out
}
