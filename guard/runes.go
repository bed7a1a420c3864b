package guard

import (
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// appendPlain appends to b what r means to the matchers: nothing for an
// invisible character, ASCII for what looks like or stands for ASCII, and r
// itself for all else.
func appendPlain(b []byte, r rune) []byte {
	switch {
	case r < 0x20 && r != '\n' && r != '\r' && r != '\t' || r == 0x7F:
		return b // an escaped control character
	case r < utf8.RuneSelf:
		return append(b, byte(r))
	case isInvisible(r):
		return b
	case unicode.Is(unicode.Pd, r) || r == 0x2212 || r == 0x02D7 || r == 0x2043:
		return append(b, '-')
	case unicode.Is(unicode.Z, r) || r == 0x85:
		return append(b, ' ')
	case unicode.Is(unicode.Nd, r):
		return append(b, '0'+digitValue(r))
	}
	if c := lookAlike(r); c != 0 {
		return append(b, c)
	}
	var buf [utf8.UTFMax]byte
	enc := buf[:utf8.EncodeRune(buf[:], r)]
	if d := norm.NFKC.Properties(enc).Decomposition(); len(d) > 0 && isASCII(d) && len(d) <= 8 {
		return append(b, d...)
	}
	return append(b, enc...)
}

func isASCII(b []byte) bool {
	for _, c := range b {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// isInvisible reports whether r leaves no mark of its own: the default
// ignorable code points of Unicode, and combining marks.
func isInvisible(r rune) bool {
	switch {
	case unicode.Is(unicode.Cf, r), unicode.Is(unicode.Mn, r), unicode.Is(unicode.Me, r):
		return true
	case r == 0x115F, r == 0x1160, r == 0x3164, r == 0xFFA0, r == 0x2800: // Hangul fillers, and a blank of Braille
		return true
	case r >= 0x80 && r < 0xA0 && r != 0x85: // C1 controls
		return true
	case r >= 0xFFF0 && r <= 0xFFF8:
		return true
	}
	return r >= 0xE0000 && r <= 0xE0FFF
}

// digitValue returns the value of a decimal digit of any script. The digits of
// a script are ten in a row from zero, and so are the ranges of unicode.Nd.
func digitValue(r rune) byte {
	for _, t := range unicode.Nd.R16 {
		if r >= rune(t.Lo) && r <= rune(t.Hi) {
			return byte((r - rune(t.Lo)) % 10)
		}
	}
	for _, t := range unicode.Nd.R32 {
		if r >= rune(t.Lo) && r <= rune(t.Hi) {
			return byte((r - rune(t.Lo)) % 10)
		}
	}
	return 0
}

// lookAlike returns the ASCII character that r is mistaken for, or 0. The pairs
// are those of Unicode's confusables.txt that make whole words, and forms that
// compatibility decomposition leaves alone.
func lookAlike(r rune) byte {
	const (
		cyrillic = "аaеeоoрpсcуyхxіiјjѕsһhԁdԛqԝwѵvӏlкkмmтtАAВBЕEКKМMНHОOРPСCТTХXУYІIЈJЅSԌGԚQԜWҮYӀI"
		greek    = "αaοoνvιiρpυuκkτtΑAΒBΕEΖZΗHΙIΚKΜMΝNΟOΡPΤTΥYΧXϲcϳj"
		latin    = "ɡgıiȷjɑaɩiʏyᴀaʙbᴄcᴅdᴇeꜰfɢgʜhɪiᴊjᴋkʟlᴍmɴnᴏoᴘpǫqʀrꜱsᴛtᴜuᴠvᴡwᴢz"
		braille  = "⠁a⠃b⠉c⠙d⠑e⠋f⠛g⠓h⠊i⠚j⠅k⠇l⠍m⠝n⠕o⠏p⠟q⠗r⠎s⠞t⠥u⠧v⠺w⠭x⠽y⠵z"
		armenian = "օoսuցgհhոnԱUՏSՕO"
		marks    = "。.·.•.∙.⋅.᛫.∕/⁄/⧸/∶:꞉:ː:׃:‚,‐-⁃-➖-ー-一-∣|ǀ|˗-_"
		circled  = "❶1❷2❸3❹4❺5❻6❼7❽8❾9➀1➁2➂3➃4➄5➅6➆7➇8➈9➊1➋2➌3➍4➎5➏6➐7➑8➒9⓿0🄌0"
	)
	table := ""
	switch {
	case r >= 0x400 && r < 0x530:
		table = cyrillic
	case r >= 0x370 && r < 0x400:
		table = greek
	case r >= 0x530 && r < 0x590:
		table = armenian
	case r < 0x300, r >= 0x1D00 && r < 0x1D80, r >= 0xA730 && r < 0xA740:
		table = latin
		if r == 'ː' || r == '·' || r == 'ǀ' || r == '˗' {
			table = marks
		}
	case r >= 0x2800 && r < 0x2840:
		table = braille
	case r >= 0x2460 && r < 0x27C0, r == 0x1F10C:
		switch {
		case r >= 0x2474 && r <= 0x247C: // in parentheses
			return '1' + byte(r-0x2474)
		case r >= 0x2488 && r <= 0x2490: // with a full stop
			return '1' + byte(r-0x2488)
		}
		table = circled
		if r == '➖' {
			table = marks
		}
	case r >= 0x1F101 && r <= 0x1F10A: // digits with a comma
		return '0' + byte(r-0x1F101)
	case r >= 0x1F130 && r < 0x1F16A: // squared and negative circled letters
		if c := (r - 0x1F130) % 32; c < 26 {
			return 'A' + byte(c)
		}
		return 0
	default:
		table = marks
	}
	for i, known := range table {
		if known == r {
			return table[i+utf8.RuneLen(r)]
		}
	}
	return 0
}
