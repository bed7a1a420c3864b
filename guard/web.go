package guard

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// isHostByte marks what host names are made of, letters of other scripts
// included. A point is not among them.
var isHostByte = func() (t [256]bool) {
	for c := range t {
		t[c] = isAlnum(byte(c)) || c == '-' || c >= 0x80
	}
	return t
}()

// isLocalByte marks what the part before the at sign may have, unquoted.
var isLocalByte = func() (t [256]bool) {
	for c := range t {
		t[c] = isHostByte[c] || strings.IndexByte("!#$&'*+/=?^_`{|}~.%", byte(c)) >= 0
	}
	return t
}()

const (
	maxLocal = 64 // bytes; RFC 5321, section 4.5.3.1
	maxHost  = 255
)

// email reads the address around the at sign t[i].
func (l *level) email(i int) {
	t := l.t
	if i < l.authorityEnd {
		return // who logs in at a host
	}
	start := i
	for start > 0 && i-start < maxLocal && isLocalByte[t[start-1]] {
		start--
	}
	start = afterOther(t, start, i)
	for start < i && strings.IndexByte(".'`*/=?&{|#!$%^", t[start]) >= 0 {
		start++
	}
	// A key in front, as in "to=alice@…" and "mailto:alice@…".
	for p := start; p < i; p++ {
		if c := t[p]; c == '=' || c == '/' || c == '&' || c == '?' || c == '|' {
			start = p + 1
		}
	}
	end := l.zone.det.hostEnd(t, i+1)
	if start == i || t[i-1] == '.' || end == 0 {
		return
	}
	label := lastLabel(t[i+1 : end])
	if len(label) < 2 || !mayBeTLD(label) {
		return
	}
	if t[start] == '_' && end < len(t) && t[end] == '_' {
		start++ // emphasis in Markdown
	}
	l.add(l.zone.det.mail, start, end, 1)
}

// hostEnd returns where the name of a host with a point in it ends that begins
// at t[p], or 0.
func (d *detector) hostEnd(t []byte, p int) int {
	q := p
	for q < len(t) && q-p < maxHost && (isHostByte[t[q]] || t[q] == '.' && q > p && t[q-1] != '.') {
		q++
	}
	q = d.beforeOther(t, p, q)
	for q > p && (t[q-1] == '.' || t[q-1] == '-') {
		q--
	}
	if q == p || t[p] == '-' || strings.IndexByte(string(t[p:q]), '.') < 0 {
		return 0
	}
	return q
}

// afterOther returns the first place in t[p:end] behind everything that is not
// of the name there: marks of other scripts, and writing without spaces.
func afterOther(t []byte, p, end int) int {
	for q := p; q < end; {
		if t[q] < utf8.RuneSelf {
			q++
			continue
		}
		r, size := utf8.DecodeRune(t[q:end])
		if q += size; isOtherMark(r) || q < end && isAlnum(t[q]) && unspaced(r) {
			p = q
		}
	}
	return p
}

// beforeOther returns where the host name that begins at t[p] ends, end at most,
// in front of such things.
func (d *detector) beforeOther(t []byte, p, end int) int {
	for q := p; q < end; {
		if t[q] < utf8.RuneSelf {
			q++
			continue
		}
		r, size := utf8.DecodeRune(t[q:end])
		if isOtherMark(r) || q > p && isLetter(t[q-1]) && unspaced(r) && d.isTLD(lastLabel(t[p:q])) {
			return q
		}
		q += size
	}
	return end
}

// isOtherMark reports whether r, which is not ASCII, is in no name of a host.
func isOtherMark(r rune) bool {
	return r != utf8.RuneError && !unicode.IsLetter(r) && !unicode.IsMark(r) && !unicode.IsNumber(r)
}

// unspaced reports whether r is of a script that has no spaces between words.
func unspaced(r rune) bool {
	return unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul, unicode.Thai)
}

func lastLabel(host []byte) []byte {
	p := len(host)
	for p > 0 && host[p-1] != '.' {
		p--
	}
	return host[p:]
}

