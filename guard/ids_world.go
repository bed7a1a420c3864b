package guard

import (
	"bytes"
	"strings"
)

// worldRecognizers are identifiers of Africa, the Americas, Asia and Australia.
func worldRecognizers() []recognizer {
	const (
		aadhaar = "aadhaar aadhar uidai uid आधार"
		krPass  = "passport 여권 여권번호 korean korea"
		thai    = "thai thailand tnin เลขประจำตัวประชาชน บัตรประชาชน"
		turkish = "tckn kimlik tc vatandaşlık turkish türkiye nüfus"
		plates  = "plaka plate araç vehicle registration plakası ruhsat"
	)
	return []recognizer{
		{label: "AU_ABN", forms: "ddddddddddd|dd ddd ddd ddd|dd-ddd-ddd-ddd", check: abnOK, score: 0.4, with: 0.95, words: "abn australian business"},
		{label: "AU_ACN", forms: "ddddddddd|ddd-ddd-ddd", check: acnOK, score: 0.25, with: 0.95, words: "acn australian company"},
		{label: "AU_TFN", forms: "ddddddddd|ddd-ddd-ddd", check: tfnOK, score: 0.25, with: 0.95, words: "tfn tax file australian"},
		{label: "AU_MEDICARE", forms: "dddddddddd|dddd-ddddd-d|ddddddddddd|dddd-ddddd-d-d", check: auMedicareOK, score: 0.25, with: 0.95, words: "medicare"},
		{label: "CA_SIN", forms: "ddd-ddd-ddd", check: sinOK, score: 0.6, with: 0.95, words: sinWords},
		{label: "CA_SIN", forms: "ddddddddd", check: sinOK, score: 0.25, with: 0.9, words: sinWords},
		{label: "IN_AADHAAR", forms: "dddddddddddd", check: aadhaarOK, score: 0.3, with: 0.95, words: aadhaar},
		{label: "IN_AADHAAR", forms: "dddd-dddd-dddd", check: aadhaarOK, score: 0.6, with: 1, words: aadhaar},
		{label: "IN_GSTIN", forms: "ddaaaaaddddaxZx", check: gstinOK, score: 0.85, with: 1, words: "gst gstin goods services tax"},
		{label: "IN_PAN", forms: "aaaaadddda", check: panOK, score: 0.6, with: 0.95, words: "pan permanent account income tax"},
		{label: "IN_PAN", forms: "aaaaadddda", score: 0.1, with: 0.5, words: "pan permanent account income tax"},
		{label: "IN_PASSPORT", forms: "addddddd|a ddddddd", check: inPassportOK, score: 0.1, with: 0.8, words: "passport indian travel पासपोर्ट"},
		{label: "IN_VEHICLE_REGISTRATION", forms: "aad{1,2}a{1,3}dddd|aadd-a{1,3}-dddd|aa-d{1,2}-a{1,3}-dddd|aadddd", check: inVehicleOK, score: 0.3, with: 0.85, words: "vehicle registration rto car plate bike"},
		{label: "IN_VEHICLE_REGISTRATION", forms: "ddBHdddda{1,2}", check: inSeriesOK, score: 0.45, with: 0.9, words: "vehicle registration rto car plate bike"},
		{label: "IN_VOTER", forms: "aaaddddddd", score: 0.25, with: 0.85, words: "voter epic election elector vote"},
		{label: "KR_RRN", forms: "ddddddddddddd|dddddd=ddddddd", check: rrnOK, score: 0.4, with: 0.9, words: rrnWords},
		{label: "KR_RRN", forms: "ddddddddddddd|dddddd=ddddddd", check: func(d []byte) bool { return rrnOK(d) && krSum(d) }, score: 0.85, with: 1, words: rrnWords},
		{label: "KR_FRN", forms: "ddddddddddddd|dddddd=ddddddd", check: frnOK, score: 0.4, with: 0.9, words: "frn foreigner registration 외국인등록번호 외국인"},
		{label: "KR_BRN", forms: "dddddddddd|ddd=dd=ddddd", check: brnOK, score: 0.35, with: 0.95, words: "brn business registration 사업자등록번호 사업자"},
		{label: "KR_DRIVER_LICENSE", forms: "dddddddddddd", check: krDrivingOK, score: 0.1, with: 0.85, words: krDriving},
		{label: "KR_DRIVER_LICENSE", forms: "dd=dd=dddddd=dd", check: krDrivingOK, score: 0.6, with: 0.95, words: krDriving},
		{label: "KR_PASSPORT", forms: "adddadddd|adddddddd", check: krPassportOK, score: 0.2, with: 0.85, words: krPass},
		{label: "NG_NIN", forms: "ddddddddddd", check: verhoeff, score: 0.2, with: 0.95, words: "nin nigeria nigerian nimc"},
		{label: "NG_VEHICLE_REGISTRATION", forms: "aaa=dddaa", score: 0.4, with: 0.85, words: ngPlates},
		{label: "NG_VEHICLE_REGISTRATION", forms: "aaadddaa", score: 0.2, with: 0.7, words: ngPlates},
		{label: "PH_TIN", forms: "ddd=ddd=ddd=ddd|ddd=ddd=ddd|ddd=ddd=ddd=ddddd", check: phTIN, score: 0.3, with: 0.85, words: "tin bir taxpayer identification"},
		{label: "PH_TIN", forms: "ddd=ddd=ddd=ddd|ddd=ddd=ddd|ddd=ddd=ddd=ddddd", score: 0, with: 0.4, words: "tin bir taxpayer identification"},
		{label: "PH_TIN", forms: "ddddddddd|dddddddddddd", check: phTIN, score: 0.01, with: 0.6, words: "bir"},
		{label: "SG_NRIC_FIN", forms: "addddddda", check: nricOK, score: 0.85, with: 1, words: nricWords},
		{label: "SG_NRIC_FIN", forms: "addddddda", check: nricShape, score: 0.3, with: 0.7, words: nricWords},
		{label: "FIN", forms: "addddddda", check: finShape, score: 0.2, with: 0.6, words: nricWords},
		{label: "SG_UEN", forms: "dddddddda|ddddddddda|addaadddda", check: uenOK, score: 0.3, with: 0.85, words: "uen acra business entity singapore"},
		{label: "TH_TNIN", forms: "ddddddddddddd|d-dddd-ddddd-dd-d", check: thaiOK, score: 0.4, with: 0.95, words: thai},
		{label: "TR_NATIONAL_ID", forms: "ddddddddddd", check: tcknOK, score: 0.6, with: 1, words: turkish},
		{label: "TR_LICENSE_PLATE", forms: "dd~a{1,3}~d{2,4}|dda{1,3}d{2,4}", check: trPlateOK, score: 0.25, with: 0.85, words: plates},
		{label: "ZA_ID_NUMBER", forms: "ddddddddddddd|dddddd dddd ddd|dddddd dddd dd d", check: zaOK, score: 0.6, with: 1, words: "south african id rsa identity refugee"},
		{label: "BR_CPF", forms: "ddd.ddd.ddd=dd|ddd-ddd-ddd-dd", check: cpfOK, score: 0.9, with: 1, words: "cpf"},
		{label: "BR_CPF", forms: "ddddddddddd", check: cpfOK, score: 0.45, with: 0.95, words: "cpf"},
		{label: "BR_CNPJ", forms: "xx.xxx.xxx/xxxx=dd|xxxxxxxxxxxxdd", check: cnpjOK, score: 0.7, with: 1, words: "cnpj"},
		{label: "CN_RESIDENT_ID", forms: "dddddddddddddddddx", check: cnOK, score: 0.8, with: 1, words: "身份证 resident identity 居民"},
		{label: "JP_MY_NUMBER", forms: "dddddddddddd|dddd-dddd-dddd", check: jpOK, score: 0.2, with: 0.95, words: "マイナンバー 個人番号 mynumber japan japanese"},
		{label: "MX_CURP", forms: "aaaaddddddaaaaaaxd", check: curpOK, score: 0.85, with: 1, words: "curp"},
		{label: "IL_ID", forms: "ddddddddd", check: func(d []byte) bool { return luhn(d) && num(d) > 0 }, score: 0.1, with: 0.9, words: "teudat zehut israeli תעודת זהות"},
		{label: "AR_CUIT", forms: "dd=dddddddd=d|ddddddddddd", check: cuitOK, score: 0.4, with: 0.95, words: "cuit cuil"},
		{label: "CL_RUT", forms: "dd.ddd.ddd=x|d.ddd.ddd=x|dddddddd=x|ddddddd=x", check: rutOK, score: 0.45, with: 0.95, words: "rut run"},
	}
}

