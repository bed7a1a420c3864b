package guard

// luhn reports whether the digits d end with the right check digit of ISO/IEC
// 7812-1, annex B.
func luhn(d []byte) bool {
	const doubled = "0246813579"
	sum, i := 0, len(d)-1
	for ; i > 0; i -= 2 {
		sum += int(d[i]-'0') + int(doubled[d[i-1]-'0']-'0')
	}
	if i == 0 {
		sum += int(d[0] - '0')
	}
	return sum%10 == 0
}

// weighted returns the sum of the digits d, each times its weight.
func weighted(d []byte, weights ...int) int {
	sum := 0
	for i, w := range weights {
		sum += int(d[i]-'0') * w
	}
	return sum
}

// num is the number that the digits d spell.
func num(d []byte) int {
	n := 0
	for _, c := range d {
		n = n*10 + int(c-'0')
	}
	return n
}

// value36 is the value of a digit or capital letter in base 36.
func value36(c byte) int {
	if isDigit(c) {
		return int(c - '0')
	}
	return int(c-'A') + 10
}

// mod97 is the rest of ISO 7064 MOD 97-10 over letters and digits.
func mod97(c []byte) int {
	n := 0
	for _, c := range c {
		if v := value36(c); v < 10 {
			n = (n*10 + v) % 97
		} else {
			n = (n*100 + v) % 97
		}
	}
	return n
}

// mod1110 reports whether digits d satisfy ISO 7064 MOD 11,10.
func mod1110(d []byte) bool {
	p := 10
	for _, c := range d[:len(d)-1] {
		s := (int(c-'0') + p) % 10
		if s == 0 {
			s = 10
		}
		p = s * 2 % 11
	}
	return (11-p)%10 == int(d[len(d)-1]-'0')
}

// verhoeff reports whether the digits d satisfy Verhoeff's dihedral check.
func verhoeff(d []byte) bool {
	const (
		times = "0123456789123406789523401789563401289567401239567859876043216598710432765982104387659321049876543210"
		perm  = "01234567891576283094580379614289160435279453126870428657390127938064157046913258"
	)
	c := 0
	for i := range d {
		v := int(d[len(d)-1-i] - '0')
		v = int(perm[i%8*10+v] - '0')
		c = int(times[c*10+v] - '0')
	}
	return c == 0
}

// sameDigits reports whether all of d are equal.
func sameDigits(d []byte) bool {
	for _, c := range d {
		if c != d[0] {
			return false
		}
	}
	return true
}

// validDate reports whether the day exists, in a year of four digits.
func validDate(year, month, day int) bool {
	if month < 1 || month > 12 || day < 1 {
		return false
	}
	days := [...]int{31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}[month-1]
	if month == 2 && year%4 == 0 && (year%100 != 0 || year%400 == 0) {
		days = 29
	}
	return day <= days
}

// validShortDate is validDate for a year of which two digits are known.
func validShortDate(year, month, day int) bool { return validDate(2000+year, month, day) }
