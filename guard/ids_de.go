package guard

import "strings"

// deRecognizers are identifiers of Germany.
func deRecognizers() []recognizer {
	const (
		steuer = "steuer steuernummer steuer-id steueridentifikationsnummer steuerid idnr idnummer tin tax finanzamt id identifikationsnummer stnr"
		ausw   = "ausweis personalausweis ausweisnummer personalausweisnummer identitätskarte id card identity perso"
		pass   = "reisepass pass passnummer passport reisepassnummer"
		vat    = "ust ustid ust-id umsatzsteuer umsatzsteueridentifikationsnummer vat mehrwertsteuer idnr rechnung"
		plate  = "kennzeichen kfz nummernschild fahrzeug auto plate vehicle zulassung pkw"
	)
	return []recognizer{
		{label: "DE_TAX_ID", forms: "ddddddddddd|dd ddd ddd ddd", check: deTaxOK, score: 0.35, with: 0.95, words: steuer},
		{label: "DE_TAX_NUMBER", forms: "ddddddddddddd", check: elsterOK, score: 0.1, with: 0.7, words: steuer},
		{label: "DE_TAX_NUMBER", forms: "dd/ddd/ddddd|ddd/ddd/ddddd|dd/ddd/dddd|dd/dddd/dddd|ddd/dddd/dddd|ddd/ddd/dddd|ddd ddd ddddd", score: 0.3, with: 0.8, words: steuer},
		{label: "DE_VAT_ID", forms: "DEddddddddd|DE~ddddddddd|DE~ddd~ddd~ddd", check: deVATOK, score: 0.9, with: 1, words: vat},
		{label: "DE_VAT_ID", forms: "DEddddddddd|DE~ddddddddd|DE~ddd~ddd~ddd", check: deVATShape, score: 0.3, with: 0.6, words: vat},
		{label: "DE_ID_CARD", forms: "axxxxxxxd", check: deCardOK, score: 0.4, with: 0.95, words: ausw},
		{label: "DE_ID_CARD", forms: "Tdddddddd", score: 0.1, with: 0.7, words: ausw},
		{label: "DE_PASSPORT", forms: "axxxxxxxd", check: deCardOK, score: 0.35, with: 0.95, words: pass},
		{label: "DE_SOCIAL_SECURITY", forms: "ddddddddaddd|dd-dddddd-a-ddd|dd dddddd a ddd", check: deSocialOK, score: 0.8, with: 0.95, words: "sozialversicherung sozialversicherungsnummer sv svnr rentenversicherung rentenversicherungsnummer versicherungsnummer social security"},
		{label: "DE_HEALTH_INSURANCE", forms: "addddddddd", check: kvnrOK, score: 0.5, with: 0.95, words: "krankenversicherung krankenversichertennummer krankenkasse kvnr versichertennummer gesundheitskarte egk health insurance"},
		{label: "DE_LANR", forms: "ddddddddd", check: lanrOK, score: 0.2, with: 0.9, words: "lanr arzt arztnummer arztes lebenslange physician vertragsarzt"},
		{label: "DE_BSNR", forms: "ddddddddd", check: notSame, score: 0.05, with: 0.7, words: "bsnr betriebsstätte betriebsstättennummer praxis"},
		{label: "DE_FUEHRERSCHEIN", forms: "aaddddddddx", score: 0.3, with: 0.9, words: "führerschein führerscheinnummer fahrerlaubnis fuehrerschein driver licence license"},
		{label: "DE_FUEHRERSCHEIN", forms: "xdddxxxxxdx", check: fuehrerscheinOK, score: 0.1, with: 0.8, words: "führerschein führerscheinnummer fahrerlaubnis fuehrerschein"},
		{label: "DE_HANDELSREGISTER", forms: "HRA?d{1,6}|HRB?d{1,6}|HRB d{4,6} a|HRA d{4,6} a", score: 0.6, with: 0.9, words: "handelsregister amtsgericht registergericht register eingetragen"},
		{label: "DE_KFZ", forms: "a{1,3}~a{1,2}~d{1,4}|a{1,3}~aad{1,4}|a{1,3}~ad{1,4}|a{1,3}~a{1,2}~d{1,4}E|a{1,3}~a{1,2}~d{1,4}H", check: kfzOK, capitals: true, score: 0.2, with: 0.8, words: plate},
		{label: "DE_PLZ", forms: "ddddd", check: func(d []byte) bool { n := num(d); return n >= 1001 && n <= 99998 }, score: 0.02, with: 0.6, words: "plz postleitzahl"},
	}
}