const (
	ngPlates  = "vehicle plate registration nigeria number car"
	sinWords  = "sin insurance canadian canada nas assurance"
	rrnWords  = "rrn resident registration 주민등록번호 주민번호 주민"
	nricWords = "nric fin ic identity singapore pr"
	krDriving = "운전면허 운전면허번호 면허 driver license licence 면허번호"
)

// abnOK is the Australian Business Register's check: modulo 89, after one is
// taken from the first digit.
func abnOK(d []byte) bool { return d[0] != '0' && abnSum(d) }

func abnSum(d []byte) bool { return (weighted(d, 10, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19)-10)%89 == 0 }

func acnOK(d []byte) bool {
	return (10-weighted(d, 8, 7, 6, 5, 4, 3, 2, 1)%10)%10 == int(d[8]-'0') && !sameDigits(d)
}

func tfnOK(d []byte) bool {
	return weighted(d, 1, 4, 3, 7, 5, 8, 6, 9, 10)%11 == 0 && !sameDigits(d)
}

func auMedicareOK(d []byte) bool {
	return d[0] >= '2' && d[0] <= '6' && weighted(d, 1, 3, 7, 9, 1, 3, 7, 9)%10 == int(d[8]-'0')
}

// sinOK is Luhn; no number begins with 0 or 8.
func sinOK(d []byte) bool { return d[0] != '0' && d[0] != '8' && luhn(d) }

