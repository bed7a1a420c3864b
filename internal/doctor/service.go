package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tamshai/phoenix/bootstrap"
	"github.com/tamshai/phoenix/internal/vault"
)

const skipVerify = "VAULT_SKIP_VERIFY"

func (x *exam) skipVerify(context.Context) []Finding {
	value := x.host.env(skipVerify)
	skip, err := strconv.ParseBool(value)
	switch {
	case value == "":
		return []Finding{ok(skipVerify, "is not set")}
	case err != nil:
		return []Finding{problem(skipVerify, "is malformed", "unset it")}
	case skip:
		return []Finding{problem(skipVerify, "it would send secrets to anybody; the service refuses to start", "unset it, and name Vault's CA in VAULT_CACERT")}
	}
	return []Finding{note(skipVerify, "is set, to false")}
}

// environment completes the configuration as the service would, and finds all
// that is wrong with it, not the first alone.
func (x *exam) environment(context.Context) []Finding {
	var list []Finding
	hidden := map[string]bool{skipVerify: true} // config.skip_verify has told
	bad := func(name, detail, remedy string) {
		hidden[name] = true
		list = append(list, problem(name, detail, remedy))
	}
	const timeout = "VAULT_CLIENT_TIMEOUT"
	if text := x.host.env(timeout); text != "" && x.service.Timeout == 0 {
		d, err := time.ParseDuration(text)
		if n, err2 := strconv.ParseUint(text, 10, 31); err2 == nil {
			d, err = time.Duration(n)*time.Second, nil
		}
		if err != nil || d <= 0 {
			bad(timeout, "is no length of time", "write it as seconds or like 15s")
		}
	}
	cfg := x.service
	const cert, key = "VAULT_CLIENT_CERT", "VAULT_CLIENT_KEY"
	if (orElse(cfg.ClientCertFile, x.host.env(cert)) == "") != (orElse(cfg.ClientKeyFile, x.host.env(key)) == "") {
		bad(cert, "half a client certificate: of "+cert+" and "+key+" one is set", "set both or neither")
		hidden[key], cfg.ClientCertFile, cfg.ClientKeyFile = true, "", ""
	}
	cfg.LookupEnv = func(name string) (string, bool) {
		if hidden[name] {
			return "", false
		}
		return x.host.LookupEnv(name)
	}
	boot, err := bootstrap.FromEnv(cfg)
	if err != nil {
		var e *bootstrap.Error
		what, remedy := err.Error(), "mend what the error names"
		if errors.As(err, &e) {
			what, remedy = e.Err.Error(), orElse(e.Remedy, remedy)
		}
		return append(list, problem("configuration", what, remedy))
	}
	x.boot = boot
	x.target = vault.Config{
		Addr: boot.Addr, Namespace: boot.Namespace, CACertFile: boot.CACertFile, CACertPEM: boot.CACertPEM, ServerName: boot.ServerName,
		ClientCertFile: boot.ClientCertFile, ClientKeyFile: boot.ClientKeyFile, AllowPlaintext: boot.AllowPlaintext,
		Timeout: boot.Timeout, DialContext: x.host.Dial,
	}
	var found []string
	for _, entry := range x.host.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, "VAULT_") || strings.HasPrefix(name, "PHOENIX_") || name == "CREDENTIALS_DIRECTORY" {
			found = append(found, name)
		}
	}
	slices.Sort(found)
	return append(list, ok("environment", "found: %s", orElse(strings.Join(found, ", "), "nothing")))
}

// badConfig is for what cannot be looked at since config.env found the
// configuration unusable.
func badConfig(subject string) []Finding {
	return []Finding{{Status: Skipped, Subject: subject, Detail: "the configuration does not hold"}}
}

func (x *exam) strayToken(context.Context) []Finding {
	if x.host.env("VAULT_TOKEN") == "" {
		return []Finding{ok("VAULT_TOKEN", "is not set")}
	}
	return []Finding{warning("VAULT_TOKEN", "a token is in the environment: Phoenix ignores it, /proc shows it, and every child has it", "take it out of the service's environment")}
}