// deTaxOK follows section 139b of the Abgabenordnung: no leading zero, no digit
// more than three times, and ISO 7064 MOD 11,10.
func deTaxOK(d []byte) bool {
	var count [10]int
	for _, c := range d[:10] {
		if count[c-'0']++; count[c-'0'] > 3 {
			return false
		}
	}
	return d[0] != '0' && mod1110(d)
}

// elsterOK knows the first digits of the uniform number of thirteen digits: the
// numbers of the states, and those that the tax offices use.
func elsterOK(d []byte) bool {
	p := num(d[:2])
	switch {
	case p >= 1 && p <= 16:
		return true
	case p >= 21 && p <= 32, p == 40, p == 41, p >= 51 && p <= 55, p == 91, p == 92:
		return d[4] == '0'
	}
	return false
}

func deVATOK(c []byte) bool { return c[2] != '0' && mod1110(c[2:]) }

func deVATShape(c []byte) bool { return c[2] != '0' }

// deCardOK is the check digit of identity cards and passports: the weights 7, 3
// and 1 of ICAO Doc 9303, over an alphabet without vowels.
func deCardOK(c []byte) bool {
	const first = "CFGHJKLMNPRTVWXYZ"
	if strings.IndexByte(first, c[0]) < 0 {
		return false
	}
	sum, weights := 0, [3]int{7, 3, 1}
	for i, k := range c[:8] {
		if isLetter(k) && strings.IndexByte(first, k) < 0 {
			return false
		}
		sum += value36(k) * weights[i%3]
	}
	return sum%10 == int(c[8]-'0')
}

// deSocialOK follows section 147 of the Sozialgesetzbuch VI and the VKVV.
func deSocialOK(c []byte) bool { return num(c[:2]) >= 2 && deSocialSum(c) }

func deSocialSum(c []byte) bool {
	day, month := num(c[2:4]), num(c[4:6])
	if day == 0 || day > 31 && (day < 51 || day > 81) || month < 1 || month > 12 {
		return false
	}
	letter := int(c[8]-'A') + 1
	digits := [12]int{8: letter / 10, 9: letter % 10, 10: int(c[9] - '0'), 11: int(c[10] - '0')}
	for i := range 8 {
		digits[i] = int(c[i] - '0')
	}
	sum := 0
	for i, w := range [12]int{2, 1, 2, 5, 7, 1, 2, 1, 2, 1, 2, 1} {
		p := digits[i] * w
		sum += p/10 + p%10
	}
	return sum%10 == int(c[11]-'0')
}

// kvnrOK is the check of section 290 of the Sozialgesetzbuch V: the letter's
// place in the alphabet, then the digits, with the weights 1 and 2.
func kvnrOK(c []byte) bool {
	letter := int(c[0]-'A') + 1
	digits := [10]int{letter / 10, letter % 10}
	for i := range 8 {
		digits[i+2] = int(c[i+1] - '0')
	}
	sum := 0
	for i, d := range digits {
		p := d * (i%2 + 1)
		sum += p/10 + p%10
	}
	return sum%10 == int(c[9]-'0')
}

// lanrOK is the check of the Kassenärztliche Bundesvereinigung's Arztnummern.
func lanrOK(d []byte) bool {
	return (10-weighted(d, 4, 9, 4, 9, 4, 9)%10)%10 == int(d[6]-'0')
}

func fuehrerscheinOK(c []byte) bool {
	return isLetter(c[0]) && isLetter(c[10]) || isLetter(c[0]) && isLetter(c[4])
}

// kfzOK refuses what is a word and a number.
func kfzOK(c []byte) bool {
	i := 0
	for isLetter(c[i]) {
		i++
	}
	return c[i] != '0'
}
