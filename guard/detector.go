package guard

import (
	_ "embed"
	"fmt"
	"maps"
	"slices"
	"strings"
)

//go:embed tlds.txt
var tldList string

// detector is what is compiled once for all scans. It is read-only.
type detector struct {
	recs  []*recognizer
	forms formIndex
	// shapes are the forms that are never a finding at the default threshold.
	shapes formIndex
	words  wordIndex
	tlds   map[string]bool
	// tldStarts has, for the first two letters of a top-level domain, a bit for each
	// length that there is: most words are none.
	tldStarts [32 * 32]uint32
	prefix    [256][]*tokenRule
	names     *Dictionary
	only      map[string]bool // labels to look for; nil: all

	// Recognizers with a matcher of their own.
	card, iban, ssn, phone, phoneTR, phonePH, mail, ip, mac, url, domain, domainName, crypto, date, secret, pem *recognizer
	nameOf                                                                                                      map[string]*recognizer // by the labels of the dictionary
	// unlike is no entity: its words say that a number is none.
	unlike *recognizer
}

// ownRecognizers are those that forms cannot describe.
func (d *detector) ownRecognizers() []recognizerAt {
	return []recognizerAt{
		{&d.card, recognizer{label: "CREDIT_CARD", checked: true, best: 0.95, bestWith: 1, words: "card cards credit debit visa mastercard amex american express diners discover jcb maestro cc ccn pan number payment"}},
		{&d.iban, recognizer{label: "IBAN_CODE", checked: true, best: 1, bestWith: 1, words: "iban bank account transfer"}},
		{&d.ssn, recognizer{label: "US_SSN", checked: true, best: 0.7, bestWith: 0.85, words: ssnWords}},
		{&d.phone, recognizer{label: "PHONE_NUMBER", best: 0.75, bestWith: 0.95, words: phoneWords}},
		{&d.phoneTR, recognizer{label: "TR_PHONE_NUMBER", best: 0.4, bestWith: 0.4, words: phoneWords + " numara numarası cep gsm"}},
		{&d.phonePH, recognizer{label: "PH_MOBILE_NUMBER", best: 0.4, bestWith: 0.4, words: phoneWords + " telepono numero"}},
		{&d.mail, recognizer{label: "EMAIL_ADDRESS", best: 1, bestWith: 1, words: "email e-mail mail"}},
		{&d.ip, recognizer{label: "IP_ADDRESS", checked: true, best: 0.95, bestWith: 1, words: "ip ipv4 ipv6 address addr host server dns gateway subnet loopback"}},
		{&d.mac, recognizer{label: "MAC_ADDRESS", best: 0.8, bestWith: 1, words: "mac hardware ethernet physical address device"}},
		{&d.url, recognizer{label: "URL", best: 0.6, bestWith: 0.6, runsOn: true}},
		{&d.domain, recognizer{label: "URL", best: 0.6, bestWith: 0.6, words: "url website web site link domain host homepage www http"}},
		{&d.domainName, recognizer{label: "DOMAIN_NAME", best: 0.55, bestWith: 0.55}},
		{&d.crypto, recognizer{label: "CRYPTO", checked: true, best: 0.9, bestWith: 1, words: "wallet btc bitcoin crypto ethereum eth litecoin address"}},
		{&d.date, recognizer{label: "DATE_TIME", checked: true, best: 0.3, bestWith: 0.85, words: "born birth birthday dob birthdate geboren geburtsdatum geburtstag naissance né née nacimiento nascita nato fecha nacido urodzenia date-of-birth"}},
		{&d.secret, recognizer{label: "SECRET", best: 1, bestWith: 1, runsOn: true, words: "password passwd pwd passphrase passcode passwort contraseña"}},
		{&d.pem, recognizer{label: "SECRET", best: 1, bestWith: 1}},
		{&d.unlike, recognizer{words: "suite apt apartment order invoice ticket version build isbn serial sku model revision commit line page chapter issue zip revenue price amount total cost usd eur units tracking part usps ups fedex parcel"}},
	}
}

type recognizerAt struct {
	at  **recognizer
	rec recognizer
}

const phoneWords = "phone phones telephone tel mobile cell cellphone call calls called calling contact reach fax office dial sms whatsapp answering answer hotline number telefon telefono teléfono téléphone handy mobil mobiltelefon móvil"

func newDetector(only []string, names *Dictionary) (*detector, error) {
	forms, shaped := map[uint64][]entry{}, map[uint64][]entry{}
	d := &detector{tlds: map[string]bool{}, names: names}
	own := d.ownRecognizers()
	for _, table := range [][]recognizer{usRecognizers(), ukRecognizers(), deRecognizers(), euRecognizers(), worldRecognizers(), shapes()} {
		for i := range table {
			d.recs = append(d.recs, &table[i])
		}
	}
	for i := range own {
		*own[i].at = &own[i].rec
		d.recs = append(d.recs, &own[i].rec)
	}
	if names != nil {
		d.nameOf = map[string]*recognizer{}
		for _, label := range slices.Sorted(maps.Values(names.label)) {
			if d.nameOf[label] == nil {
				d.nameOf[label] = &recognizer{label: label}
				d.recs = append(d.recs, d.nameOf[label])
			}
		}
	}
	if only != nil {
		d.only = map[string]bool{}
		known := map[string]bool{}
		for _, r := range d.recs {
			known[r.label] = r.label != ""
		}
		for _, label := range only {
			if !known[label] {
				return nil, fmt.Errorf("guard: there is no entity %q; Entities lists them", label)
			}
			d.only[label] = true
		}
	}
	bits := 0
	for i, r := range d.recs {
		r.topic, r.bit = i, -1
		if r.words != "" {
			if bits == len(mask{})*64 {
				return nil, fmt.Errorf("guard: more than %d recognizers have context words", bits)
			}
			r.bit = bits
			d.words.add(r.words, bits)
			bits++
		}
		if r.forms == "" || !d.wants(r) {
			continue
		}
		index := forms
		if max(r.score, r.with) < DefaultThreshold {
			index = shaped
		}
		if err := compileForms(r, index); err != nil {
			return nil, err
		}
	}
	d.forms.build(forms)
	d.shapes.build(shaped)
	for tld := range strings.FieldsSeq(tldList) {
		d.tlds[tld] = true
		d.tldStarts[int(tld[0]&31)<<5|int(tld[1]&31)] |= 1 << len(tld)
	}
	d.addTokenRules()
	return d, nil
}

// wants reports whether the caller looks for r.
func (d *detector) wants(r *recognizer) bool { return d.only == nil || d.only[r.label] }

// candidate is a finding before the policy has had its say.
type candidate struct {
	start, end int
	rec        *recognizer
	score      float32
	// runOn says that it goes on what the candidate before it began.
	runOn bool
}