// aadhaarOK follows UIDAI: not 0 or 1 first, no palindrome, Verhoeff.
func aadhaarOK(d []byte) bool {
	same := true
	for i := range len(d) / 2 {
		same = same && d[i] == d[len(d)-1-i]
	}
	return d[0] >= '2' && !same && verhoeff(d)
}

// gstinOK knows the codes of the states and the PAN inside; many numbers in
// documents have no sound check digit, so that it is not asked for.
func gstinOK(c []byte) bool {
	state := num(c[:2])
	return (state >= 1 && state <= 38 || state == 97 || state == 99) && c[12] != '0'
}

func panOK(c []byte) bool { return strings.IndexByte("ABCFGHJLPTEK", c[3]) >= 0 }

func inPassportOK(c []byte) bool {
	return strings.IndexByte("QXZ", c[0]) < 0 && c[1] != '0' && c[7] != '0'
}

func inVehicleOK(c []byte) bool {
	const states = "AN AP AR AS BH BR CG CH DD DL DN GA GJ HP HR JH JK KA KL LA LD MH ML MN MP MZ NL OD OR PB PY RJ SK TN TR TS TG UK UP UT WB "
	i := strings.Index(states, string(c[:2])+" ")
	return i >= 0 && num(c[len(c)-4:]) > 0
}

// inSeriesOK is for the series of all India, which begins with the year.
func inSeriesOK(c []byte) bool {
	return num(c[:2]) >= 21 && num(c[4:8]) > 0 && lettersBut(c[8:], "IO")
}

// rrnOK and frnOK follow the Korean resident registration: a date, a digit for
// sex, century and nationality. Since October 2020 the rest is random.
func rrnOK(d []byte) bool { return krDate(d) && d[6] >= '1' && d[6] <= '4' }

func frnOK(d []byte) bool { return krDate(d) && d[6] >= '5' && d[6] <= '8' }

func krDate(d []byte) bool {
	return validShortDate(num(d[:2]), num(d[2:4]), num(d[4:6])) && num(d[7:9]) <= 95
}

func krSum(d []byte) bool {
	return (11-weighted(d, 2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)%11)%10 == int(d[12]-'0')
}

// brnOK is the National Tax Service's check.
func brnOK(d []byte) bool { return num(d[:3]) >= 101 && brnSum(d) }

func brnSum(d []byte) bool {
	sum := weighted(d, 1, 3, 7, 1, 3, 7, 1, 3, 5) + int(d[8]-'0')*5/10
	return (10-sum%10)%10 == int(d[9]-'0')
}

// phTIN checks the ninth digit; a branch is behind it.
func phTIN(d []byte) bool {
	return weighted(d, 9, 8, 7, 6, 5, 4, 3, 2)%11 == int(d[8]-'0')
}

func krDrivingOK(d []byte) bool {
	region := num(d[:2])
	return region >= 11 && region <= 28
}

func krPassportOK(c []byte) bool { return strings.IndexByte("MSRODG", c[0]) >= 0 }

// nricOK is the check letter of Singapore's NRIC and FIN.
func nricOK(c []byte) bool {
	if !nricShape(c) {
		return false
	}
	sum := weighted(c[1:], 2, 7, 6, 5, 4, 3, 2)
	switch c[0] {
	case 'T':
		return "JZIHGFEDCBA"[(sum+4)%11] == c[8]
	case 'S':
		return "JZIHGFEDCBA"[sum%11] == c[8]
	case 'G':
		return "XWUTRQPNMLK"[(sum+4)%11] == c[8]
	case 'F':
		return "XWUTRQPNMLK"[sum%11] == c[8]
	}
	return "XWUTRQPNJLK"[(sum+3)%11] == c[8]
}

func nricShape(c []byte) bool { return strings.IndexByte("STFGM", c[0]) >= 0 }

func finShape(c []byte) bool { return strings.IndexByte("FGM", c[0]) >= 0 }