// mayBeTLD reports whether label has no digit, or is an encoded one.
func mayBeTLD(label []byte) bool {
	if len(label) > 4 && strings.EqualFold(string(label[:4]), "xn--") {
		return true
	}
	for _, c := range label {
		if isDigit(c) || c == '-' {
			return false
		}
	}
	return true
}

// host reads the name around the point t[i].
func (l *level) host(i int) {
	t := l.t
	if macQuads(t, i-4) {
		l.add(l.zone.det.mac, i-4, i+10, l.rate(l.zone.det.mac, i-4, 0.7, 0.95))
	}
	if i < l.hostEnd {
		return
	}
	start := i
	for start > 0 && i-start < 64 && isHostByte[t[start-1]] {
		start--
	}
	start = afterOther(t, start, i)
	end := start
	for end < len(t) && (isHostByte[t[end]] || t[end] == '.') {
		end++
	}
	l.hostEnd = end
	end = l.zone.det.beforeOther(t, start, end)
	for end > start && (t[end-1] == '.' || t[end-1] == '-') {
		end--
	}
	if start > 3 && (t[start-1] == ' ' || isCloser[t[start-1]]) && t[start-2] != ',' && l.zone.det.isTLD(lastLabel(t[start:end])) {
		l.spelled(start)
	}
	if end-start > maxHost || end < len(t) && (t[end] == '@' || t[end] == '(' || t[end] == '=' || t[end] == '_') {
		return
	}
	if start > 0 && strings.IndexByte("@_$#./\\-%", t[start-1]) >= 0 && !strings.HasSuffix(string(t[max(0, start-3):start]), "://") {
		return
	}
	label := lastLabel(t[start:end])
	if !isLetter(t[start]) && !isDigit(t[start]) && t[start] < 0x80 || !l.zone.det.isTLD(label) {
		return
	}
	if end-start-len(label) == 4 && strings.EqualFold(string(t[start:start+4]), "www.") {
		return
	}
	score := float32(0.3)
	if end-start > 4 && strings.EqualFold(string(t[start:start+4]), "www.") {
		score = 0.6
	} else if commonTLD(label) || isSecondLevel(lastLabel(t[start:max(start, end-len(label)-1)])) {
		score = 0.5
	}
	if isUpper(label[0]) && !isUpper(t[start]) {
		score = 0.1 // "ended.It began"
	}
	l.add(l.zone.det.domain, start, end, l.rate(l.zone.det.domain, start, score, max(score, 0.6)))
	l.add(l.zone.det.domainName, start, end, max(score-0.05, 0.1))
}

// encodedTLD is where xn-- is among the first two letters of top-level domains.
const encodedTLD = ('x'&31)<<5 | 'n'&31

func (d *detector) isTLD(label []byte) bool {
	var low [24]byte
	if len(label) < 2 || len(label) > len(low) {
		return false
	}
	if label[0] >= 0x80 {
		return true
	}
	if start := int(label[0]&31)<<5 | int(label[1]&31); d.tldStarts[start]>>len(label)&1 == 0 && start != encodedTLD {
		return false
	}
	for i, c := range label {
		low[i] = lower(c)
	}
	name := low[:len(label)]
	return d.tlds[string(name)] || string(name[:min(4, len(name))]) == "xn--"
}

// commonTLD reports whether label ends names in prose more often than names of
// files and of fields in programs.
func commonTLD(label []byte) bool {
	switch strings.ToLower(string(label)) {
	case "com", "org", "net", "edu", "gov", "mil", "int", "biz", "eu", "uk", "de", "fr", "nl", "io", "ai", "dev", "app", "cloud", "online", "shop", "site", "xyz",
		"au", "be", "bg", "ca", "ch", "cn", "cz", "dk", "ee", "es", "fi", "gr", "hk", "hr", "hu", "ie", "jp", "kr", "lt", "lv", "mx", "nz", "pt", "ro", "ru", "se", "sk", "tw", "ua", "za":
		return true
	}
	return false
}

