package guard

// scanner finds candidates in text that comes in pieces. The zero value is not
// ready: set det.
type scanner struct {
	det  *detector
	zone zone
	// header is the length of the header of a private key that begins where the text is
	// decided: what follows will tell whether it has a body.
	header int
	// inPEM is set between the header of a private key and its end.
	inPEM bool
	// runOn is the label of a finding that reached the end of a window of a long
	// zone: what follows without white space belongs to it.
	runOn    *recognizer
	findings []Finding // room for those of a scan
	// dot is where the word dot was found; before dotTo there is no other behind it.
	dot, dotTo int
	// searched is how far behind done a break was looked for in vain.
	searched int
}

// scan reads b from done on and calls found with what it finds, in order. It
// returns how far the text is decided: no finding will begin or end before that.
// What is before done is context. Until eof, more text may follow.
func (s *scanner) scan(b []byte, done int, eof bool, found func(candidate)) int {
	limit := s.det.lastBreak(b, max(done, s.searched), eof)
	if limit == max(done, s.searched) && !eof {
		limit = done
		s.searched = max(done, len(b)-breakLook)
	}
	for {
		if s.header > 0 {
			end := done + s.header
			body, decided := pemBody(b, end, eof)
			if !decided {
				return done
			}
			if body {
				found(candidate{start: done, end: end, rec: s.det.pem, score: 1})
			}
			s.header, s.inPEM = 0, body
			done, limit = end, max(limit, end)
		}
		if s.inPEM {
			next, ended := pemEnd(b, done, eof)
			if next > done {
				found(candidate{start: done, end: next, rec: s.det.pem, score: 1, runOn: true})
			}
			done = next
			if s.inPEM = !ended; !ended {
				return done
			}
			limit = max(limit, done)
		}
		if s.runOn != nil {
			done = s.readOn(b, done, found)
		}
		if done >= limit {
			if eof || len(b)-done <= maxZone+breakLook {
				return done
			}
			// A zone that is longer than a window.
			done = s.window(b, done, done, done, len(b), found)
			continue
		}
		first, t := s.det.nextTrigger(b, done, limit, s.zone.min)
		if dot := s.nextDot(b[:limit], done); dot >= 0 && (t < 0 || dot < t) {
			t = dot
			if first < 0 || first > dot {
				first = dot
			}
		}
		if t < 0 {
			done = limit
			continue
		}
		done = s.window(b, done, first, t, limit, found)
	}
}

// nextDot returns the first place in b[done:] where the word dot begins, or -1. It
// looks at every place once.
func (s *scanner) nextDot(b []byte, done int) int {
	if s.dot < done {
		s.dot = nextDot(b, max(done, s.dotTo))
		s.dotTo = s.dot + 1
	}
	if s.dot >= len(b) {
		s.dotTo = max(done, len(b)-4)
		s.dot = -1
	}
	return s.dot
}

// window reads the zone around the trigger at t, which begins at done or later
// and ends at limit at the latest. Before first there is nothing to read in it.
// It returns where to go on.
func (s *scanner) window(b []byte, done, first, t, limit int, found func(candidate)) int {
	start := t
	for start > done && !(mayBreak[b[start-1]] && s.det.isBreak(b, start)) {
		start--
	}
	// Windows of a long zone are a step apart, wherever its triggers are. A
	// candidate may begin well before its trigger.
	const step = maxZone - maxCandidate
	start += max(0, t-start-maxCandidate) / step * step
	end := max(t+1, start+1)
	for last := min(limit, start+maxZone); end < last && !(mayBreak[b[end-1]] && s.det.isBreak(b, end)); {
		end++
	}
	cut := end-start >= maxZone && end < len(b)
	s.zone.dots = s.dot >= 0 && s.dot < end
	if b[t] == '\\' && !cut && !s.zone.dots && s.onlyQuotes(b, start, t, end) {
		return end
	}
	cands, head := s.zone.read(s.det, b, start, end, max(start, first), t)
	if head.end > 0 {
		end, cut = head.start, false
		for _, c := range cands {
			end = min(max(end, c.end), head.end-1)
		}
		s.header = head.end - end
	}
	if !cut {
		for _, c := range cands {
			found(c)
		}
		return end
	}
	next := start + step
	for _, c := range cands {
		if c.start >= start+step {
			continue
		}
		found(c)
		next = max(next, c.end)
		if c.end == end && c.rec.runsOn {
			s.runOn = c.rec
		}
	}
	return next
}

// onlyQuotes reports whether all there is to read in the zone b[start:end] are escaped
// quotation marks, as in a string of JSON, the first of which is at b[t]. Behind the
// name of a secret, or an encoding, they mean something.
func (s *scanner) onlyQuotes(b []byte, start, t, end int) bool {
	for p := start; p < end; p++ {
		switch {
		case isDigit(b[p]):
			return false
		case !dirtyByte[b[p]]:
		case b[p] != '\\' || p+1 == end || !isQuote(b[p+1]) || padsBlob(b, p) || keyBefore(b, p):
			return false
		}
	}
	for t >= 0 && b[t] == '\\' && s.det.names == nil {
		_, t = s.det.nextTrigger(b, t+2, end, s.zone.min)
	}
	return t < 0
}

// readOn reads the rest of a token that did not fit into a window.
func (s *scanner) readOn(b []byte, done int, found func(candidate)) int {
	end := done
	for end < len(b) && isTokenByte[b[end]] {
		end++
	}
	if end > done {
		found(candidate{start: done, end: end, rec: s.runOn, score: 1, runOn: true})
	}
	if end < len(b) {
		s.runOn = nil
	}
	return end
}
