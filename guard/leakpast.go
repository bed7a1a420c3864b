package guard

import "slices"

// How a stream is read on where it was cut off: the alignments that may go on are kept,
// and what they were made from is not read again.

// A past is how the alignments of a text stand at its end.
type past struct{ words, letters, steps *tail }

// A tail is how the alignments of one kind stand.
type tail struct {
	endings []ending
	live    alignment // only what is live of it
	last    lastLetters
}

// An ending is an alignment that what follows may continue.
type ending struct {
	place, age int32 // where it ended, and how many ticks ago
	score      float32
	start      int32
	count, run int32
}

// resume makes t go on as it stood at tail.
func (t *track) resume(past *tail) (a alignment) {
	if past == nil {
		return a
	}
	for _, e := range past.endings {
		m := &t.met[(t.tick-e.age)%int32(len(t.met))]
		if m.tick != t.tick-e.age {
			*m = meeting{tick: t.tick - e.age}
		}
		m.places = append(m.places, e.place)
		t.score[e.place], t.seen[e.place], t.start[e.place], t.count[e.place], t.run[e.place] = e.score, t.tick-e.age, e.start, e.count, e.run
	}
	a = past.live
	a.liveTick += t.tick
	return a
}

// follow returns how the alignments stand behind l, which goes on what is before it
// and is cut off at a byte of the original.
func (x *index) follow(l *layer, before *past, cut int) *past {
	s := x.scratch.Get().(*scratch)
	defer x.scratch.Put(s)
	if before == nil {
		before = &past{}
	}
	moved := func(i int) int { return l.origin(i) - cut }
	return &past{
		s.words.tail(x.alignWords(l.text, &s.words, before.words), reach+1, moved),
		s.letters.tail(x.alignLetters(l.text, &s.letters, before.letters, false), 0, moved),
		s.letters.tail(x.alignLetters(l.text, &s.letters, before.steps, true), 0, moved),
	}
}

// tail returns how t stands after a, up to so many ticks ago.
func (t *track) tail(a alignment, oldest int32, moved func(int) int) *tail {
	end := &tail{last: t.last}
	for i := range end.last.starts {
		end.last.starts[i] = int32(moved(int(t.last.starts[i])))
	}
	for age := range oldest + 1 {
		m := t.met[(t.tick-age)%int32(len(t.met))]
		if m.tick != t.tick-age {
			continue
		}
		for _, j := range m.places {
			if t.seen[j] == m.tick {
				end.endings = append(end.endings, ending{j, age, t.score[j], int32(moved(int(t.start[j]))), t.count[j], t.run[j]})
			}
		}
	}
	if a.live > 0 {
		end.live = alignment{live: a.live, liveFrom: moved(a.liveFrom), liveTick: a.liveTick - t.tick}
	}
	return end
}

// same reports whether what follows is aligned after p as after q.
func (p *past) same(q *past) bool {
	return p.words.same(q.words) && p.letters.same(q.letters) && p.steps.same(q.steps)
}

func (t *tail) same(u *tail) bool {
	return t.last.roll.sum == u.last.roll.sum && t.last.before == u.last.before && t.live.live == u.live.live && slices.EqualFunc(t.endings, u.endings, func(a, b ending) bool {
		a.start = b.start
		return a == b
	})
}
