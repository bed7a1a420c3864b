package guard

import "strings"

// ukRecognizers are identifiers of the United Kingdom.
func ukRecognizers() []recognizer {
	return []recognizer{
		{label: "UK_NHS", forms: "dddddddddd|ddd-ddd-dddd", check: nhsOK, score: 0.35, with: 0.95, words: "nhs national health patient service hospital"},
		{label: "UK_NINO", forms: "aadddddda|aa-dd-dd-dd-a|aa-dddddd-a|aadddddd-a|aa-dddddda", check: ninoOK, score: 0.6, with: 0.95, words: "national insurance ni nino hmrc"},
		{label: "UK_PASSPORT", forms: "aaddddddd", score: 0.1, with: 0.75, words: "passport travel document uk british hmpo"},
		{label: "UK_POSTCODE", forms: "ad daa|add daa|aad daa|aadd daa|ada daa|aada daa|GIR 0aa", check: postcodeOK, score: 0.35, with: 0.7, words: "postcode post code address postal zip delivery"},
		{label: "UK_POSTCODE", forms: "addaa|adddaa|aaddaa|aadddaa|adadaa|aadadaa|GIR0aa", check: postcodeOK, score: 0.1, with: 0.6, words: "postcode post code address postal zip delivery"},
		{label: "UK_VEHICLE_REGISTRATION", forms: "aaddaaa|aadd aaa|aadd=aaa", check: plateOK, score: 0.3, with: 0.8, words: plateWords},
		{label: "UK_VEHICLE_REGISTRATION", forms: "ad{1,3}aaa|ad{1,3} aaa|ad{1,3}=aaa", check: prefixPlateOK, score: 0.1, with: 0.7, capitals: true, words: plateWords},
		{label: "UK_VEHICLE_REGISTRATION", forms: "aaad{1,3}a|aaa d{1,3}a|aaa=d{1,3}a", check: suffixPlateOK, score: 0.1, with: 0.7, capitals: true, words: plateWords},
		{label: "UK_DRIVING_LICENCE", forms: "xxxxxddddddxxxaa", check: drivingOK, score: 0.7, with: 0.95, words: "driving licence license driver dvla"},
	}
}

const plateWords = "vehicle registration reg plate number car licence license dvla v5c vrm vrn"

// nhsOK is the modulus 11 check of the NHS Data Model and Dictionary.
func nhsOK(d []byte) bool {
	c := 11 - weighted(d, 10, 9, 8, 7, 6, 5, 4, 3, 2)%11
	if c == 11 {
		c = 0
	}
	return c == int(d[9]-'0') && !sameDigits(d)
}

// ninoOK follows HMRC's NIM39110.
func ninoOK(c []byte) bool {
	if strings.IndexByte("DFIQUV", c[0]) >= 0 || strings.IndexByte("DFIOQUV", c[1]) >= 0 || c[8] > 'D' {
		return false
	}
	switch string(c[:2]) {
	case "BG", "GB", "KN", "NK", "NT", "TN", "ZZ":
		return false
	}
	return true
}

// postcodeOK follows BS 7666 and Royal Mail's programmer's guide.
func postcodeOK(c []byte) bool {
	if string(c) == "GIR0AA" {
		return true
	}
	out, in := c[:len(c)-3], c[len(c)-3:]
	if strings.IndexByte("CIKMOV", in[1]) >= 0 || strings.IndexByte("CIKMOV", in[2]) >= 0 || strings.IndexByte("QVX", out[0]) >= 0 {
		return false
	}
	if isLetter(out[1]) && strings.IndexByte("IJZ", out[1]) >= 0 {
		return false
	}
	last := out[len(out)-1]
	if !isLetter(last) {
		return true
	}
	if isLetter(out[1]) {
		return strings.IndexByte("ABEHMNPRVWXY", last) >= 0
	}
	return strings.IndexByte("ABCDEFGHJKPSTUW", last) >= 0
}

// plateOK, prefixPlateOK and suffixPlateOK follow DVLA's INF104.
func plateOK(c []byte) bool {
	age := num(c[2:4])
	for _, k := range c {
		if k == 'I' || k == 'Q' {
			return false
		}
	}
	return c[0] != 'Z' && (age >= 2 && age <= 29 || age >= 51 && age <= 79)
}

func prefixPlateOK(c []byte) bool { return c[1] != '0' && oldPlate(c[0], c[len(c)-3:]) }

func suffixPlateOK(c []byte) bool { return c[3] != '0' && oldPlate(c[len(c)-1], c[:3]) }

// oldPlate is about the letter of the year, and the three others.
func oldPlate(year byte, rest []byte) bool {
	return strings.IndexByte("IOQUZ", year) < 0 && lettersBut(rest, "IQ")
}

func lettersBut(c []byte, not string) bool {
	for _, k := range c {
		if strings.IndexByte(not, k) >= 0 {
			return false
		}
	}
	return true
}

// drivingOK follows DVLA's driver number: a name padded with nines, the decade,
// the month (plus 50 for women), the day and the year of birth, initials.
func drivingOK(c []byte) bool {
	pad := false
	for _, k := range c[:5] {
		if pad = pad || k == '9'; pad && k != '9' || !pad && !isLetter(k) {
			return false
		}
	}
	month, day := num(c[6:8]), num(c[8:10])
	if month > 50 {
		month -= 50
	}
	for _, k := range c[11:13] {
		if !isLetter(k) && k != '9' {
			return false
		}
	}
	return isLetter(c[0]) && month >= 1 && month <= 12 && day >= 1 && day <= 31
}
