package guard_test

import (
	"bytes"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/tamshai/phoenix/guard"
	"github.com/tamshai/phoenix/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

// found are the findings in text, as "LABEL value".
func found(g *guard.Guard, text string) []string {
	var all []string
	for _, f := range g.Scan([]byte(text)) {
		all = append(all, f.Label+" "+text[f.Start:f.End])
	}
	return all
}

func TestScan(t *testing.T) {
	g := newGuard(t, guard.Policy{})
	for _, tt := range []struct {
		text string
		want []string
	}{
		{"SSN 219-09-9999", []string{"US_SSN 219-09-9999"}},
		{"my SSN is 219099999", []string{"US_SSN 219099999"}},
		{"SSN219-09-9999", []string{"US_SSN 219-09-9999"}},
		{"number ２１９‑０９–9999 here", []string{"US_SSN ２１９‑０９–9999"}},
		{"2\u200b1\u200b9-09-9999", []string{"US_SSN 2\u200b1\u200b9-09-9999"}},
		{"219%2D09%2D9999 219&#45;09&#45;9999", []string{"US_SSN 219%2D09%2D9999", "US_SSN 219&#45;09&#45;9999"}},
		{`219\u002d09\u002d9999`, []string{`US_SSN 219\u002d09\u002d9999`}},
		{"MjE5LTA5LTk5OTk=", []string{"US_SSN MjE5LTA5LTk5OTk="}},
		{"TWpFNUxUQTVMVGs1T1RrPQ==", []string{"US_SSN TWpFNUxUQTVMVGs1T1RrPQ=="}},
		{"3231392d30392d39393939", []string{"US_SSN 3231392d30392d39393939"}},
		{"2 1 9 - 0 9 - 9 9 9 9", []string{"US_SSN 2 1 9 - 0 9 - 9 9 9 9"}},
		{"pay with 4111 1111 1111 1111.", []string{"CREDIT_CARD 4111 1111 1111 1111"}},
		{"378282246310005", []string{"CREDIT_CARD 378282246310005"}},
		{"4222222222222", []string{"CREDIT_CARD 4222222222222"}},
		{"IBAN: GB29 NWBK 6016 1331 9268 19", []string{"IBAN_CODE GB29 NWBK 6016 1331 9268 19"}},
		{"+14155552671", []string{"PHONE_NUMBER +14155552671"}},
		{"+44 20 7946 0958", []string{"PHONE_NUMBER +44 20 7946 0958"}},
		{"josé@exämple.fr", []string{"EMAIL_ADDRESS josé@exämple.fr"}},
		{"12.92.149.211", []string{"IP_ADDRESS 12.92.149.211"}},
		{"at ::ffff:10.0.0.1.", []string{"IP_ADDRESS ::ffff:10.0.0.1"}},
		{"Device MAC: AA:BB:CC:DD:EE:FF", []string{"MAC_ADDRESS AA:BB:CC:DD:EE:FF"}},
		{"born on March 3, 1980", []string{"DATE_TIME March 3, 1980"}},
		{"It's like that since 3/3/1980", nil},
		{"token hvs.CAESIJlWhKjfkQz0Jr3aB9dE5fG7hI1kL", []string{"SECRET hvs.CAESIJlWhKjfkQz0Jr3aB9dE5fG7hI1kL"}},
		{"postgres://app:s3cr3tPw@db:5432/hr", []string{"SECRET postgres://app:s3cr3tPw@db:5432/hr"}},
		{"call (02151) 07281 537 or (18)/246-9948", []string{"PHONE_NUMBER (02151) 07281 537", "PHONE_NUMBER (18)/246-9948"}},
		{"I have lost my card 503871671593, and my card 060469639524", []string{"CREDIT_CARD 503871671593", "CREDIT_CARD 060469639524"}},
		{"a photo cerro.es of da.com.br", []string{"URL cerro.es", "URL da.com.br"}},
		{"postgres://svc:xpkkzQfsYY@db.internal:5432/app", []string{"SECRET postgres://svc:xpkkzQfsYY@db.internal:5432/app"}},
		{"ssh://git@github.com/x", []string{"URL ssh://git@github.com/x"}},
		{"https://example.org/?mail=bob@example.com", []string{"EMAIL_ADDRESS bob@example.com"}},
		{"curl -u admin:StVxIXj1widGXD https://x.io", []string{"SECRET StVxIXj1widGXD", "URL https://x.io"}},
		// Of tokens, some have no digit.
		{"use 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 now", []string{"SECRET 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"}},
		{"use glpat-UOUfyuZHgoAzqHybErRD now", []string{"SECRET glpat-UOUfyuZHgoAzqHybErRD"}},
		{"use AKIAJZHNVTGTIFUXIKKX now", []string{"SECRET AKIAJZHNVTGTIFUXIKKX"}},
		{"use SK1be0e1aa7e544a7631379a62c179417c now", []string{"SECRET SK1be0e1aa7e544a7631379a62c179417c"}},
		{"bot 5899715738:AA4StT7KrNS3ztBrk1YGCG76XZwgmmAu9oR", []string{"SECRET 5899715738:AA4StT7KrNS3ztBrk1YGCG76XZwgmmAu9oR"}},
		{"re_m7tt6a0I_w4VRIKXHQplr33UBjs7IvTKL", []string{"SECRET re_m7tt6a0I_w4VRIKXHQplr33UBjs7IvTKL"}},
		{"https://x.blob.core.windows.net/c?sv=2021-01-01&sig=yPsdWEhch00iLacSA1Prr7Kabcr7MkZc56HxPab0abc%3D", []string{"SECRET https://x.blob.core.windows.net/c?sv=2021-01-01&sig=yPsdWEhch00iLacSA1Prr7Kabcr7MkZc56HxPab0abc%3D"}},
		{"login bob password RY4vLVfnRGq9ZZ52", []string{"SECRET RY4vLVfnRGq9ZZ52"}},
		{"Cookie: session=iinhy8eMLB1x5BOMom66Ln0hlOdlivbN; lang=de", []string{"SECRET iinhy8eMLB1x5BOMom66Ln0hlOdlivbN"}},
		{"session 42 of sessions: 17, session_id: 550e8400-e29b-41d4-a716-446655440000", nil},
		{`SECRET_KEY = "cf_flc&h0gn&(z@d%gjfe2ikdk)3r)tbz9w*qh(ext-^h$om9f"`, []string{"SECRET cf_flc&h0gn&(z@d%gjfe2ikdk)3r)tbz9w*qh(ext-^h$om9f"}},
		{"The password is hunter2xyz.", []string{"SECRET hunter2xyz"}},
		{"a password with SHA256 and PBKDF2", nil},
		{"password: hunter2xyz", []string{"SECRET hunter2xyz"}},
		{"api_key = \"Zf3D0LXCM3EIMbgJpUNnkRtOfOueHznB\"", []string{"SECRET Zf3D0LXCM3EIMbgJpUNnkRtOfOueHznB"}},
		// Beside another value, marks and writing that has no spaces.
		{"either 472-45-3126/522-32-4755 or 4543194480477212/3409", []string{"US_SSN 472-45-3126", "US_SSN 522-32-4755", "CREDIT_CARD 4543194480477212"}},
		{"9/4543194480477212 and _78.208.219.186_", []string{"CREDIT_CARD 4543194480477212", "IP_ADDRESS 78.208.219.186"}},
		{"_d3c9:9123:3662:5e29:8ce4:69de:b5c0:b9bd_ Fwd:ab40:139b:ae2e:315e:ddd8:5e2c:de03:d42c", []string{"IP_ADDRESS d3c9:9123:3662:5e29:8ce4:69de:b5c0:b9bd", "IP_ADDRESS ab40:139b:ae2e:315e:ddd8:5e2c:de03:d42c"}},
		{"ea8c:ce1:6fca:ca81:b514:e99e:a8f6:3ab/118.0.0.0/7", []string{"IP_ADDRESS ea8c:ce1:6fca:ca81:b514:e99e:a8f6:3ab", "IP_ADDRESS 118.0.0.0/7"}},
		{"“chloe@walker-joyce.org” «kevin50@example.org» _ann@example.org_", []string{"EMAIL_ADDRESS chloe@walker-joyce.org", "EMAIL_ADDRESS kevin50@example.org", "EMAIL_ADDRESS ann@example.org"}},
		{"客户ryan82@example.net已确认，请访问example.com网站", []string{"EMAIL_ADDRESS ryan82@example.net", "URL example.com"}},
		{"text2001:db8:0:0:0:0:0:1 addr:c586:a0c4:3910:2e89:be18:89b7:6bdf:abdf", []string{"IP_ADDRESS c586:a0c4:3910:2e89:be18:89b7:6bdf:abdf"}},
		{"The ticket about order 7 of this version came from 86.231.85.193", []string{"IP_ADDRESS 86.231.85.193"}},
		{"His social security number is 495366635", []string{"US_SSN 495366635"}},
		{"マイナンバー: 748079382978", []string{"JP_MY_NUMBER 748079382978"}},
		{"(+420 703 307 307) +491760505797/182.3.190.160", []string{"PHONE_NUMBER +420 703 307 307", "PHONE_NUMBER +491760505797", "IP_ADDRESS 182.3.190.160"}},
		// A number behind another is none of its groups.
		{"17\tJane\t(646) 743-2879\t2024", []string{"PHONE_NUMBER (646) 743-2879"}},
		{"Suite 617 00336\n455 6186 office", []string{"PHONE_NUMBER 455 6186"}},
		{"Phone: 47 37 47 or 20 93 85 office", []string{"PHONE_NUMBER 47 37 47", "PHONE_NUMBER 20 93 85"}},
		{"the lot of today is 12 34 56", nil},
		{"ligue 96 90648-5118", []string{"PHONE_NUMBER 96 90648-5118"}},
		{"the order 03719-56854 has 17 items", nil},
		{"Math. Comp. 33 (1979) 1361--1372, J. Phys. A 32 (1999) 7779-7789", nil},
		{"call 253 octets (63+1+63+1+63+1+61) and 2.4+20151223 with 3.16e+12978188", nil},
		{"the call stack (CVE-2026-9358 / CWE-674)", nil},
		{"Phone-030 1234567", []string{"PHONE_NUMBER 030 1234567"}},
		{"number of calls 1_000_000, body 1000000", nil},
		{"0 4 5 3 3 3 3 2 2 0 2 3 2 3 0 0 0 2 0 2 0 2 0 0 0 0 0 0 0 0 0 2 0 0", nil},
		{"card at 54.49755096435547 or 59.985999822616577", nil},
		{"Operator: \"#666666\"", nil},
		{"see (415) 555-0132 2024 for it, or 415 743 5077 12", []string{"PHONE_NUMBER (415) 555-0132", "PHONE_NUMBER 415 743 5077"}},
		{"Please refund to 213101229536890. Thanks", []string{"CREDIT_CARD 213101229536890"}},
		{"see gopher://www.example.com/ there", []string{"URL www.example.com"}},
		{"My TIN is 000-123-456-000.", []string{"PH_TIN 000-123-456-000"}},
		{"CUIT 20-72001459-9", []string{"AR_CUIT 20-72001459-9"}},
		// What over-eager rules take for one.
		{"Revenue was 1250000 in 2023", nil},
		{"order id 123456789", nil},
		{"ZIP 12345-6789", nil},
		{"4111 1111 1111 1112", nil},
		{"ZEt3O7k8fjU3ldDbVmc", nil},
		{"rateK256 = (1600 - 256) / 8", nil},
		{"550e8400-e29b-41d4-a716-446655440000", nil},
		{"version 1.2.3.4", nil},
		{"938.033.719,00 EUR", nil},
		{"HMAC_DRBG_Update, per Section 10.1.2.2, of that version", nil},
		{"registers {AADD, C_S16CON, C_US12CON}, last register variable for 9g only", nil},
		{"fmt.Println(os.Args)", nil},
		{"func consumeFixed64() and 5.0443941193584534", nil},
		{"00000010  65 00 07 00 00 00 6e 6f  64 65, then 0 2147483647 and 0 28 9563845 34", nil},
		{"0/0               0 2017-07-13 19:40", nil},
		{"OpAMD64VCVTTPS2UDQMasked128", nil},
		{"it.is in main.py, lib.rs or log.info", nil},
		{"at 10:30-11:45, 3.14159265, 2004-12-06", nil},
		{"key_length = XSalsa20.key_length", nil},
	} {
		if got := found(g, tt.text); !slices.Equal(got, tt.want) {
			t.Errorf("%q: got %q, want %q", tt.text, got, tt.want)
		}
	}
}

func TestCandidates(t *testing.T) {
	g := newGuard(t, guard.Policy{})
	labels := map[string]bool{}
	for _, f := range g.Candidates([]byte("121000358"), 0) {
		labels[f.Label] = true
	}
	for _, want := range []string{"ABA_ROUTING_NUMBER", "US_PASSPORT", "US_BANK_NUMBER"} {
		if !labels[want] {
			t.Errorf("121000358 may be %s too, got %v", want, labels)
		}
	}
	if got := g.Scan([]byte("121000358")); len(got) != 0 {
		t.Errorf("a bare number counts: %v", got)
	}
}

func TestEntities(t *testing.T) {
	all := guard.Entities()
	for _, want := range []string{
		"CREDIT_CARD", "IBAN_CODE", "US_SSN", "US_ITIN", "US_BANK_NUMBER", "ABA_ROUTING_NUMBER", "US_PASSPORT", "US_DRIVER_LICENSE", "US_MBI", "US_NPI",
		"EMAIL_ADDRESS", "PHONE_NUMBER", "IP_ADDRESS", "MAC_ADDRESS", "URL", "DOMAIN_NAME", "CRYPTO", "DATE_TIME", "MEDICAL_LICENSE", "SECRET",
		"UK_NHS", "DE_TAX_ID", "FR_NIR", "ES_NIF", "IT_FISCAL_CODE", "PL_PESEL", "SE_PERSONNUMMER", "FI_PERSONAL_IDENTITY_CODE", "NL_BSN", "CA_SIN",
		"AU_TFN", "IN_AADHAAR", "SG_NRIC_FIN", "KR_RRN", "TR_NATIONAL_ID", "BR_CPF", "ZA_ID_NUMBER",
	} {
		if !slices.ContainsFunc(all, func(e guard.Entity) bool { return e.Label == want }) {
			t.Errorf("%s is not supported", want)
		}
	}
	for _, e := range all {
		if e.WithContext < e.Score || e.WithContext == 0 || e.WithContext > 1 {
			t.Errorf("%s: scores %g and %g", e.Label, e.Score, e.WithContext)
		}
	}
}

// One sound value for each entity that has a check, and the same with its last
// character changed.
func TestChecks(t *testing.T) {
	g := newGuard(t, guard.Policy{})
	for label, value := range map[string]string{
		"UK_NHS": "401-023-2137", "UK_NINO": "YZ 61 48 68 B", "DE_TAX_ID": "98765432106", "DE_VAT_ID": "DE136695976", "DE_ID_CARD": "L01X00T44",
		"DE_SOCIAL_SECURITY": "65070803A019", "DE_HEALTH_INSURANCE": "M123456785", "ES_NIF": "12345678Z", "ES_NIE": "X9613851N", "FR_NIR": "255081416802538",
		"IT_VAT_CODE": "01333550323", "PL_PESEL": "44051401458", "SE_PERSONNUMMER": "871220-2384", "SE_ORGANISATIONSNUMMER": "212000-0142",
		"FI_PERSONAL_IDENTITY_CODE": "131052-308T", "NL_BSN": "111222333", "BE_NRN": "85.07.30-033.28", "CH_AHV": "756.9217.0769.85", "PT_NIF": "123456789",
		"AU_ABN": "51 824 753 556", "AU_ACN": "005 499 981", "AU_TFN": "876543210", "AU_MEDICARE": "2123 45670 1", "CA_SIN": "130 692 544",
		"IN_AADHAAR": "3998 7654 3211", "PH_TIN": "000-123-456", "KR_BRN": "104-86-56659", "TH_TNIN": "3456789012347", "TR_NATIONAL_ID": "10000000146", "ZA_ID_NUMBER": "9202201234088",
		"BR_CPF": "529.982.247-25", "BR_CNPJ": "11.222.333/0001-81", "CN_RESIDENT_ID": "11010519491231002X", "US_NPI": "1245319599", "ABA_ROUTING_NUMBER": "121000358",
		"MEDICAL_LICENSE": "BB1388568", "NG_NIN": "12345678902", "NO_FODSELSNUMMER": "01010101006", "IBAN_CODE": "DE89370400440532013000", "CREDIT_CARD": "6011000400000000",
	} {
		has := func(text string) bool {
			return slices.ContainsFunc(g.Candidates([]byte(text), 0), func(f guard.Finding) bool { return f.Label == label && f.Start == 0 && f.End == len(text) })
		}
		if !has(value) {
			t.Errorf("%s: %s is not found", label, value)
		}
		if label == "DE_VAT_ID" || label == "AU_MEDICARE" || label == "UK_NINO" {
			continue // other rules, or a last digit that is not checked
		}
		last := value[len(value)-1]
		other := byte('0' + (last-'0'+1)%10)
		if last >= 'A' {
			other = 'A' + (last-'A'+1)%26
		}
		if has(value[:len(value)-1] + string(other)) {
			t.Errorf("%s: %s with %q at its end is found too", label, value, other)
		}
	}
}

// A typist errs: what breaks a rule of an identifier is a candidate, and no finding
// whatever is said around it.
func TestShapes(t *testing.T) {
	g := newGuard(t, guard.Policy{})
	for _, tt := range []struct{ label, context, value string }{
		{"AU_ABN", "ABN", "00000500540"},                        // a zero in front
		{"CREDIT_CARD", "order", "4284-464123 9778"},            // groups of no scheme
		{"DATE_TIME", "born", "0110-02-31"},                     // a day that is not
		{"DATE_TIME", "date of birth", "11-OCT"},                // no year
		{"DE_KFZ", "Kennzeichen", "H J 0397"},                   // a zero in front
		{"DE_TAX_NUMBER", "Steuernummer", "645/7165/65287"},     // of no state
		{"IBAN_CODE", "IBAN", "LT044113038893572542354604816"},  // too long
		{"IN_AADHAAR", "aadhaar", "6570:3126-8375"},             // two separators
		{"IN_VEHICLE_REGISTRATION", "vehicle", "HU85LC2487"},    // of no state
		{"KR_FRN", "외국인등록번호", "320914-6998277"},                 // of no region
		{"KR_RRN", "주민등록번호", "890631-2516063"},                  // 31 June
		{"PL_PESEL", "PESEL", "29463101196"},                    // 31 June of 2129
		{"SE_PERSONNUMMER", "personnummer", "109201232387"},     // born in 1092
		{"SG_NRIC_FIN", "NRIC", "D0145316U"},                    // a letter that is none of them
		{"UK_NHS", "NHS", "650 6732679"},                        // two groups
		{"UK_VEHICLE_REGISTRATION", "registration", "WXP 048J"}, // a zero in front
		{"US_SSN", "account", "907215284"},                      // an area that is not
	} {
		text := tt.context + " " + tt.value
		is := func(f guard.Finding) bool { return f.Label == tt.label && text[f.Start:f.End] == tt.value }
		at := slices.IndexFunc(g.Candidates([]byte(text), 0), is)
		if at < 0 {
			t.Errorf("%q: no %s among the candidates", text, tt.label)
		}
		if slices.ContainsFunc(g.Scan([]byte(text)), is) {
			t.Errorf("%q: %s counts", text, tt.label)
		}
	}
}

// Old plates, series of all India, a key in front: what is sound counts with its context.
func TestSoundForms(t *testing.T) {
	g := newGuard(t, guard.Policy{})
	for text, want := range map[string]string{
		"mac:0c:8f:64:ba:71:9d":                   "MAC_ADDRESS 0c:8f:64:ba:71:9d",
		"personnummer 211220+2382":                "",
		"personnummer 121212+1212":                "SE_PERSONNUMMER 121212+1212",
		"henkilötunnus 111100+110H":               "FI_PERSONAL_IDENTITY_CODE 111100+110H",
		"vehicle registration 22BH1234AB":         "IN_VEHICLE_REGISTRATION 22BH1234AB",
		"number plate JOH612PA":                   "NG_VEHICLE_REGISTRATION JOH612PA",
		"call 0 (917) 123 4567":                   "PHONE_NUMBER 0 (917) 123 4567",
		"IBAN BY17 QO5X 9666 SW0V ZSPO DVRH IPOF": "IBAN_CODE BY17 QO5X 9666 SW0V ZSPO DVRH IPOF",
		"patente di guida U1E52J4WWL":             "IT_DRIVER_LICENSE U1E52J4WWL",
	} {
		if got := strings.Join(found(g, text), ", "); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestAllowDomains(t *testing.T) {
	g := newGuard(t, guard.Policy{AllowDomains: []string{"tamshai.com", ".tamshai.dev"}})
	text := "alice@tamshai.com alice@tamshai.com.evil.example eve@eviltamshai.com x@mail.tamshai.com https://tamshai.com/a bob@a.tamshai.dev c@tamshai.dev"
	want := []string{"EMAIL_ADDRESS alice@tamshai.com.evil.example", "EMAIL_ADDRESS eve@eviltamshai.com", "EMAIL_ADDRESS x@mail.tamshai.com", "EMAIL_ADDRESS c@tamshai.dev"}
	if got := found(g, text); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestDictionary(t *testing.T) {
	names, err := guard.NewDictionary(map[string][]string{"PERSON": {"Marlene Dietrich", "Zoë Ångström", "Smith"}, "LOCATION": {"San Francisco"}})
	if err != nil {
		t.Fatal(err)
	}
	g := newGuard(t, guard.Policy{Names: names})
	text := "Did MARLENE  DIETRICH, zoë ångström and Smith's cat leave San Francisco? Smithers did.\n" +
		"by Marlene_Dietrich, @marlene.dietrich and zoë-ångström: Smith-Jones and Marlene.Smithers too."
	want := []string{"PERSON MARLENE  DIETRICH", "PERSON zoë ångström", "PERSON Smith", "LOCATION San Francisco", "PERSON Marlene_Dietrich", "PERSON marlene.dietrich", "PERSON zoë-ångström"}
	if got := found(g, text); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	all := redacted(t, g, text)
	for _, size := range []int{1, 5, 16} {
		differ(t, text, "names", streamed(t, g, text, func(int) int { return size }), all)
	}
	for _, bad := range []string{"", "a b c d e f g", "semi;colon"} {
		if _, err := guard.NewDictionary(map[string][]string{"PERSON": {bad}}); err == nil {
			t.Errorf("the name %q is accepted", bad)
		}
	}
}

func TestBadPolicy(t *testing.T) {
	for name, p := range map[string]guard.Policy{
		"unknown entity":           {Entities: []string{"US_SNN"}},
		"unknown label":            {Actions: map[string]guard.Action{"SSN": guard.Block}},
		"unknown action":           {Default: "drop"},
		"hash without a key":       {Default: guard.Hash},
		"threshold beyond 1":       {Threshold: 2},
		"no number as threshold":   {Threshold: math.NaN()},
		"no entities":              {Entities: []string{}},
		"an address as domain":     {AllowDomains: []string{"a@tamshai.com"}},
		"a top domain":             {AllowDomains: []string{"com"}},
		"a domain with a wildcard": {AllowDomains: []string{"*.tamshai.com"}},
	} {
		if _, err := guard.New(p); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	g := newGuard(t, guard.Policy{})
	text := []byte(strings.Repeat("An InternationalizedWord, SHOUTING_CONSTANT_NAME and the dot. The quick brown fox, at 10:30 on page 12, jumped over fmt.Println and 3.14159 or 12345 lazy dogs — naïve ones; chapter 7 has x == y.\n", 100))
	if found := g.Scan(text); len(found) > 0 {
		t.Fatalf("the text has findings: %v", found)
	}
	// Under the race detector a pool drops what it has now and then: the least counts.
	least := testing.AllocsPerRun(1, func() { g.Scan(text) })
	for range 20 {
		least = min(least, testing.AllocsPerRun(1, func() { g.Scan(text) }))
	}
	if least > 0 {
		t.Errorf("%g allocations on a text without findings", least)
	}
}

// Texts that make backtracking matchers quadratic. The test is that it ends.
func TestLinear(t *testing.T) {
	g := newGuard(t, guard.Policy{})
	const ssn = " my SSN is 219-09-9999"
	long := map[string]string{ // 10 MB of each
		"a.": strings.Repeat("a.", 5<<20), "account": "account" + strings.Repeat(" ", 10<<20), "x@a-": "x@" + strings.Repeat("a-", 5<<20),
		"letters": strings.Repeat("abcdefghij", 1<<20), "digits": strings.Repeat("1", 10<<20), "quotes": strings.Repeat(`"`, 10<<20),
	}
	for _, unit := range []string{"x@", "1", "1 ", "12-", "1:", "a1", "+1", "(1", "%25", "&#x", `\u00`, "=", "key=", "QUJD", "-----BEGIN ", "@a.b", "<b>", "\u0301", "ab1 ", "a://b:c@", "::", "1.", "\n", "eyJ.", "32 ", "1-", "QwErTyUiOp", "password is ", `\\`} {
		long[unit] = strings.Repeat(unit, 128<<10/len(unit))
	}
	for name, text := range long {
		got := g.Scan([]byte(text + "." + ssn))
		if len(got) == 0 || got[len(got)-1].Label != "US_SSN" {
			t.Errorf("%q: what stands behind it is not found", name)
		}
	}
	// 100 MB of text with something at its end.
	big := bytes.Repeat([]byte("The quick brown fox jumps over the lazy dog. "), 100<<20/45)
	if got := g.Scan(append(big, ssn...)); len(got) != 1 {
		t.Errorf("%d findings in 100 MB, want 1", len(got))
	}
}

func FuzzScan(f *testing.F) {
	for _, text := range texts() {
		f.Add([]byte(text))
	}
	g := newGuard(f, guard.Policy{})
	f.Fuzz(func(t *testing.T, text []byte) {
		end := 0
		for _, finding := range g.Scan(text) {
			if finding.Start < end || finding.End <= finding.Start || finding.End > len(text) || finding.Score < guard.DefaultThreshold || finding.Score > 1 {
				t.Fatalf("%+v after %d in %q", finding, end, text)
			}
			end = finding.End
		}
		for _, finding := range g.Candidates(text, 0) {
			if finding.Start < 0 || finding.End <= finding.Start || finding.End > len(text) {
				t.Fatalf("%+v in %q", finding, text)
			}
		}
	})
}
