package conformance

var transitCases = []Case{
	scripted("transit, keys", func(s *script) {
		s.post("sys/mounts/$transit", `{"type":"transit"}`).is(204)
		s.list("$transit/keys").refused(404)
		for _, kind := range []string{"ed25519", "ecdsa-p256", "rsa-2048", "aes256-gcm96"} {
			s.post("$transit/keys/"+kind, `{"type":"`+kind+`"}`).is(200)
		}
		s.post("$transit/keys/plain", `{}`).is(200)
		s.post("$transit/keys/ed25519", `{"type":"ed25519"}`).is(200).has("data.latest_version", "1")
		s.post("$transit/keys/bad", `{"type":"bogus"}`).refused(400, "unknown key type bogus")
		s.get("$transit/keys/ed25519").is(200)
		s.get("$transit/keys/nosuch").refused(404)
		s.list("$transit/keys").is(200)
		s.post("$transit/keys/ed25519/rotate", `{}`).is(200).has("data.latest_version", "2")
		s.post("$transit/keys/ed25519/config", `{"min_decryption_version":2}`).is(200)
		s.post("$transit/keys/ed25519/config", `{"min_decryption_version":9}`).is(400)
		s.del("$transit/keys/ed25519").refused(400, "error deleting policy ed25519: deletion is not allowed for this key")
		s.post("$transit/keys/ed25519/config", `{"deletion_allowed":true}`).is(200)
		s.del("$transit/keys/ed25519").is(204)
		s.get("$transit/keys/ed25519").refused(404)
		s.post("$transit/keys/nosuch/rotate", `{}`).is(400)
		s.post("$transit/keys/nosuch/config", `{"deletion_allowed":true}`).is(400)
		s.del("$transit/keys/nosuch").is(400)
	}),
	scripted("transit, sign and verify", func(s *script) {
		s.post("sys/mounts/$transit", `{"type":"transit"}`).is(204)
		s.post("$transit/keys/ed25519", `{"type":"ed25519"}`).is(200)
		s.post("$transit/sign/ed25519", `{"input":"aGVsbG8="}`).is(200).let("sig", "data.signature")
		s.post("$transit/verify/ed25519", `{"input":"aGVsbG8=","signature":"$sig"}`).is(200).has("data.valid", "true")
		s.post("$transit/verify/ed25519", `{"input":"aGVsbG8h","signature":"$sig"}`).is(200).has("data.valid", "false")
		s.post("$transit/sign/ed25519", `{"input":"aGVsbG8=","hash_algorithm":"sha2-512"}`).is(400)
		for _, kind := range []string{"ecdsa-p256", "rsa-2048"} {
			s.post("$transit/keys/"+kind, `{"type":"`+kind+`"}`).is(200)
			for _, how := range []string{``, `,"marshaling_algorithm":"jws"`, `,"signature_algorithm":"pkcs1v15"`, `,"hash_algorithm":"sha2-512"`} {
				s.post("$transit/sign/"+kind, `{"input":"aGVsbG8="`+how+`}`).is(200).let("sig", "data.signature")
				s.post("$transit/verify/"+kind, `{"input":"aGVsbG8=","signature":"$sig"`+how+`}`).is(200).has("data.valid", "true")
				s.post("$transit/verify/"+kind, `{"input":"aGVsbG8h","signature":"$sig"`+how+`}`).is(200).has("data.valid", "false")
			}
		}
		s.post("$transit/sign/ecdsa-p256/sha2-384", `{"input":"aGVsbG8="}`).is(200).let("sig", "data.signature")
		s.post("$transit/verify/ecdsa-p256/sha2-384", `{"input":"aGVsbG8=","signature":"$sig"}`).is(200).has("data.valid", "true")
		s.post("$transit/sign/ed25519", `{"batch_input":[{"input":"aGVsbG8="},{"input":"aGVsbG8h","reference":"r"}]}`).is(200)
	}),
	scripted("transit, bad signing", func(s *script) {
		s.post("sys/mounts/$transit", `{"type":"transit"}`).is(204)
		s.post("$transit/keys/k", `{"type":"ed25519"}`).is(200)
		s.post("$transit/keys/aes", `{}`).is(200)
		s.post("$transit/sign/k", `{"input":"%%"}`).is(400)
		s.post("$transit/sign/nosuch", `{"input":"aGVsbG8="}`).refused(400, "signing key not found")
		s.post("$transit/sign/aes", `{"input":"aGVsbG8="}`).is(400)
		s.post("$transit/sign/k", `{"input":"aGVsbG8=","key_version":7}`).is(500)
		s.post("$transit/sign/k", `{"batch_input":[]}`).is(400)
		s.post("$transit/verify/nosuch", `{"input":"aGVsbG8=","signature":"vault:v1:xxxx"}`).is(400)
		s.post("$transit/verify/k", `{"input":"aGVsbG8=","signature":"bogus"}`).refused(400, "invalid signature: no prefix")
		s.post("$transit/verify/k", `{"input":"aGVsbG8="}`).is(400)
		s.post("$transit/verify/k", `{"input":"aGVsbG8=","signature":"vault:v9:xxxx"}`).is(400)
	}),
	scripted("transit, old versions", func(s *script) {
		s.post("sys/mounts/$transit", `{"type":"transit"}`).is(204)
		s.post("$transit/keys/k", `{"type":"ed25519"}`).is(200)
		s.post("$transit/sign/k", `{"input":"aGVsbG8="}`).is(200).let("old", "data.signature")
		s.post("$transit/keys/k/rotate", `{}`).is(200)
		s.post("$transit/sign/k", `{"input":"aGVsbG8="}`).is(200).has("data.key_version", "2")
		s.post("$transit/sign/k", `{"input":"aGVsbG8=","key_version":1}`).is(200).has("data.signature", `"$old"`)
		s.post("$transit/verify/k", `{"input":"aGVsbG8=","signature":"$old"}`).is(200).has("data.valid", "true")
		s.post("$transit/keys/k/config", `{"min_decryption_version":2}`).is(200)
		s.post("$transit/verify/k", `{"input":"aGVsbG8=","signature":"$old"}`).refused(400, "ciphertext or signature version is disallowed by policy (too old)")
	}),
	scripted("transit, export", func(s *script) {
		s.post("sys/mounts/$transit", `{"type":"transit"}`).is(204)
		s.post("$transit/keys/k", `{"type":"ed25519"}`).is(200)
		s.get("$transit/export/signing-key/k").refused(400, "private key material is not exportable")
		s.get("$transit/export/public-key/k").is(200).elide()
		s.get("$transit/export/bogus/k").is(400)
		s.get("$transit/export/signing-key/nosuch").refused(404)
		s.post("$transit/keys/e", `{"type":"ed25519","exportable":true}`).is(200)
		s.get("$transit/export/signing-key/e").is(200).elide()
		s.get("$transit/export/hmac-key/e/1").is(200).elide()
		s.get("$transit/export/public-key/e/latest").is(200).elide()
		s.post("$transit/keys/k/config", `{"exportable":true}`).is(200)
		s.post("$transit/keys/k/config", `{"exportable":false}`).is(200).has("data.exportable", "true")
		s.get("$transit/export/encryption-key/e").is(400)
		s.get("$transit/export/signing-key/e/9").is(400)
	}),
	scripted("transit, encrypt and mac", func(s *script) {
		s.post("sys/mounts/$transit", `{"type":"transit"}`).is(204)
		s.post("$transit/keys/k", `{}`).is(200)
		s.post("$transit/encrypt/k", `{"plaintext":"aGVsbG8="}`).is(200).let("sealed", "data.ciphertext")
		s.post("$transit/decrypt/k", `{"ciphertext":"$sealed"}`).is(200).has("data.plaintext", `"aGVsbG8="`)
		s.post("$transit/decrypt/k", `{"ciphertext":"vault:v1:xxxx"}`).refused(400, "invalid ciphertext length")
		s.post("$transit/decrypt/k", `{"ciphertext":"bogus"}`).refused(400, "invalid ciphertext: no prefix")
		s.post("$transit/encrypt/auto", `{"plaintext":"aGVsbG8="}`).is(200)
		s.get("$transit/keys/auto").is(200)
		s.post("$transit/hmac/k", `{"input":"aGVsbG8="}`).is(200).let("mac", "data.hmac")
		s.post("$transit/verify/k", `{"input":"aGVsbG8=","hmac":"$mac"}`).is(200).has("data.valid", "true")
		s.post("$transit/verify/k", `{"input":"aGVsbG8h","hmac":"$mac"}`).is(200).has("data.valid", "false")
		s.post("$transit/hmac/k", `{"input":"%%"}`).is(400)
		s.post("$transit/hmac/k", `{}`).is(400)
		s.post("$transit/hmac/k/sha2-512", `{"input":"aGVsbG8="}`).is(200)
		s.post("$transit/hmac/k", `{"input":"aGVsbG8=","algorithm":"bogus"}`)
		s.post("$transit/verify/k", `{"input":"aGVsbG8=","hmac":"bogus"}`).is(400)
		s.post("$transit/encrypt/k", `{}`).is(400)
		s.post("$transit/encrypt/k", `{"plaintext":"%%"}`).is(400)
		s.post("$transit/decrypt/k", `{}`).is(400)
		s.post("$transit/decrypt/nosuch", `{"ciphertext":"vault:v1:xxxx"}`).is(400)
		s.post("$transit/keys/rsa", `{"type":"rsa-2048"}`).is(200)
		s.post("$transit/encrypt/rsa", `{"plaintext":"aGVsbG8="}`).is(200).let("sealed", "data.ciphertext")
		s.post("$transit/decrypt/rsa", `{"ciphertext":"$sealed"}`).is(200).has("data.plaintext", `"aGVsbG8="`)
		s.post("$transit/keys/ed", `{"type":"ed25519"}`).is(200)
		s.post("$transit/encrypt/ed", `{"plaintext":"aGVsbG8="}`).is(400)
	}),
}