// proxy finds a proxy that other programs would use for Vault's address.
func (x *exam) proxy(context.Context) []Finding {
	addr := orElse(x.target.Addr, x.boot.Addr)
	host, port, secure := hostPort(addr)
	names := []string{"HTTP_PROXY", "http_proxy"}
	if secure || addr == "" {
		names = []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"}
	}
	names = append(names, "ALL_PROXY", "all_proxy")
	for _, name := range names {
		if x.host.env(name) == "" {
			continue
		}
		if exempt(orElse(x.host.env("NO_PROXY"), x.host.env("no_proxy")), host, port) {
			return []Finding{note(name, "a proxy is set; NO_PROXY exempts Vault's address, and Phoenix goes there directly in any case")}
		}
		return []Finding{warning(name, "a proxy is set: Phoenix ignores it and goes to Vault directly, other programs here (vault, curl) would send their tokens through it",
			"add "+orElse(host, "Vault's host")+" to NO_PROXY; if there is no direct way to Vault, make one")}
	}
	return []Finding{ok("proxy", "none is set")}
}

// exempt reports whether NO_PROXY names a host, as Go and curl read it: names
// and their domains, addresses, networks, *.
func exempt(list, host, port string) bool {
	addr, err := netip.ParseAddr(host)
	if host == "localhost" || err == nil && addr.IsLoopback() {
		return true
	}
	for entry := range strings.SplitSeq(list, ",") {
		entry = strings.ToLower(strings.TrimSpace(entry))
		if network, e := netip.ParsePrefix(entry); e == nil && err == nil && network.Contains(addr) {
			return true
		}
		bare := strings.TrimPrefix(strings.TrimPrefix(entry, "*"), ".")
		if at := strings.LastIndexByte(bare, ':'); at >= 0 && bare[at+1:] == port {
			bare = bare[:at]
		}
		if entry == "*" || bare != "" && (strings.EqualFold(host, bare) || strings.HasSuffix(strings.ToLower(host), "."+bare)) {
			return true
		}
	}
	return false
}

// roleID looks where the RoleID would come from; it may be in the SecretID's
// file.
func (x *exam) roleID(context.Context) []Finding {
	if x.boot.Service == "" {
		return badConfig("RoleID")
	}
	found, err := bootstrap.Find(x.boot)
	x.found = found
	switch {
	case found.RoleID != "":
		return []Finding{ok("RoleID", "is there")}
	case err != nil && x.secretIDPath() != "": // it may come with the SecretID
		return []Finding{note("RoleID", "is not in the environment; it may come in the SecretID's file")}
	}
	name := bootstrap.EnvName(x.boot.Service, "ROLE_ID")
	return []Finding{problem("RoleID", "there is none: the service cannot log in", "set "+name+" or VAULT_ROLE_ID to the role_id in the estate")}
}

// secretIDPath is the file that the SecretID comes in, "" if it does not.
func (x *exam) secretIDPath() string { return orElse(x.boot.SealedFile, x.boot.SecretIDFile) }

func (x *exam) secretIDPresent(context.Context) []Finding {
	if x.boot.Service == "" {
		return badConfig("SecretID")
	}
	found, err := bootstrap.Find(x.boot)
	path := x.secretIDPath()
	issue := "phoenix issue --service " + x.boot.Service
	switch {
	case err == nil:
		x.found = found
		return []Finding{ok("SecretID", "in %s", found.From)}
	case !errors.Is(err, bootstrap.ErrNoSecretID):
		return []Finding{problem(orElse(path, "SecretID"), err.Error(), "make it readable for this user, and let "+issue+" write it")}
	case path != "":
		return []Finding{problem("SecretID", err.Error()+": the service waits, unready", issue+" --out "+path)}
	}
	return []Finding{problem("SecretID", "there is none, and no file to wait for one: the service does not start",
		"name its file in VAULT_SECRET_ID_FILE, or make the folder /run/phoenix, and "+issue+" --out there")}
}

func (x *exam) secretIDInEnv(context.Context) []Finding {
	for _, name := range []string{bootstrap.EnvName(orElse(x.service.Service, "x"), "SECRET_ID"), "VAULT_SECRET_ID"} {
		if x.host.env(name) != "" {
			return []Finding{warning(name, "the SecretID is in the environment: /proc shows it for as long as the process lives, even once it is unset", "put it into a file, and name that in VAULT_SECRET_ID_FILE")}
		}
	}
	return []Finding{ok("environment", "holds no SecretID")}
}

// secretIDMode looks at the file, at the folder, where somebody could put
// another in its place, and at the key of a sealed file.
func (x *exam) secretIDMode(context.Context) []Finding {
	var list []Finding
	for _, file := range []string{x.boot.SecretIDFile, x.boot.IdentityFile} {
		if file != "" {
			list = append(list, x.modeOf(file)...)
		}
	}
	if list == nil {
		return []Finding{note("SecretID", "does not come in a file of its own")}
	}
	return list
}

