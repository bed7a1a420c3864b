package guard

import (
	"bytes"
	"math"
	"strings"
)

// keyBefore reports whether a name that ends before b[i] is that of a secret.
func keyBefore(b []byte, i int) bool {
	_, ok := keyName(b, i)
	return ok
}

// keyName returns the name of a secret that ends before b[i], quotes, operators
// and white space apart.
func keyName(b []byte, i int) (name []byte, ok bool) {
	for range 2 {
		end := i
		for end > 0 && i-end < 5 && isBehindKey[b[end-1]] {
			end--
		}
		start := end
		for start > 0 && end-start < 64 && isKeyByte[b[start-1]] {
			start--
		}
		name = b[start:end]
		switch string(name) {
		case "string", "String", "str": // a type behind the name
			i = start
			continue
		case "value": // <add key="password" value="…">
			if start == 0 || b[start-1] != ' ' {
				return nil, false
			}
			i = start - 1
			continue
		}
		break
	}
	if len(name) < 3 {
		return nil, false
	}
	if !hasSecretWord(name) {
		return nil, false
	}
	return name, !namesNoSecret(name)
}

// isKeyByte marks what names of secrets are made of.
var isKeyByte = func() (t [256]bool) {
	for c := range t {
		t[c] = isAlnum(byte(c)) || c == '_' || c == '-' || c == '.'
	}
	return t
}()

// isBehindKey marks what may stand between one and its value.
var isBehindKey = byteSet("\"' \\`])?+|:.<>")

// hasSecretWord reports whether a word that names secrets is in name.
func hasSecretWord(name []byte) bool {
	for i := 1; i < len(name); i++ {
		if secretStarts[name[i-1]&31]&(1<<(name[i]&31)) != 0 && secretWord(name, i-1) {
			return true
		}
	}
	return false
}

// secretWord reports whether a word that names secrets begins at name[i].
func secretWord(name []byte, i int) bool {
	switch lower(name[i]) {
	case 'p':
		return hasWord(name, i, "passw") || hasWord(name, i, "passphrase") || hasWord(name, i, "pwd") || isPass(name, i)
	case 's':
		return hasWord(name, i, "secret") || hasWord(name, i, "session") || hasWord(name, i, "sessid") || isSID(name[i:]) && (i == 0 || name[i-1] == '.')
	case 't':
		return hasWord(name, i, "token")
	case 'c':
		return hasWord(name, i, "cred") || hasWord(name, i, "client_id") || hasWord(name, i, "clientid") || hasWord(name, i, "contribsys")
	case 'a':
		return hasWord(name, i, "auth") && (!hasWord(name, i, "author") || hasWord(name, i, "authori"))
	case 'k':
		return hasWord(name, i, "key") && (i+3 == len(name) || !isLetter(name[i+3]) || isUpper(name[i+3]) && isLower(name[i+2]))
	}
	return false
}

// secretStarts has, for the first letter of such a word, a bit for each second one.
var secretStarts = func() (t [32]uint32) {
	for _, w := range [...]string{"pa", "pw", "se", "to", "cr", "cl", "co", "au", "ke", "si"} {
		t[w[0]&31] |= 1 << (w[1] & 31)
	}
	return t
}()

// isPass reports whether "pass" is the last word of name, behind others, at name[i]. Alone
// it is what a test did.
func isPass(name []byte, i int) bool {
	return i > 0 && i+4 == len(name) && hasWord(name, i, "pass") && (!isLetter(name[i-1]) || isUpper(name[i]) && isLower(name[i-1]))
}

// isWordOf reports whether word is one of others, which are in lower case.
func isWordOf(word []byte, others ...string) bool {
	for _, o := range others {
		if len(o) == len(word) && hasWord(word, 0, o) {
			return true
		}
	}
	return false
}

func hasWord(name []byte, i int, word string) bool {
	if len(name)-i < len(word) {
		return false
	}
	for k := range len(word) {
		if lower(name[i+k]) != word[k] {
			return false
		}
	}
	return true
}

// isSID reports whether b is the usual name of a session in a cookie.
func isSID(b []byte) bool { return len(b) == 3 && hasWord(b, 0, "sid") }