// isSecondLevel reports whether names are registered below label, as in com.br.
func isSecondLevel(label []byte) bool {
	switch strings.ToLower(string(label)) {
	case "com", "co", "org", "net", "edu", "gov", "ac":
		return true
	}
	return false
}

// colon reads what has colons in it: URLs and addresses of networks.
func (l *level) colon(i int) {
	t := l.t
	if i+2 < len(t) && t[i+1] == '/' && t[i+2] == '/' {
		l.readURL(i)
		return
	}
	if macPairs(t, i-2, ':') {
		l.add(l.zone.det.mac, i-2, i+15, l.rate(l.zone.det.mac, i-2, 0.8, 1))
		return
	}
	l.readIPv6(i)
}

// isURLByte marks what ends no URL.
var isURLByte = func() (t [256]bool) {
	for c := range t {
		t[c] = c > ' ' && c != 0x7F && strings.IndexByte("<>\"'`{}|\\^", byte(c)) < 0
	}
	return t
}()

const maxURL = 4096 // bytes of one finding

// readURL reads the URL whose scheme ends at the colon t[i].
func (l *level) readURL(i int) {
	t := l.t
	if i < l.urlEnd {
		return // inside another
	}
	start := i
	for start > 0 && i-start < 20 && (isAlnum(t[start-1]) || t[start-1] == '+' || t[start-1] == '-') {
		start--
	}
	for start < i && !isLetter(t[start]) {
		start++
	}
	host := i + 3
	end := host
	for end < len(t) && end-start < maxURL && isURLByte[t[end]] {
		end++
	}
	l.urlEnd = end
	for end > host && strings.IndexByte(".,;:!?)]*_", t[end-1]) >= 0 {
		if t[end-1] == ')' && strings.IndexByte(string(t[host:end]), '(') >= 0 {
			break
		}
		end--
	}
	if start == i || end == host {
		return
	}
	authority := host
	at, colon := -1, -1
	for authority < end && strings.IndexByte("/?#", t[authority]) < 0 {
		if c := t[authority]; c == '@' {
			at = authority
		} else if c == ':' && at < 0 && colon < 0 {
			colon = authority
		}
		authority++
	}
	l.authorityEnd = authority
	if at > colon && colon >= host && at-colon > 1 && !placeholder(t[colon+1:at]) {
		l.add(l.zone.det.secret, start, end, 0.95)
	}
	if !webScheme(t[start:i]) {
		return
	}
	if hookURL(t[host:end]) {
		l.add(l.zone.det.secret, start, end, 0.9)
		return
	}
	name := t[max(host, at+1):authority]
	if c := strings.IndexByte(string(name), ':'); c >= 0 {
		name = name[:c]
	}
	label := lastLabel(name)
	if len(label) == len(name) || len(label) == 0 || len(label) == 1 && !isDigit(label[0]) || len(name) == len(label)+1 {
		return
	}
	l.add(l.zone.det.url, start, end, 0.6)
}

func webScheme(s []byte) bool {
	switch strings.ToLower(string(s)) {
	case "http", "https", "ftp", "ftps", "sftp", "ws", "wss", "ssh", "git", "rtsp", "ldap", "ldaps", "smb":
		return true
	}
	return false
}

// hookURL reports whether a URL, behind its scheme, is a secret as a whole: who
// knows it may post.
func hookURL(u []byte) bool {
	s := string(u)
	if i := strings.Index(s, "sig="); i > 0 && (s[i-1] == '?' || s[i-1] == '&') && len(s)-i >= 44 && strings.Contains(s, "sv=") {
		return true // a shared access signature of Azure
	}
	return strings.HasPrefix(s, "hooks.slack.com/") && len(s) > 40 || strings.Contains(s, ".webhook.office.com/webhookb2/") ||
		strings.HasPrefix(s, "discord.com/api/webhooks/") || strings.HasPrefix(s, "discordapp.com/api/webhooks/")
}
