package guard

import "strings"

// euRecognizers are identifiers of other countries of Europe.
func euRecognizers() []recognizer {
	const nif = "nif dni documento nacional identidad identificación identificacion"
	return []recognizer{
		{label: "ES_NIF", forms: "dddddddda|dddddddd-a|ddddddda|ddddddd-a|dd.ddd.ddd=a|dd.ddd.ddda", check: nifOK, score: 0.6, with: 0.95, words: nif},
		{label: "ES_NIE", forms: "addddddda|addddddd-a|a-ddddddd-a", check: nieOK, score: 0.7, with: 0.95, words: "nie extranjero " + nif},
		{label: "ES_PASSPORT", forms: "aaadddddd", score: 0.15, with: 0.8, words: "pasaporte passport"},
		{label: "FR_NIR", forms: "ddddddddddddddd|d-dd-dd-dd-ddd-ddd-dd|ddddddddddddd-dd|dddddxxdddddddd|d dd dd xx ddd ddd dd", check: nirOK, score: 0.8, with: 1, words: "sécurité sociale nir insee securite numéro vitale"},
		{label: "FR_SIRET", forms: "dddddddddddddd|ddd ddd ddd ddddd", check: luhn, score: 0.25, with: 0.9, words: "siret siren entreprise établissement"},
		{label: "IT_FISCAL_CODE", forms: "aaaaaaxxaxxaxxxa|aaa-aaa-xxaxx-axxxa|aaaaaa-xxaxx-axxxa", check: fiscalOK, score: 0.9, with: 1, words: "codice fiscale cf"},
		{label: "IT_FISCAL_CODE", forms: "aaaaaaddaddaddda", check: fiscalShape, score: 0.4, with: 0.7, words: "codice fiscale cf"},
		{label: "IT_VAT_CODE", forms: "ddddddddddd|ITddddddddddd|IT ddddddddddd", check: itVATOK, score: 0.2, with: 0.8, words: "iva partita piva vat p.iva"},
		{label: "IT_DRIVER_LICENSE", forms: "aaddddddda|U1xxxxxxxa", check: itDrivingOK, score: 0.3, with: 0.8, words: "patente guida licenza driver license licence"},
		{label: "IT_IDENTITY_CARD", forms: "aaddddddd|dddddddaa|aadddddaa|aa ddddddd", score: 0.1, with: 0.75, words: "carta identità identita elettronica cie documento"},
		{label: "IT_PASSPORT", forms: "aaddddddd", score: 0.1, with: 0.75, words: "passaporto passport documento"},
		{label: "PL_PESEL", forms: "ddddddddddd", check: peselOK, score: 0.45, with: 0.95, words: "pesel"},
		{label: "SE_PERSONNUMMER", forms: "dddddd=dddd|dddddddd=dddd|dddddddddddd", check: personnummerOK, score: 0.6, with: 0.95, words: pnr},
		{label: "SE_PERSONNUMMER", forms: "dddddddddd|dddddd+dddd", check: personnummerOK, score: 0.3, with: 0.9, words: pnr},
		{label: "SE_ORGANISATIONSNUMMER", forms: "dddddd=dddd", check: orgnrOK, score: 0.6, with: 0.95, words: "organisationsnummer organisation org orgnr företag company bolag"},
		{label: "SE_ORGANISATIONSNUMMER", forms: "dddddddddd", check: orgnrOK, score: 0.2, with: 0.9, words: "organisationsnummer organisation org orgnr företag company bolag"},
		{label: "FI_PERSONAL_IDENTITY_CODE", forms: "dddddd=dddx|ddddddadddx", check: hetuOK, score: 0.85, with: 1, words: hetu, glued: true},
		{label: "FI_PERSONAL_IDENTITY_CODE", forms: "dddddd+dddx", check: hetuOK, score: 0.3, with: 0.95, words: hetu},
		{label: "NL_BSN", forms: "ddddddddd|dddd.dd.ddd|dddd ddddd", check: bsnOK, score: 0.3, with: 0.95, words: "bsn burgerservicenummer sofinummer sofi burger"},
		{label: "BE_NRN", forms: "ddddddddddd|dd.dd.dd=ddd.dd|dd.dd.dd=ddddd", check: nrnOK, score: 0.35, with: 0.95, words: "rijksregisternummer registre national nrn insz niss rijksregister"},
		{label: "CH_AHV", forms: "ddddddddddddd|ddd-dddd-dddd-dd", check: ahvOK, score: 0.7, with: 1, words: "ahv avs sozialversicherung versichertennummer"},
		{label: "PT_NIF", forms: "ddddddddd|ddd ddd ddd", check: ptNIFOK, score: 0.2, with: 0.9, words: "nif contribuinte fiscal"},
		{label: "NO_FODSELSNUMMER", forms: "ddddddddddd|dddddd ddddd", check: fodselsOK, score: 0.4, with: 0.95, words: "fødselsnummer fodselsnummer personnummer"},
		{label: "DK_CPR", forms: "dddddd=dddd", check: cprOK, score: 0.4, with: 0.9, words: "cpr cpr-nummer personnummer"},
		{label: "IE_PPSN", forms: "ddddddda|dddddddaa", check: ppsOK, score: 0.35, with: 0.95, words: "pps ppsn"},
	}
}