func (x *exam) modeOf(file string) []Finding {
	var list []Finding
	me := x.host.UID()
	info, err := x.host.stat(file)
	if err == nil {
		mode := info.Mode().Perm()
		uid, isKnown := owner(info)
		if mode&0o077 != 0 {
			list = append(list, problem(file, fmt.Sprintf("others on this host may read it (%v)", mode), "chmod 0600 "+file))
		}
		if isKnown && uid != me && uid != 0 {
			list = append(list, problem(file, fmt.Sprintf("it belongs to user %d; this is user %d: who owns it can read and replace it", uid, me), fmt.Sprintf("chown %d %s", me, file)))
		}
	}
	dir := filepath.Dir(file)
	if info, err := x.host.stat(dir); err == nil {
		if info.Mode().Perm()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0 {
			list = append(list, problem(dir, fmt.Sprintf("others may write to the folder (%v), and so replace the file", info.Mode().Perm()), "chmod go-w "+dir))
		}
		if uid, isKnown := owner(info); isKnown && uid != me && me != 0 && info.Mode().Perm()&0o002 == 0 && file == x.boot.SecretIDFile {
			list = append(list, note(dir, "belongs to user %d: this user may not be able to remove the file once it is used", uid))
		}
	}
	if list == nil {
		list = []Finding{ok(file, "for this user alone")}
	}
	return list
}

func (x *exam) secretIDOnDisk(context.Context) []Finding {
	file := x.boot.SecretIDFile
	if file == "" {
		return []Finding{note("SecretID", "does not come in a file of its own")}
	}
	m, err := x.host.mountOf(x.host.realDir(file))
	switch {
	case err != nil:
		return []Finding{{Status: Skipped, Subject: file, Detail: "what it lies on cannot be found out: " + fileError(err)}}
	case !inMemory(m.kind):
		return []Finding{warning(file, fmt.Sprintf("it lies on %s (%s), where backups and images of the disk find it", m.kind, m.point), "put it into a tmpfs like /run/phoenix: tmpfs: in compose, RuntimeDirectory= in the unit")}
	}
	return []Finding{ok(file, "in memory (%s at %s)", m.kind, m.point)}
}

func (x *exam) secretIDWrapped(context.Context) []Finding {
	switch {
	case x.found.SecretID.IsZero():
		return []Finding{{Status: Skipped, Subject: "SecretID", Detail: "there is none"}}
	case vault.IsWrapping(x.found.SecretID):
		return []Finding{ok("SecretID", "is wrapped")}
	}
	return []Finding{warning("SecretID", "is not wrapped: nobody can tell whether it was read on the way", "issue it with phoenix issue, which wraps it, and set RequireWrapped")}
}

// secretIDWrapping looks up what the token wraps; that spends nothing.
func (x *exam) secretIDWrapping(ctx context.Context) []Finding {
	if x.found.SecretID.IsZero() || !vault.IsWrapping(x.found.SecretID) {
		return []Finding{{Status: Skipped, Subject: "wrapping", Detail: "there is no wrapped SecretID"}}
	}
	issue := "phoenix issue --service " + x.boot.Service
	wrap, err := x.client.LookupWrapping(ctx, x.found.SecretID)
	switch {
	case errors.Is(err, vault.ErrWrapInvalid):
		return []Finding{problem("wrapping", "it is used, expired or of another Vault: the service waits, unready",
			"if this service did not use it and it is younger than ten minutes, somebody else did: look for logins of this role in Vault's audit log. Then "+issue)}
	case err != nil:
		return unseen("wrapping", err)
	}
	want := vault.SecretIDPath(x.boot.Mount, x.boot.Role)
	left := wrap.TTL - wrap.Age
	switch {
	case wrap.CreationPath != want:
		return []Finding{problem("wrapping", "it wraps an answer of "+wrap.CreationPath+", not of "+want+": the service refuses it as tampered with", "find out who put it there, then "+issue)}
	case wrap.TTL > x.boot.MaxWrapTTL:
		return []Finding{problem("wrapping", fmt.Sprintf("it was wrapped for %s, at most %s is allowed: the service refuses it", span(wrap.TTL), span(x.boot.MaxWrapTTL)), issue+" with a shorter --ttl")}
	case left < time.Minute:
		return []Finding{warning("wrapping", "it ends in "+span(max(left, 0)), "start the service now, or "+issue)}
	}
	return []Finding{ok("wrapping", "made for %s, good for another %s", x.boot.Role, span(left))}
}
