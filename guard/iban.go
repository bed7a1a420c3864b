package guard

// ibanSizes are the lengths of IBANs in SWIFT's registry, and of the countries
// that use the form without being in it.
const ibanSizes = "AD24AE23AL28AO25AT20AZ28BA20BE16BF28BG22BH22BI27BJ28BR29BY28CF27CG27CH21CI28CM27CR22CV25CY28CZ24DE22DJ27DK18DO28" +
	"DZ26EE20EG29ES24FI18FK18FO18FR27GA27GB22GE22GI23GL18GQ27GR27GT28GW25HN28HR21HU28IE22IL23IQ23IR26IS26IT27JO30KM27KW30KZ20LB28" +
	"LC32LI21LT20LU20LV21LY25MA28MC27MD24ME22MG27MK19ML28MN20MR27MT31MU30MZ25NE28NI28NL18NO15OM23PK24PL28PS29PT25QA29RO24RS22RU33" +
	"SA24SC31SD18SE24SI19SK24SM27SN28SO23ST25SV28TD27TG28TL23TN24TR26UA29VA22VG24XK20YE30"

// ibanSizeOf has the lengths by the two letters of a country.
var ibanSizeOf = func() (t [32 * 32]uint8) {
	for i := 0; i < len(ibanSizes); i += 4 {
		t[int(ibanSizes[i]&31)<<5|int(ibanSizes[i+1]&31)] = uint8(num([]byte(ibanSizes[i+2 : i+4])))
	}
	return t
}()

// ibanSize returns the length of the IBANs of a country, in capitals, or 0.
func ibanSize(country []byte) int {
	if !isUpper(country[0]) || !isUpper(country[1]) {
		return 0
	}
	return int(ibanSizeOf[int(country[0]&31)<<5|int(country[1]&31)])
}

// readIBAN reads an IBAN from group g on.
func (l *level) readIBAN(gs []group, g int) {
	t, start := l.t, gs[g].start
	if gs[g].end-start < 4 || !isLetter(t[start]) || gs[g].letters {
		return
	}
	// Letters may be in front, as in "IBANGB29…".
	p := start + 1
	for isLetter(t[p]) {
		p++
	}
	if start = p - 2; start < gs[g].start || gs[g].end-p < 2 || !isDigit(t[p+1]) {
		return
	}
	country := [2]byte{upper(t[start]), upper(t[start+1])}
	size := ibanSize(country[:])
	if size == 0 {
		return
	}
	if l.zone.min <= shapeScore {
		l.ibanShape(gs[g:], start, size)
	}
	var c [34]byte
	n, sep := 0, byte(0)
	for j, from := g, start; n+gs[j].end-from <= size; {
		for ; from < gs[j].end; from++ {
			c[n] = upper(t[from])
			n++
		}
		if n == size {
			if j+1 < len(gs) && gs[j].sep == sep && sep != ' ' && sep != 0 {
				return
			}
			l.ibanOf(c[:n], start, gs[j].end)
			return
		}
		if j+1 == len(gs) {
			l.ibanOn(c[:n], size, start, gs[j].end)
			return
		}
		if sep != 0 && gs[j].sep != sep {
			return
		}
		if sep = gs[j].sep; sep == '/' || sep == ':' {
			return
		}
		j++
		from = gs[j].start
	}
}

// ibanOn reads on behind t[end], where a run ends before groups of letters, what c is
// the beginning of.
func (l *level) ibanOn(c []byte, size, start, end int) {
	t := l.t
	if len(c) < 8 || end >= len(t) || t[end] != ' ' && t[end] != '-' {
		return
	}
	for sep := t[end]; len(c) < size; {
		next := end + 1 + min(4, size-len(c))
		if next > len(t) || t[end] != sep {
			return
		}
		for _, k := range t[end+1 : next] {
			if !isAlnum(k) {
				return
			}
			c = append(c, upper(k))
		}
		end = next
	}
	if end == len(t) || !isAlnum(t[end]) {
		l.ibanOf(c, start, end)
	}
}

// ibanShape records what has the check digits of an IBAN and is not of the length that
// its country has, but not much shorter, or has different separators.
func (l *level) ibanShape(gs []group, start, size int) {
	var c [34]byte
	n, from := 0, start
	for j := range gs {
		if n+gs[j].end-from > len(c) {
			return
		}
		for _, k := range l.t[from:gs[j].end] {
			c[n] = upper(k)
			n++
		}
		if n >= size-2 && ibanSum(c[:n]) {
			l.add(l.zone.det.iban, start, gs[j].end, shapeScore)
		}
		if j+1 == len(gs) || gs[j].sep != ' ' && gs[j].sep != '-' {
			return
		}
		from = gs[j+1].start
	}
}

// ibanOf records c if it is an IBAN: the check digits of ISO 13616.
func (l *level) ibanOf(c []byte, start, end int) {
	if len(c) < 15 || !isLetter(c[0]) || !isLetter(c[1]) || !isDigit(c[2]) || !isDigit(c[3]) || ibanSize(c) != len(c) {
		return
	}
	if !ibanSum(c) {
		return
	}
	score := float32(1)
	if mixesCase(l.t[start:end]) {
		score = l.rate(l.zone.det.iban, start, 0.3, 0.95) // a name in a program, by chance
	}
	l.add(l.zone.det.iban, start, end, score)
}

// ibanSum reports whether the check digits of c are right.
func ibanSum(c []byte) bool {
	if !isDigit(c[2]) || !isDigit(c[3]) || num(c[2:4]) < 2 {
		return false
	}
	var turned [34]byte
	n := copy(turned[:], c[4:])
	n += copy(turned[n:], c[:4])
	return mod97(turned[:n]) == 1
}

func mixesCase(b []byte) bool {
	capitals, small := false, false
	for _, c := range b {
		capitals, small = capitals || isUpper(c), small || isLower(c)
	}
	return capitals && small
}