const (
	pnr       = "personnummer pnr personal identity code person personnr"
	hetu      = "hetu henkilötunnus personal identity code personbeteckning"
	nifLetter = "TRWAGMYFPDXBNJZSQVHLCKE"
)

// nifOK is the letter of Real Decreto 1553/2005: the number modulo 23.
func nifOK(c []byte) bool {
	n := len(c) - 1
	return nifLetter[num(c[:n])%23] == c[n]
}

func nieOK(c []byte) bool {
	first := strings.IndexByte("XYZ", c[0])
	return first >= 0 && nifLetter[(first*10000000+num(c[1:8]))%23] == c[8]
}

// nirOK is the key of INSEE's numéro d'inscription: 97 less the number modulo
// 97, Corsica's departments 2A and 2B being 19 and 18.
func nirOK(c []byte) bool {
	var d [15]byte
	copy(d[:], c)
	switch string(c[5:7]) {
	case "2A":
		d[5], d[6] = '1', '9'
	case "2B":
		d[5], d[6] = '1', '8'
	}
	for _, k := range d {
		if !isDigit(k) {
			return false
		}
	}
	month := num(d[3:5])
	return d[0] >= '1' && d[0] <= '4' && month >= 1 && (month <= 12 || month >= 20) && 97-num(d[:13])%97 == num(d[13:])
}

// fiscalOK is the check letter of the Italian decree of 23 December 1976.
func fiscalOK(c []byte) bool {
	if !fiscalShape(c) {
		return false
	}
	const odd = "\x01\x00\x05\x07\x09\x0d\x0f\x11\x13\x15\x02\x04\x12\x14\x0b\x03\x06\x08\x0c\x0e\x10\x0a\x16\x19\x18\x17"
	sum := 0
	for i, k := range c[:15] {
		v := int(k - 'A')
		if isDigit(k) {
			v = int(k - '0')
		}
		if i%2 == 0 {
			v = int(odd[v])
		}
		sum += v
	}
	return byte(sum%26)+'A' == c[15]
}

// fiscalShape knows where digits are, and the letters that replace them in
// namesakes' codes; a woman's day of birth has 40 added.
func fiscalShape(c []byte) bool {
	var d [16]byte
	for _, i := range [...]int{6, 7, 9, 10, 12, 13, 14} {
		if d[i] = c[i]; !isDigit(c[i]) {
			v := strings.IndexByte("LMNPQRSTUV", c[i])
			if v < 0 {
				return false
			}
			d[i] = '0' + byte(v)
		}
	}
	day := num(d[9:11])
	if day > 40 {
		day -= 40
	}
	month := strings.IndexByte("ABCDEHLMPRST", c[8]) + 1
	return validShortDate(num(d[6:8]), month, day) && num(d[12:15]) > 0 && ofName(c[:3]) && ofName(c[3:6])
}

// ofName reports whether three letters are taken from a name: its consonants, then
// vowels, and X for those that it does not have.
func ofName(c []byte) bool {
	vowel := func(k byte) bool { return strings.IndexByte("AEIOU", k) >= 0 }
	switch {
	case vowel(c[1]):
		return vowel(c[2]) || c[2] == 'X'
	case vowel(c[0]):
		return c[1] == 'X' && c[2] == 'X'
	}
	return true
}