// namesNoSecret reports whether name says that its value is about a secret, and
// is none: a size, a place, the public half.
func namesNoSecret(name []byte) bool {
	low := strings.ReplaceAll(strings.ToLower(string(name)), "bitbucket", "")
	for _, word := range [...]string{"public", "pub_key", "pubkey", "primary", "foreign", "natural", "schema", "bucket", "sequence", "monkey", "turkey", "csrf", "authenticity_token", "issuer", "accessor", "usersecretsid", "keyvault", "key_vault", "key-vault", "exchange-organization", "-results", "hotkey", "cache", "tokeniz"} {
		if strings.Contains(low, word) {
			return true
		}
	}
	for _, end := range [...]string{"size", "length", "len", "name", "type", "path", "file", "url", "uri", "endpoint", "alias", "version", "count", "limit", "format", "algorithm", "index", "code", "chars", "selector", "pair", "event", "variable", "expiry", "ttl", "signatures", "distance", "location", "source", "meshing", "mode", "class"} {
		if strings.HasSuffix(low, end) {
			return true
		}
	}
	return strings.HasSuffix(low, "id") && !strings.Contains(low, "client") && !strings.Contains(low, "sess") && !isSID(name) && !strings.HasSuffix(low, ".sid") && len(low) > 2 && !strings.HasSuffix(low, "akid")
}

// keyName is the function of that name, for a place in the view. The name may
// stand before the zone.
func (l *level) keyName(i int) ([]byte, bool) {
	z := l.zone
	if l.v.from == nil && !l.v.blob {
		return keyName(z.raw, z.start+i)
	}
	for _, c := range l.t[:min(i, 8)] {
		if isAlnum(c) {
			return keyName(l.t, i)
		}
	}
	return keyName(z.raw, z.start)
}

// assigned reads a secret that is assigned at t[i], as in `api_key = "…"` and
// "password: …".
func (l *level) assigned(i int) {
	t := l.t
	if i < l.valueEnd || t[i] == ':' && bytes.HasPrefix(t[i+1:], []byte("//")) {
		return // inside the value of another name, or behind a URL's scheme
	}
	name, ok := l.keyName(i)
	if !ok {
		l.login(i)
		return
	}
	start := i + 1
	for opened := false; start < len(t) && start-i < 16 && strings.IndexByte("=:>-|,< \"'`\\({[\n\t", t[start]) >= 0; start++ {
		if t[start] == '\n' && t[start-1] != '>' && t[start-1] != '|' {
			return
		}
		if opened && strings.IndexByte("=:>-|,<", t[start]) >= 0 {
			break // of the value
		}
		opened = opened || isQuote(t[start])
	}
	for _, scheme := range [...]string{"bearer ", "basic ", "token ", "api-token ", "apikey "} {
		if len(t)-start > len(scheme) && strings.EqualFold(string(t[start:start+len(scheme)]), scheme) {
			start += len(scheme)
			break
		}
	}
	end := start
	quoted := start > 0 && isQuote(t[start-1])
	for end < len(t) && end-start < maxURL && t[end] > ' ' && strings.IndexByte("\"'`<>", t[end]) < 0 && (quoted || strings.IndexByte(",;)}]", t[end]) < 0) {
		end++
	}
	for end > start && !quoted && strings.IndexByte(".:!?\\", t[end-1]) >= 0 {
		end--
	}
	l.valueEnd = end
	value := t[start:end]
	if !quoted && strings.ContainsAny(string(value), "([{") {
		return // code
	}
	if p := i - len(name) - 1; p >= 0 && p < i && (t[p] == '?' || t[p] == '&') { // of a query
		if n := bytes.IndexByte(value, '&'); n >= 0 {
			value, end = value[:n], start+n
			l.valueEnd = end
		}
	}
	if score := secretScore(name, value); score > 0 {
		l.add(l.zone.det.secret, start, end, score)
	}
}

func isQuote(c byte) bool { return c == '"' || c == '\'' || c == '`' }

// isLoginByte marks what is in front of the colon of a login.
var isLoginByte = func() (t [256]bool) {
	for c := range t {
		t[c] = isAlnum(byte(c)) || strings.IndexByte("_-.@{}\"!#$%^&*+", byte(c)) >= 0
	}
	return t
}()

