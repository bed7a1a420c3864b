package auditlog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
)

// A follower reads records in order, and goes on when there are more. It
// belongs to one goroutine.
type follower struct {
	fs     fs.FS
	epoch  string                              // of the record that was read last, or that is wanted first
	next   uint64                              // number of the record that is wanted next
	limit  func(epoch string, seq uint64) bool // whether a record may be read yet; nil: all that are there
	damage func(text string)                   // is told what cannot be read, and skipped; nil: nobody

	open    fs.File
	segment uint64
	raw     []byte // memory for buf
	buf     []byte // what was read and not returned
	off     int64  // of buf in the segment
}

func (f *follower) close() {
	if f.open != nil {
		f.open.Close()
		f.open = nil
	}
	f.buf, f.off = f.buf[:0], 0
}

// read returns the next record, whose bytes are valid until the next call. It
// is io.EOF when there is none yet.
func (f *follower) read() (record, error) {
	for {
		if f.open == nil {
			if err := f.find(); err != nil {
				return record{}, err
			}
		}
		r, err := parseRecord(f.buf)
		switch {
		case err != nil:
			if err := f.refill(); err != nil {
				return record{}, err
			}
		case r.seq < f.next:
			f.take(len(r.raw))
		case f.limit != nil && !f.limit(f.epoch, r.seq):
			f.buf = f.buf[:0] // it may be another one when it is durable
			return record{}, io.EOF
		default:
			if r.seq > f.next {
				f.tell("epoch %s: records %d to %d are missing", f.epoch, f.next, r.seq-1)
			}
			f.take(len(r.raw))
			f.next = r.seq + 1
			return r, nil
		}
	}
}

// refill is called where buf has no record. It reads on, skips what cannot be
// read or goes to the next segment, and is io.EOF where all of that fails.
func (f *follower) refill() error {
	const chunk = 256 << 10
	found, err := f.load(chunk)
	if found || err != nil {
		return err
	}
	if _, err := parseRecord(f.buf); errors.Is(err, errShort) && len(f.buf) == chunk {
		if found, err := f.load(headerSize + maxPayload); found || err != nil {
			return err
		}
	}
	epoch, segment, err := f.later()
	if err != nil {
		return err
	}
	due := f.limit != nil && f.limit(f.epoch, f.next)
	if epoch == "" && !due && (len(f.buf) == 0 || f.buf[0] == 0) {
		return io.EOF // nothing but space that is allocated ahead
	}
	// Either the segment ends here, or some of it is damaged, or it is being
	// written. A later segment shows that it is not.
	info, err := f.open.Stat()
	if err != nil {
		return err
	}
	if found, err := f.load(int(max(min(info.Size(), maxSegment)-f.off, 0))); found || err != nil {
		return err
	}
	if skip := findRecord(f.buf); skip >= 0 {
		r, _ := parseRecord(f.buf[skip:])
		if r.seq >= f.next && (epoch != "" || due || r.batch > f.next) {
			f.tell("%s: %d bytes at %d cannot be read", segmentName(f.epoch, f.segment), skip, f.off)
			f.take(skip)
			return nil
		}
	}
	if epoch == "" {
		return io.EOF
	}
	if epoch != f.epoch {
		f.close()
		f.epoch, f.next = epoch, 1
		return nil
	}
	return f.enter(segment)
}

func (f *follower) tell(format string, args ...any) {
	if f.damage != nil {
		f.damage(fmt.Sprintf(format, args...))
	}
}

func (f *follower) take(n int) { f.buf, f.off = f.buf[n:], f.off+int64(n) }

// back has the record that was read last read again.
func (f *follower) back(r record) {
	f.next = r.seq
	f.off -= int64(len(r.raw))
	f.buf = f.buf[:0]
}

// find opens the segment that has the wanted record.
func (f *follower) find() error {
	epochs, err := epochsIn(f.fs)
	if err != nil {
		return err
	}
	if f.epoch == "" {
		if len(epochs) == 0 {
			return io.EOF
		}
		f.epoch, f.next = epochs[0], 1
	}
	segments, err := segmentsOf(f.fs, f.epoch)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(segments) == 0 {
		if i, _ := slices.BinarySearch(epochs, f.epoch+"~"); i < len(epochs) {
			f.epoch, f.next = epochs[i], 1
			return f.find()
		}
		return io.EOF
	}
	i, found := slices.BinarySearch(segments, f.next)
	if !found && i > 0 {
		i--
	}
	return f.enter(segments[i])
}

func (f *follower) enter(segment uint64) error {
	file, err := f.fs.Open(segmentName(f.epoch, segment))
	if err != nil {
		return err
	}
	f.close()
	f.open, f.segment = file, segment
	return nil
}

// later returns the segment after this one, and "" if there is none.
func (f *follower) later() (epoch string, segment uint64, err error) {
	segments, err := segmentsOf(f.fs, f.epoch)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", 0, err
	}
	if i, _ := slices.BinarySearch(segments, f.segment+1); i < len(segments) {
		return f.epoch, segments[i], nil
	}
	epochs, err := epochsIn(f.fs)
	if err != nil {
		return "", 0, err
	}
	if i, _ := slices.BinarySearch(epochs, f.epoch+"~"); i < len(epochs) {
		return epochs[i], 1, nil
	}
	return "", 0, nil
}

// load reads n bytes from where the reading stands, and reports whether there
// is a record at their start.
func (f *follower) load(n int) (bool, error) {
	if cap(f.raw) < n {
		f.raw = make([]byte, n)
	}
	f.buf = f.raw[:n]
	got, err := readAt(f.open, f.buf, f.off)
	f.buf = f.buf[:got]
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	_, err = parseRecord(f.buf)
	return err == nil, nil
}

// readAt reads a file of an fs.FS, which need not be an io.ReaderAt.
func readAt(file fs.File, p []byte, off int64) (int, error) {
	if r, ok := file.(io.ReaderAt); ok {
		return r.ReadAt(p, off)
	}
	s, ok := file.(io.Seeker)
	if !ok {
		return 0, errors.New("auditlog: the file system can neither read at an offset nor seek")
	}
	if _, err := s.Seek(off, io.SeekStart); err != nil {
		return 0, err
	}
	n, err := io.ReadFull(file, p)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}
