package guard

const ssnWords = "ssn ssns ssid ssn# social security soc sec itin taxpayer"

// usRecognizers are identifiers of the United States.
func usRecognizers() []recognizer {
	const (
		ssn     = ssnWords
		tax     = "itin taxpayer tax tin individual irs"
		routing = "aba routing rtn transit bank banking wire ach fedwire checking"
		account = "account accounts acct bank banking checking savings debit deposit save saving iban"
		pass    = "passport passportnumber passports travel document us united states"
		license = "driver drivers driver's driving license licence lic dl dmv permit licenses number# cdl"
	)
	return []recognizer{
		{label: "US_SSN", forms: "ddd-dd-dddd", check: ssnOK, score: 0.85, with: 1, words: ssn},
		{label: "US_SSN", forms: "ddddddddd", check: ssnOK, score: 0.1, with: 0.85, words: ssn},
		{label: "US_SSN", forms: "ddd-dddddd|ddddd-dddd", check: ssnOK, score: 0.1, with: 0.7, words: ssn},
		{label: "US_ITIN", forms: "ddd-dd-dddd", check: itinOK, score: 0.75, with: 0.95, words: tax + " " + ssn},
		{label: "US_ITIN", forms: "ddddddddd|ddd-dddddd|ddddd-dddd", check: itinOK, score: 0.15, with: 0.75, words: tax + " " + ssn},
		{label: "ABA_ROUTING_NUMBER", forms: "ddddddddd|dddd-dddd-d", check: abaOK, score: 0.3, with: 0.9, words: routing},
		{label: "ABA_ROUTING_NUMBER", forms: "ddddddddd|dddd-dddd-d", check: abaSum, score: 0.05, with: 0.45, words: routing},
		{label: "US_BANK_NUMBER", forms: "d{8,17}", score: 0.05, with: 0.6, words: account},
		{label: "US_PASSPORT", forms: "ddddddddd", score: 0.05, with: 0.7, words: pass, check: notSame},
		{label: "US_PASSPORT", forms: "adddddddd", score: 0.1, with: 0.75, words: pass, check: notSame},
		{label: "US_MBI", forms: "dxxdxxdaadd|dxxd-xxd-aadd", check: mbiOK, score: 0.5, with: 0.95, words: "medicare mbi beneficiary patient cms health insurance"},
		{label: "US_NPI", forms: "dddddddddd|dddd-ddd-ddd", check: npiOK, score: 0.3, with: 0.9, words: "npi provider national prescriber physician nppes"},
		{label: "MEDICAL_LICENSE", forms: "aaddddddd|a9ddddddd", check: deaOK, score: 0.5, with: 0.95, words: "dea medical certificate license licence prescriber registration"},
		// The formats of the states, as AAMVA's table of 2019 and the states'
		// own pages have them. Without context they say nothing.
		{label: "US_DRIVER_LICENSE", forms: "d{6,14}|dddddddddddddddd", score: 0.02, with: 0.65, words: license},
		{label: "US_DRIVER_LICENSE", forms: "ad{3,14}|ad{18,19}|aad{2,9}|aaad{6,9}|dadddd|ddadddd", check: notHex, score: 0.15, with: 0.8, words: license},
		{label: "US_DRIVER_LICENSE", forms: "aadddddda|addddddR|ddaaad{5,6}|d{7,9}a|ddddddddaa|dddaadddd|adada|dddaddddd|ddaaddddd|aaadddaaaad|dddddddddaa", score: 0.1, with: 0.8, words: license},
		{label: "US_DRIVER_LICENSE", forms: "addd-ddd-dd-ddd-d|addd-dddd-dddd|addd-ddd-ddd-ddd|addd-dddd-dddd-dd|ddd-ddd-ddd|dd-ddd-dddd|addd-ddd-dd-dddd|addd-dddd-ddddd|add-dd-dddd|ddd-dd-dddd|addddd-ddddd-ddddd|ddd-ddd-dddd", score: 0.05, with: 0.7, words: license},
		{label: "US_DRIVER_LICENSE", forms: "WDLxxxxxxxxx|a{5,7}dddxx|a{5,7}dddxaa", score: 0.1, with: 0.8, words: license},
	}
}

// ssnOK knows what the Social Security Administration never issues: areas 000,
// 666 and 9xx, group 00, serial 0000, and the number on Woolworth's wallets.
func ssnOK(d []byte) bool {
	area, group, serial := num(d[:3]), num(d[3:5]), num(d[5:])
	return area != 0 && area != 666 && area < 900 && group != 0 && serial != 0 && !sameDigits(d) && string(d) != "078051120"
}

// itinOK follows IRM 3.21.263: 9xx with groups 50 to 65, 70 to 88, 90 to 92 and
// 94 to 99.
func itinOK(d []byte) bool {
	g := num(d[3:5])
	return d[0] == '9' && (g >= 50 && g <= 65 || g >= 70 && g <= 88 || g >= 90 && g <= 92 || g >= 94)
}

// abaOK follows ANSI X9.100: the Federal Reserve's districts and the weights 3,
// 7 and 1.
func abaOK(d []byte) bool {
	p := num(d[:2])
	return (p <= 12 || p >= 21 && p <= 32 || p >= 61 && p <= 72 || p == 80) && abaSum(d)
}

// abaSum leaves the districts out, for numbers of systems that make them up.
func abaSum(d []byte) bool {
	return d[0] <= '8' && d[0] != '4' && d[0] != '5' && !sameDigits(d) && weighted(d, 3, 7, 1, 3, 7, 1, 3, 7, 1)%10 == 0
}

// mbiOK follows CMS's "Understanding the Medicare Beneficiary Identifier Format".
func mbiOK(c []byte) bool { return c[0] != '0' && mbiShape(c) }

func mbiShape(c []byte) bool {
	for i, class := range "NAXNAXNAANN" {
		switch k := c[i]; {
		case class == 'N' && !isDigit(k), class == 'A' && !isLetter(k):
			return false
		case k == 'S' || k == 'L' || k == 'O' || k == 'I' || k == 'B' || k == 'Z':
			return false
		}
	}
	return true
}

// npiOK follows CMS's NPI check digit: Luhn over 80840 and the number.
func npiOK(d []byte) bool {
	var full [15]byte
	copy(full[:], "80840")
	copy(full[5:], d)
	return (d[0] == '1' || d[0] == '2') && luhn(full[:])
}

// deaOK is the check digit of registration numbers of 21 CFR 1301.
func deaOK(c []byte) bool {
	d := c[2:]
	return weighted(d, 1, 2, 1, 2, 1, 2)%10 == int(d[6]-'0') && !sameDigits(d)
}

func notSame(d []byte) bool { return !sameDigits(d[1:]) }

// notHex refuses hexadecimal constants, which look like the licences of some
// states.
func notHex(c []byte) bool { return c[0] != '0' || c[1] != 'X' }