// uenOK is the check letter of Singapore's Unique Entity Numbers, of businesses, of
// local companies, which begin with a year, and of all others.
func uenOK(c []byte) bool {
	switch {
	case len(c) == 9:
		return "XMKECAWLJDB"[weighted(c, 10, 4, 9, 3, 8, 2, 7, 1)%11] == c[8]
	case isDigit(c[0]):
		return num(c[:4]) < 2100 && "ZKCMDNERGWH"[weighted(c, 10, 8, 6, 4, 9, 7, 5, 3, 1)%11] == c[9]
	}
	const (
		values = "ABCDEFGHJKLMNPQRSTUVWX0123456789"
		kinds  = "LP LL FC PF RF MQ MM NB CC CS MB FM GS DP CP NR CM CD MD HS VH CH MH CL XL CX HC RP TU TC FB FN PA PB SS MC SM GA GB"
	)
	sum := -5
	for i, w := range [...]int{4, 3, 5, 3, 10, 2, 2, 5, 7} {
		v := strings.IndexByte(values, c[i])
		if v < 0 {
			return false
		}
		sum += v * w
	}
	return strings.IndexByte("RST", c[0]) >= 0 && strings.Contains(kinds, string(c[3:5])) && values[(sum+11)%11] == c[9]
}

// thaiOK is the check of the Department of Provincial Administration; the second
// and third digit are a province.
func thaiOK(d []byte) bool {
	p := num(d[1:3])
	province := p >= 10 && p <= 27 && p != 28 || p >= 30 && p <= 49 || p >= 50 && p <= 58 || p >= 60 && p <= 67 || p >= 70 && p <= 77 || p >= 80 && p <= 86 || p >= 90 && p <= 96
	return d[0] != '0' && province && (11-weighted(d, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2)%11)%10 == int(d[12]-'0')
}

func tcknOK(d []byte) bool {
	odd := weighted(d, 1, 0, 1, 0, 1, 0, 1, 0, 1)
	even := weighted(d, 0, 1, 0, 1, 0, 1, 0, 1)
	tenth := ((odd*7-even)%10 + 10) % 10
	return d[0] != '0' && tenth == int(d[9]-'0') && (odd+even+tenth)%10 == int(d[10]-'0')
}

func trPlateOK(c []byte) bool {
	province := num(c[:2])
	return province >= 1 && province <= 81 && lettersBut(lettersOf(c), "QWX")
}

func lettersOf(c []byte) []byte {
	i := 0
	for !isLetter(c[i]) {
		i++
	}
	j := i
	for isLetter(c[j]) {
		j++
	}
	return c[i:j]
}

// zaOK follows the South African identity number: a date, citizenship 0 to 2
// and Luhn.
func zaOK(d []byte) bool {
	return validShortDate(num(d[:2]), num(d[2:4]), num(d[4:6])) && d[10] <= '2' && luhn(d)
}

// cpfOK and cnpjOK are the Receita Federal's checks modulo 11; a CNPJ may have
// letters since 2026.
func cpfOK(d []byte) bool {
	a := weighted(d, 10, 9, 8, 7, 6, 5, 4, 3, 2) * 10 % 11 % 10
	b := weighted(d, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2) * 10 % 11 % 10
	return a == int(d[9]-'0') && b == int(d[10]-'0') && !sameDigits(d)
}

func cnpjOK(c []byte) bool {
	a := weighted(c, 5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2) * 10 % 11 % 10
	b := weighted(c, 6, 5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2) * 10 % 11 % 10
	return a == int(c[12]-'0') && b == int(c[13]-'0') && !sameDigits(c) && bytes.ContainsAny(c[:12], "0123456789")
}

// cnOK is GB 11643: a date, and ISO 7064 MOD 11-2.
func cnOK(c []byte) bool {
	if len(c) != 18 {
		return false
	}
	sum := weighted(c, 7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
	return validDate(num(c[6:10]), num(c[10:12]), num(c[12:14])) && num(c[6:10]) > 1850 && "10X98765432"[sum%11] == c[17]
}

func jpOK(d []byte) bool {
	r := weighted(d, 6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2) % 11
	if r <= 1 {
		return d[11] == '0'
	}
	return 11-r == int(d[11]-'0')
}

func curpOK(c []byte) bool {
	return validShortDate(num(c[4:6]), num(c[6:8]), num(c[8:10])) && (c[10] == 'H' || c[10] == 'M' || c[10] == 'X')
}

func cuitOK(d []byte) bool {
	// A remainder of 1 has no digit: the kind is changed to 23, or 9 stands in.
	p, r := num(d[:2]), weighted(d, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2)%11
	if r == 1 {
		r = 2
	}
	kind := p == 20 || p == 23 || p == 24 || p == 27 || p == 30 || p == 33 || p == 34
	return kind && (11-r)%11 == int(d[10]-'0')
}

func rutOK(c []byte) bool {
	sum, w := 0, 2
	for i := len(c) - 2; i >= 0; i-- {
		sum += int(c[i]-'0') * w
		if w++; w > 7 {
			w = 2
		}
	}
	return "0123456789K0"[11-sum%11] == c[len(c)-1]
}