func itVATOK(c []byte) bool {
	d := c[len(c)-11:]
	return luhn(d) && num(d[:7]) != 0
}

func itDrivingOK(c []byte) bool {
	return c[0] != 'U' || c[1] != '1' || lettersBut(c[2:9], "AIOQV")
}

// peselOK follows the PESEL act: a date whose month tells the century, and
// weights 1, 3, 7 and 9.
func peselOK(d []byte) bool {
	month := num(d[2:4])
	year := [...]int{1900, 2000, 2100, 2200, 1800}[month/20%5] + num(d[:2])
	return validDate(year, month%20, num(d[4:6])) && peselSum(d)
}

func peselSum(d []byte) bool {
	return (10-weighted(d, 1, 3, 7, 9, 1, 3, 7, 9, 1, 3)%10)%10 == int(d[10]-'0')
}

// personnummerOK follows Skatteverket's SKV 704: a date, 60 more for the day of
// a coordination number, and Luhn over ten digits.
func personnummerOK(d []byte) bool {
	year := 2000
	if len(d) == 12 {
		if c := num(d[:2]); c < 18 || c > 20 {
			return false
		}
		year, d = num(d[:2])*100, d[2:]
	}
	day := num(d[4:6])
	if day > 60 {
		day -= 60
	}
	return validDate(year+num(d[:2]), num(d[2:4]), day) && luhn(d)
}

func orgnrOK(d []byte) bool { return d[2] >= '2' && d[0] != '0' && luhn(d) }

// hetuOK follows the Digital and Population Data Services Agency: a date, a sign
// for the century, and a check character modulo 31.
func hetuOK(c []byte) bool {
	if len(c) == 11 {
		if strings.IndexByte("ABCDEFYXWVU", c[6]) < 0 {
			return false
		}
		c = append(append(make([]byte, 0, 10), c[:6]...), c[7:]...)
	}
	const check = "0123456789ABCDEFHJKLMNPRSTUVWXY"
	return validShortDate(num(c[4:6]), num(c[2:4]), num(c[:2])) && check[num(c[:9])%31] == c[9]
}

// bsnOK is the Dutch eleven test.
func bsnOK(d []byte) bool {
	return weighted(d, 9, 8, 7, 6, 5, 4, 3, 2, -1)%11 == 0 && num(d) > 0 && !sameDigits(d)
}

func nrnOK(d []byte) bool {
	n, key := num(d[:9]), num(d[9:])
	return num(d[2:4]) <= 52 && num(d[4:6]) <= 31 && (97-n%97 == key || 97-(2000000000+n)%97 == key)
}

func ahvOK(d []byte) bool {
	return string(d[:3]) == "756" && (10-weighted(d, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3)%10)%10 == int(d[12]-'0')
}

func ptNIFOK(d []byte) bool {
	c := 11 - weighted(d, 9, 8, 7, 6, 5, 4, 3, 2)%11
	if c >= 10 {
		c = 0
	}
	return strings.IndexByte("1235689", d[0]) >= 0 && c == int(d[8]-'0')
}

func fodselsOK(d []byte) bool {
	day, month := num(d[:2]), num(d[2:4])
	if day > 40 {
		day -= 40
	}
	if month > 40 {
		month -= 40
	}
	k1 := weighted(d, 3, 7, 6, 1, 8, 9, 4, 5, 2, 1)
	k2 := weighted(d, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1)
	return validShortDate(num(d[4:6]), month, day) && k1%11 == 0 && k2%11 == 0
}

func cprOK(d []byte) bool { return validShortDate(num(d[4:6]), num(d[2:4]), num(d[:2])) }

func ppsOK(c []byte) bool {
	sum := weighted(c, 8, 7, 6, 5, 4, 3, 2)
	if len(c) == 9 {
		if c[8] < 'A' || c[8] > 'I' && c[8] != 'W' {
			return false
		}
		if c[8] != 'W' {
			sum += 9 * int(c[8]-'A'+1)
		}
	}
	return "WABCDEFGHIJKLMNOPQRSTUV"[sum%23] == c[7]
}
