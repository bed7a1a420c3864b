package guard

import "strings"

// shapeScore is how sure a shape is: well below every threshold that a policy has a use for.
const shapeScore = 0.05

// shapes are identifiers that break a rule of theirs: of a day that is in no calendar,
// a region that there is not, with separators where nobody has them. A typist errs, and
// who makes a number up may not know its rules. No context makes one of them likely,
// so that only who asks for candidates sees them.
func shapes() []recognizer {
	const vehicle = "IN_VEHICLE_REGISTRATION"
	all := []recognizer{
		{label: "AU_ABN", forms: "ddddddddddd|dd ddd ddd ddd", check: abnSum},
		{label: "CREDIT_CARD", forms: "dddd^d{3,4}^d{3,4}^d{3,5}", check: cardShape},
		{label: "DE_KFZ", forms: "a{1,3}~a{1,2}~d{1,4}|a{1,3}~a{1,2}~d{1,4}E|a{1,3}~a{1,2}~d{1,4}H"},
		{label: "DE_SOCIAL_SECURITY", forms: "ddddddddaddd", check: deSocialSum},
		{label: "DE_TAX_NUMBER", forms: "d{2,3}/d{3,4}/d{4,5}"},
		{label: "DE_VAT_ID", forms: "DE^ddd^ddd^ddd"},
		{label: "IN_AADHAAR", forms: "dddd~dddd~dddd", check: aadhaarOK},
		{label: "IN_GSTIN", forms: "ddxxxxxddddaxZx", check: gstinShape},
		{label: "IN_PASSPORT", forms: "addddddd|add ddddd", check: func(c []byte) bool { return c[1] != '0' && c[7] != '0' }},
		{label: vehicle, forms: "adddd|a{2,3}dddd|Iddddd|aad{1,2}a{1,3}dddd", check: func(c []byte) bool { return num(c[len(c)-4:]) > 0 }},
		{label: vehicle, forms: "ddadddddda", check: func(c []byte) bool { return strings.IndexByte("ABCDEFHKPRX", c[2]) >= 0 }},
		{label: vehicle, forms: "d{1,3}CDd{2,4}|d{1,3}CCd{2,4}|d{1,3}UNd{2,4}"},
		{label: "IT_FISCAL_CODE", forms: "aaaaaaxxaxxaxxxa", check: fiscalShape},
		{label: "IT_VAT_CODE", forms: "d{1,5}^d{1,5}^d{1,5}", check: func(d []byte) bool { return len(d) == 11 && itVATOK(d) }},
		{label: "KR_BRN", forms: "dddddddddd|ddd=dd=ddddd", check: brnSum},
		{label: "KR_DRIVER_LICENSE", forms: "dd^dd^dddddd^dd", check: krDrivingOK},
		{label: "KR_FRN", forms: "dddddd^ddddddd", check: func(d []byte) bool { return dayOf(d, 2) && d[6] >= '5' && d[6] <= '8' }},
		{label: "KR_RRN", forms: "dddddd^ddddddd", check: func(d []byte) bool { return dayOf(d, 2) && d[6] >= '1' && d[6] <= '4' }},
		{label: "NG_VEHICLE_REGISTRATION", forms: "aaa dddaa"},
		{label: "PL_PESEL", forms: "ddddddddddd", check: func(d []byte) bool { return num(d[4:6]) <= 31 && peselSum(d) }},
		{label: "SE_ORGANISATIONSNUMMER", forms: "d{6,8}^dddd", check: func(d []byte) bool { return d[len(d)-8] >= '2' && luhn(d[len(d)-10:]) }},
		{label: "SE_PERSONNUMMER", forms: "d{6,8}^dddd", check: personnummerShape},
		{label: "SG_NRIC_FIN", forms: "addddddda"},
		{label: "TR_LICENSE_PLATE", forms: "dd^a{1,3}^d{2,4}", check: trPlateOK},
		{label: "UK_NHS", forms: "ddd^ddd^dddd", check: nhsOK},
		{label: "UK_NINO", forms: "aa^dd^dd^dd^a", check: ninoOK},
		{label: "UK_VEHICLE_REGISTRATION", forms: "ad{1,3}^aaa", check: func(c []byte) bool { return oldPlate(c[0], c[len(c)-3:]) }},
		{label: "UK_VEHICLE_REGISTRATION", forms: "aaa^d{1,3}^a", check: func(c []byte) bool { return oldPlate(c[len(c)-1], c[:3]) }},
		{label: "US_ITIN", forms: "ddd~dd~dddd|ddddd~dddd|ddd~dddddd", check: itinOK},
		{label: "US_MBI", forms: "dxxdxxdaadd|dxxd-xxd-aadd", check: mbiShape},
		{label: "US_NPI", forms: "dddd~ddd~ddd", check: npiOK},
		{label: "US_SSN", forms: "ddddddddd|ddd-dd-dddd|ddd-dddddd|ddddd-dddd", check: ssnShape},
	}
	for i := range all {
		all[i].score, all[i].with = shapeScore, shapeScore
	}
	return all
}

// dayOf reports whether a month is at d[i], and behind it a day that some month has.
func dayOf(d []byte, i int) bool {
	month, day := num(d[i:i+2]), num(d[i+2:i+4])
	return month >= 1 && month <= 12 && day >= 1 && day <= 31
}

// cardShape leaves out what begins as no scheme's numbers do.
func cardShape(d []byte) bool {
	return strings.IndexByte("13456", d[0]) >= 0 && luhn(d) && !sameDigits(d)
}

// gstinShape wants three letters of a PAN, of five.
func gstinShape(c []byte) bool {
	state, letters := num(c[:2]), 0
	for _, k := range c[2:7] {
		if isLetter(k) {
			letters++
		}
	}
	return state >= 1 && state <= 37 && letters >= 3
}

// personnummerShape takes any century, and days that a month does not have.
func personnummerShape(d []byte) bool {
	d = d[len(d)-10:]
	month, day := num(d[2:4]), num(d[4:6])
	if day > 60 {
		day -= 60
	}
	return month >= 1 && month <= 12 && day >= 1 && day <= 31 && luhn(d)
}

// ssnShape takes the areas from 900 on, which the Internal Revenue Service has.
func ssnShape(d []byte) bool {
	return d[0] == '9' && num(d[3:5]) != 0 && num(d[5:]) != 0 && !sameDigits(d) && string(d) != "987654320"
}
