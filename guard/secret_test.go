package guard_test

import (
	"encoding/base64"
	"encoding/hex"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/tamshai/phoenix/guard"
)

// A maker makes values that look like secrets. They are made when the test runs,
// so that nobody takes this file for a leak.
type maker struct{ *rand.Rand }

const (
	lowers = "abcdefghijklmnopqrstuvwxyz0123456789"
	uppers = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
	mixed  = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	url64  = mixed + "_-"
)

func (m maker) of(alphabet string, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = alphabet[m.IntN(len(alphabet))]
	}
	b[m.IntN(n)] = '7' // a digit is in nearly every one; without, few rules are sure
	return string(b)
}

func (m maker) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(m.IntN(256))
	}
	return b
}

func (m maker) hex(n int) string { return hex.EncodeToString(m.bytes(n / 2)) }

// Tokens of services, by their shape, and values behind names that tell of
// secrets: the part between the marks must be covered.
func TestSecrets(t *testing.T) {
	m := maker{rand.New(rand.NewPCG(11, 7))}
	header := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256"}`))
	for name, text := range map[string]string{
		"Anthropic":                      "«sk-ant-" + "api03-" + m.of(url64, 93) + "AA»",
		"Slack, bot":                     "«xox" + "b-" + m.of("0123456789", 12) + "-" + m.of("0123456789", 13) + "-" + m.of(mixed, 24) + "»",
		"Discord":                        "bot: «MTk4" + m.of(mixed, 20) + "." + m.of(mixed, 6) + "." + m.of(url64, 30) + "»",
		"Telegram, in a URL":             "https://api.telegram.org/bot«" + m.of("0123456789", 10) + ":AA" + m.of(url64, 33) + "»/getMe",
		"Telegram, short id":             "TELEGRAM_TOKEN=«84231:A" + m.of(url64, 34) + "»",
		"Telegram, in XML":               "<telegramToken>\n  «09555348:A" + m.of(url64, 34) + "»\n</telegramToken>",
		"Azure":                          "Create: '«a1b7Q" + "~" + m.of(mixed, 33) + "»'",
		"New Relic, license":             "license: «eu01xx" + m.hex(30) + "NRAL»",
		"New Relic, admin":               "admin_access:«NRAA-" + m.hex(26) + "7»",
		"password in a shell":            "export DB_PASS=«" + m.of(lowers, 12) + "»",
		"password said, quoted":          "The password is '«Xk9" + m.of(lowers, 8) + "»'",
		"Mailchimp":                      "«" + m.hex(32) + "-us20»",
		"Bitbucket":                      "bitbucketToken: «" + m.of(lowers, 32) + "»",
		"Terraform":                      "tf_token: «" + m.of(lowers, 14) + "." + "atlasv1." + m.of(url64, 66) + "»",
		"Intra 42":                       "«s-s4t2" + "ud-" + m.hex(64) + "»",
		"Sidekiq":                        "BUNDLE_GEMS__CONTRIBSYS__COM=«" + m.hex(8) + ":" + m.hex(8) + "»",
		"Twitter":                        `bearer_token = "«` + strings.Repeat("A", 22) + m.of(mixed, 60) + `»"`,
		"AWS, without a digit":           "AWSToken=«ASIA" + "VXJQPFRDFQJGYHQJ»",
		"a token that begins with signs": `fastly_token: "«==` + m.of(lowers, 30) + `»"`,
		"PHP":                            `"okta_token" => "«` + m.of(mixed, 42) + `»"`,
		"a UUID":                         `snykToken = "«12345678-abcd-abcd-abcd-1234567890ab»"`,
		"NuGet":                          `<add key="ClearTextPassword" value="«S0urce%Passw0rd»" />`,
		"a password that counts":         "password: «Xq1234567890»",
		"curl":                           "curl -u elastic:«" + m.of(mixed, 16) + "» https://localhost",
		"curl, quoted":                   "curl --user bob:'«" + m.of(mixed, 16) + "»' https://localhost",
		"curl, key alone":                "curl -u «" + m.of(mixed, 20) + "»: https://api.example",
		"a bearer":                       "send the header bearer «" + m.of(mixed, 32) + "»",
		"a cookie":                       "Set-Cookie: connect.sid=«s%3A" + m.of(mixed, 40) + "»",
		"a query":                        "otpauth://totp/x?secret=«" + m.of(uppers, 32) + "»&issuer=x",
		"JWT":                            "«" + header + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"4711","name":"x"}`)) + "." + m.of(url64, 43) + "»",
	} {
		start := strings.Index(text, "«")
		plain := strings.NewReplacer("«", "", "»", "").Replace(text)
		end := strings.Index(text, "»") - len("«")
		covered := false
		for _, f := range newGuard(t, guard.Policy{Entities: []string{"SECRET"}}).Scan([]byte(plain)) {
			covered = covered || f.Start <= start && f.End >= end
		}
		if !covered {
			t.Errorf("%s: not all of it is found in %q", name, plain)
		}
	}
}

// What looks like a secret, and is none.
func TestNoSecrets(t *testing.T) {
	m := maker{rand.New(rand.NewPCG(12, 7))}
	for name, text := range map[string]string{
		"a name that goes on":         "&hf_servingcellpriorityparametersdescription_h_prio",
		"a file":                      "https://x.example/video_box." + "ico-" + m.hex(32) + ".png",
		"a counted token":             "sk-ant-" + "api03-abc123xyz-456de-klMnopqrstuvwx-3456yza789bcde-1234fghijklmnopAA",
		"a counted key":               "AIza" + "Syabcdefghijklmnopqrstuvwxyz1234567",
		"Slack's sample":              "xoxe." + "xoxp-1-SlackAppConfigurationAccessTokenHere",
		"a name with xoxo":            "images/2018-250-" + "xoxo-indieweb-1.jpg",
		"Sourcegraph, too short":      "sgp_" + "local_" + m.hex(38),
		"Sentry, not JSON":            "sntrys_" + m.of(mixed, 60) + "_" + m.of(mixed, 43),
		"the part of a URL behind":    `-H "Authorization: Bearer $(print-access-token)" https://flows.example/v1/` + m.hex(32),
		"a published key":             "AIza" + "SyA4UrcGxgwQFTfaI3no3t7Lt1sjmdnP5sQ",
		"Azurite's key":               "AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
		"Azure, placeholder":          "client_secret=bP88Q" + "~xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
		"a tokenizer":                 "tokenizer: cl100k_base",
		"a token against forgery":     `name="authenticity_token" value="` + m.of(url64, 60) + `"`,
		"a token that says test":      `token := "task_test_` + m.of(lowers, 30) + `"`,
		"a header alone":              `look for "-----BEGIN RSA PRIVATE KEY-----" in every file`,
		"a header in code":            `if strings.HasPrefix(s, "-----BEGIN PRIVATE KEY-----") { panic("1234567890") }`,
		"a header at the end":         "-----BEGIN PRIVATE KEY-----",
		"a header before prose":       "-----BEGIN PRIVATE KEY-----\nand then the internationalisation of it, IN CAPITALS",
		"a key without a body":        "-----BEGIN OPENSSH PRIVATE KEY----------END OPENSSH PRIVATE KEY-----",
		"a word for a body":           "-----BEGIN PRIVATE KEY-----\nanything\n-----END PRIVATE KEY-----",
		"a label":                     `passwordLabel:"Password:",rememberMeLabel:"Remember me:"`,
		"a part of a sum":             `usernamePassword = "application1:" + appKey`,
		"nothing, and a parameter":    `fetch($user,$password="",$timeout="0",$verbose=false)`,
		"a path":                      `"strong-password":"/en/enterprise-server@3.0/auth"`,
		"the name of a resource":      `ChangePassword = "arn:aws:iam::aws:policy/IAMUserChangePassword"`,
		"the name of an element":      `this.addPassword = "#add-password";`,
		"letters and digits in turns": " --set licenseKey=a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6q7r8 ",
		"a test that passed":          "--- PASS: TestScan2",
		"Telegram, too short":         `telegram_api_token = "3649:Aon4dbwkesc3cvyinaji0dozoj8umxfumi3"`,
	} {
		if found := newGuard(t, guard.Policy{Entities: []string{"SECRET"}}).Scan([]byte(text)); len(found) > 0 {
			t.Errorf("%s: found %q in %q", name, text[found[0].Start:found[0].End], text)
		}
	}
}

