// Package certfile writes a certificate, its key and the authorities to trust
// in the forms that other people's servers read, and replaces all of it in one
// step.
//
// [Open] says whether a folder is fit, [Folder.Write] replaces what is in it,
// [Folder.Read] tells what is there. The names are always the same:
//
//	tls.crt   the certificate and its intermediates, PEM; always there
//	ca.crt    the authorities to trust, PEM; always there
//	tls.key   pem: the key, PKCS #8 in PEM
//	tls.pem   combined: certificate, intermediates and key, PEM
//	tls.pk8   pkcs8: the key, PKCS #8 in DER, as Java reads it
//	tls.p12   pkcs12: certificate, intermediates and key, with a password
//	ca.p12    pkcs12: the authorities, with the same password
//
// Each is a symbolic link into one hidden folder, and so is that: whoever opens
// DIR/..current once reads files that belong together. Links are relative, so
// that the folder can be mounted elsewhere, but only as a whole.
package certfile