// login reads the password behind the colon t[i] in "curl -u name:password", and
// the key in front of it if there is no password.
func (l *level) login(i int) {
	t := l.t
	if t[i] != ':' {
		return
	}
	start := i
	for start > 0 && i-start < 64 && isLoginByte[t[start-1]] {
		start--
	}
	name := t[start:i]
	for start > 0 && strings.IndexByte(" \"'=", t[start-1]) >= 0 {
		start--
	}
	if head := t[:start]; start == i || !bytes.HasSuffix(head, []byte(" -u")) && !bytes.HasSuffix(head, []byte(" --user")) {
		return
	}
	name = bytes.Trim(name, `{}"`)
	from := i + 1
	for from < len(t) && from-i < 4 && (isQuote(t[from]) || t[from] == '{') {
		from++
	}
	end := from
	for end < len(t) && end-i < 256 && t[end] > ' ' && strings.IndexByte("\"'`}", t[end]) < 0 {
		end++
	}
	for _, value := range [...][]byte{t[from:end], name} {
		if len(value) == 0 {
			continue // the key is the name, as with Stripe
		}
		if secretScore([]byte("password"), value) >= 0.5 || isRandom(value) {
			at := i - len(name)
			if end > from {
				at = from
			} else if c := t[i-1]; c == '"' || c == '}' {
				return
			}
			l.add(l.zone.det.secret, at, at+len(value), 0.75)
		}
		return
	}
}

// said reads the password t[start:end] behind the word itself, as in "password
// Xy12…", "the password is Xy12…" and "bearer Xy12…".
func (l *level) said(start, end int) {
	t := l.t
	p, quoted := start, start > 0 && isQuote(t[start-1])
	if quoted {
		p--
	}
	for range 2 {
		if p == 0 || t[p-1] != ' ' {
			return
		}
		for p > 0 && t[p-1] == ' ' {
			p--
		}
		word := p
		for word > 0 && isLetter(t[word-1]) {
			word--
		}
		switch name := t[word:p]; {
		case isWordOf(name, "is", "was"):
			p = word
			continue
		case !isWordOf(name, "password", "passwd", "passphrase", "pwd", "bearer"):
			return
		}
		for end > start && isStop[t[end-1]] {
			end--
		}
		if value := t[start:end]; (len(value) >= 8 && isRandom(value) || quoted) && secretScore([]byte("password"), value) >= 0.5 {
			l.add(l.zone.det.secret, start, end, 0.7)
		}
		return
	}
}

// secretScore says how sure it is that value is the secret that name tells of.
func secretScore(name, value []byte) float32 {
	score := rateSecret(name, value)
	if score > 0 && published(value) {
		return 0
	}
	return score
}

func rateSecret(name, value []byte) float32 {
	n := strings.ToLower(string(name))
	password := strings.Contains(n, "passw") || strings.Contains(n, "pwd") || strings.Contains(n, "passphrase") || strings.HasSuffix(n, "pass")
	if len(value) < 8 && !(password && len(value) >= 6) || placeholder(value) || saysNoSecret(value) {
		return 0
	}
	if strings.Contains(n, "sess") && !strings.Contains(n, "secret") && (len(value) < 24 || isUUID(value)) {
		return 0 // a number or a UUID, which say little
	}
	switch {
	case bytes.Contains(value, []byte("://")):
		return 0 // a URL, which has rules of its own
	case strings.Contains(n, "telegram"):
		if telegramShape(value) {
			return 0.9
		}
		if i := bytes.IndexByte(value, ':'); i > 0 && isNumber(value[:i], 1, i) {
			return 0 // another's
		}
	case strings.Contains(n, "contribsys"):
		if len(value) == 17 && value[8] == ':' && isHex(value[:8]) && isHex(value[9:]) {
			return 0.8
		}
		return 0
	}
	digits, letters, marks := 0, 0, 0
	for _, c := range value {
		switch {
		case isDigit(c):
			digits++
		case isLetter(c):
			letters++
		case strings.IndexByte("_-./+=~ ", c) < 0:
			marks++
		}
	}
	switch {
	case password && (digits > 0 && letters > 0 || marks > 0 && letters > 0):
		return 0.75
	case password:
		return 0.4
	case bytes.Contains(value, []byte("_test_")):
		return 0 // it says so; tokens of services have prefixes that are known
	case strings.Contains(n, "client") && strings.HasSuffix(n, "id") && isUUID(value):
		return 0.3 // an identifier
	case letters == 0 && digits == len(value) && digits >= 15 && strings.HasSuffix(n, "token"):
		return 0.55
	case marks*4 > len(value):
		if strings.Contains(n, "secret") && len(value) >= 32 && digits > 0 && letters > 0 && strings.IndexByte(string(value), ' ') < 0 && entropy(value) >= 4 {
			return 0.6
		}
		return 0
	case takesTurns(value):
		return 0
	case len(value) >= 10 && digits > 0 && letters > 0 && isRandom(value):
		return 0.7
	case len(value) >= 20 && isRandom(value):
		return 0.6
	case !strings.Contains(n, "token") && !strings.Contains(n, "secret"):
		return 0
	case len(value) >= 16 && digits > 0 && letters+digits == len(value) && bytes.Equal(value, bytes.ToUpper(value)) && entropy(value) >= 3.5:
		return 0.6 // base32
	case isUUID(value), len(value) >= 32 && digits+letters == len(value) && digits >= 8 && letters >= 8:
		return 0.6
	}
	return 0
}