// A private key is found however its lines are written, from its header to its end.
func TestPrivateKeys(t *testing.T) {
	m := maker{rand.New(rand.NewPCG(13, 7))}
	lines := []string{"-----BEGIN PRIVATE KEY-----"}
	for range 4 {
		lines = append(lines, base64.StdEncoding.EncodeToString(m.bytes(48)))
	}
	lines = append(lines, "-----END PRIVATE KEY-----")
	armour := slices.Insert(slices.Clone(lines), 1, "Version: GnuPG v2.0.22 (GNU/Linux)", "")
	encrypted := slices.Insert(slices.Clone(lines), 1, "Proc-Type: 4,ENCRYPTED", "DEK-Info: AES-256-CBC,8A3F0C", "")
	for name, key := range map[string]string{
		"as it is":         strings.Join(lines, "\n"),
		"with CRLF":        strings.Join(lines, "\r\n"),
		"indented":         strings.Join(lines, "\n    "),
		"quoted":           strings.Join(lines, "\n> "),
		"in a comment":     strings.Join(lines, "\n# "),
		"on one line":      strings.Join(lines, " "),
		"in JSON":          strings.Join(lines, `\n`),
		"in JSON in JSON":  strings.Join(lines, `\\n`),
		"added":            strings.Join(lines, "\\n' +\n'"),
		"added with a dot": strings.Join(lines, "\\n\" . \""),
		"in HTML":          strings.Join(lines, "<br/>\n"),
		"with entities":    strings.Join(lines, "&#10;"),
		"in a query":       url.PathEscape(strings.Join(lines, "\n")),
		"in an armour":     strings.Join(armour, "\n"),
		"encrypted":        strings.Join(encrypted, "\n"),
	} {
		text := "Here it is: " + key + " and so on."
		found := newGuard(t, guard.Policy{}).Scan([]byte(text))
		if len(found) != 1 || text[found[0].Start:found[0].End] != key {
			t.Errorf("%s: found %v in %q", name, found, text)
		}
	}
}

// Who does not look for keys has what is behind a header read all the same.
func TestPrivateKeyNotWanted(t *testing.T) {
	g := newGuard(t, guard.Policy{Entities: []string{"US_SSN"}})
	if found := g.Scan([]byte("-----BEGIN PRIVATE KEY----- 219-09-9999")); len(found) != 1 {
		t.Errorf("found %v", found)
	}
}