// saysNoSecret reports whether value is none that somebody has chosen: a label, a path, the
// name of a resource or of an element, or what is between two values.
func saysNoSecret(value []byte) bool {
	switch last := value[len(value)-1]; {
	case last == ':', value[0] == ',', bytes.HasPrefix(value, []byte("arn:")):
		return true
	case value[0] == '/':
		return bytes.Count(value, []byte("/")) > 2 && !isRandom(value)
	case value[0] == '#':
		for _, c := range value[1:] {
			if !isLower(c) && c != '-' {
				return false
			}
		}
		return true
	}
	return false
}

// isUUID reports whether b is written as a UUID is.
func isUUID(b []byte) bool {
	if len(b) != 36 {
		return false
	}
	for i, c := range b {
		switch i {
		case 8, 13, 18, 23:
			if c != '-' {
				return false
			}
		default:
			if hexDigit(c) < 0 {
				return false
			}
		}
	}
	return true
}

// isRandom reports whether value changes between small letters, capitals and
// digits, inside of its parts, more often than names made of words do, and has not
// too few characters.
func isRandom(value []byte) bool {
	changes, size, plain := 0, 0, true
	last := byte(0)
	for i, c := range value {
		class := byte(0)
		switch {
		case isDigit(c):
			class = 'd'
		case isLower(c):
			class = 'a'
		case isUpper(c):
			class = 'A'
		}
		plain = plain && (class == 'a' || class == 'd')
		if class != 0 {
			size++
			// A capital and the small letters behind it are one.
			word := class == 'a' && last == 'A' && (i < 2 || !isUpper(value[i-2]))
			if last != 0 && class != last && !word {
				changes++
			}
		}
		last = class
	}
	enough := changes*11 >= size*2 || plain && changes*7 >= size
	return size >= 8 && enough && entropy(value) >= 2.8
}

// entropy is Shannon's, in bits for a byte.
func entropy(b []byte) float64 {
	var count [256]int
	for _, c := range b {
		count[c]++
	}
	bits := 0.0
	for _, n := range count {
		if n > 0 {
			p := float64(n) / float64(len(b))
			bits -= p * math.Log2(p)
		}
	}
	return bits
}

// placeholder reports whether value stands for a secret and is none.
func placeholder(value []byte) bool {
	if len(value) == 0 || sameDigits(value) {
		return true
	}
	switch value[0] {
	case '$', '<', '{', '%', '[', '(', '*':
		return true
	}
	var low [64]byte
	n := 0
	for _, c := range value[:min(len(value), len(low))] {
		low[n] = lower(c)
		n++
	}
	s := low[:n]
	for _, word := range [...]string{"example", "your_", "your-", "yourapi", "xxxx", "placeholder", "changeme", "redacted", "dummy", "${", "{{", "process.env", "os.environ", "getenv", "****", "....", "undefined"} {
		if strings.Contains(string(s), word) {
			return true
		}
	}
	same := 0
	for i, c := range s[1:] {
		if c == s[i] {
			same++
		}
	}
	return same*2 > n || string(value[:min(n, 8)]) == "abcdefgh"
}
