package provision

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// pkiItems returns what the estate wants of PKI, in the order of application:
// what certificates say about CRLs must be known before the first is signed.
func (v *view) pkiItems() []item {
	p := v.Estate.PKI
	if p == nil {
		return nil
	}
	items := []item{
		v.pkiMount(p.Root),
		v.pkiMount(p.Intermediate),
	}
	for _, mount := range []string{p.Root.Mount, p.Intermediate.Mount} {
		if p.URL != "" {
			items = append(items, v.pkiConfig(mount, "urls", p.urls(mount)))
		}
		items = append(items, v.pkiCRL(mount))
	}
	items = append(items, v.rootAuthority(), v.intermediateAuthority(), v.pkiConfig(p.Intermediate.Mount, "auto-tidy", tidy()))
	for _, r := range v.Estate.CertRoles() {
		items = append(items, v.pkiRole(r))
	}
	return items
}

func (v *view) pkiMount(a Authority) item {
	path := "sys/mounts/" + a.Mount
	tune := path + "/tune"
	return item{stage: StagePKI, kind: "pki mount", name: a.Mount, writes: []string{path, tune}, look: func(ctx context.Context) (Change, error) {
		m := mounted(v.mounts, a.Mount)
		config := map[string]any{"max_lease_ttl": seconds(a.TTL)}
		if m == nil {
			return Change{
				Action:   Create,
				Settings: []Setting{{Name: "max_lease_ttl", New: short(a.TTL)}},
				needs:    []need{{path, "update"}},
				do: func(ctx context.Context, _ *Change) error {
					return v.conn.write(ctx, path, map[string]any{"type": "pki", "description": marker(v.Estate.Owner), "config": config})
				},
			}, nil
		}
		if kind, _ := m["type"].(string); kind != "pki" {
			return Change{}, refuse("the mount %s is of type %s, not pki; give the estate's PKI another mount", a.Mount, kind)
		}
		have, _ := m["config"].(map[string]any)
		want := settings{"max_lease_ttl": a.TTL}
		return differs(Update, want.diff(have), []need{{tune, "update"}}, func(ctx context.Context, _ *Change) error {
			return v.conn.write(ctx, tune, config)
		}), nil
	}}
}

// urls are the places of a mount's CRLs and issuers: of each issuer its own,
// so that they stay right in a roll.
func (p *PKI) urls(mount string) settings {
	base := p.URL + "/v1/" + mount + "/issuer/{{issuer_id}}/"
	return settings{
		"enable_templating":       true,
		"issuing_certificates":    []string{base + "der"},
		"crl_distribution_points": []string{base + "crl/der"},
	}
}

// crl makes CRLs anew at an interval rather than on each revocation: else they
// would end when nobody revokes.
func (p *PKI) crl() settings {
	return settings{
		"disable":                   false,
		"auto_rebuild":              true,
		"auto_rebuild_grace_period": (p.CRLExpiry - p.CRLRebuild).String(),
		"expiry":                    p.CRLExpiry.String(),
	}
}

// tidy removes certificates a day after their end.
func tidy() settings {
	return settings{
		"enabled":            true,
		"interval_duration":  12 * time.Hour,
		"safety_buffer":      24 * time.Hour,
		"tidy_cert_store":    true,
		"tidy_revoked_certs": true,
	}
}

// pkiCRL is the configuration of a mount's CRLs. A CRL that is there already
// would be kept to its end, and so is made anew.
func (v *view) pkiCRL(mount string) item {
	it := v.pkiConfig(mount, "crl", v.Estate.PKI.crl())
	rotate := need{mount + "/crl/rotate", "read"}
	it.also = append(it.also, rotate)
	look := it.look
	it.look = func(ctx context.Context) (Change, error) {
		c, err := look(ctx)
		if do := c.do; c.Action == Update {
			c.needs = append(c.needs, rotate)
			c.do = func(ctx context.Context, c *Change) error {
				if err := do(ctx, c); err != nil {
					return err
				}
				all, err := v.conn.issuers(ctx, mount)
				if err == nil && len(all) > 0 {
					_, err = v.conn.read(ctx, rotate.path, nil)
				}
				return err
			}
		}
		return c, err
	}
	return it
}

func (v *view) pkiConfig(mount, what string, want settings) item {
	path := mount + "/config/" + what
	return item{stage: StagePKI, kind: "pki config", name: path, reads: []string{path}, writes: []string{path}, look: func(ctx context.Context) (Change, error) {
		action, have := Create, map[string]any(nil)
		if mounted(v.mounts, mount) != nil {
			var err error
			if have, err = v.conn.read(ctx, path, nil); err != nil {
				return Change{}, err
			}
			action = Update
		}
		return differs(action, want.diff(have), []need{{path, "update"}}, func(ctx context.Context, _ *Change) error {
			return v.conn.write(ctx, path, want.body())
		}), nil
	}}
}

func (v *view) rootAuthority() item {
	e := v.Estate
	mount := e.PKI.Root.Mount
	path := mount + "/root/generate/internal"
	return item{stage: StagePKI, kind: "root authority", name: mount, writes: []string{path}, look: func(ctx context.Context) (Change, error) {
		if mounted(v.mounts, mount) != nil {
			all, err := v.conn.issuers(ctx, mount)
			if err != nil {
				return Change{}, err
			}
			if have := roots(all); len(have) > 0 {
				return Change{Action: OK, Note: ending(have[len(have)-1])}, nil
			}
			if len(all) > 0 {
				return Change{}, refuse("the mount %s has issuers and none of them is a root with its key; give the estate's PKI another mount", mount)
			}
		}
		return Change{
			Action: Create, Settings: authoritySettings(e.PKI.Root), needs: []need{{path, "update"}},
			do: func(ctx context.Context, _ *Change) error { return v.conn.makeRoot(ctx, e, 1) },
		}, nil
	}}
}

func authoritySettings(a Authority) []Setting {
	return []Setting{{Name: "key", New: "EC P-256, made in Vault and never out of it"}, {Name: "ttl", New: short(a.TTL)}}
}

// ending says that an authority is about to end.
func ending(i pkiIssuer) string {
	life := i.cert.NotAfter.Sub(i.cert.NotBefore)
	left := time.Until(i.cert.NotAfter)
	if left > life/5 {
		return ""
	}
	return fmt.Sprintf("it ends at %s; roll it: phoenix certs roll", i.cert.NotAfter.UTC().Format(time.RFC3339))
}

func (v *view) intermediateAuthority() item {
	e := v.Estate
	mount, root := e.PKI.Intermediate.Mount, e.PKI.Root.Mount
	writes := []string{
		mount + "/intermediate/generate/internal", mount + "/intermediate/generate/existing",
		root + "/issuer/default/sign-intermediate", mount + "/intermediate/set-signed",
	}
	var needs []need
	for _, path := range writes {
		needs = append(needs, need{path, "update"})
	}
	keys := need{mount + "/keys", "list"}
	needs = append(needs, keys)
	return item{stage: StagePKI, kind: "intermediate authority", name: mount, writes: writes, also: []need{keys}, look: func(ctx context.Context) (Change, error) {
		if mounted(v.mounts, mount) != nil {
			all, err := v.conn.issuers(ctx, mount)
			if err != nil {
				return Change{}, err
			}
			if used := mainIssuer(all); used != nil {
				return v.checkIntermediate(ctx, *used)
			}
			if len(all) > 0 {
				return Change{}, refuse("the mount %s has issuers and no default one; choose it: vault write %s/config/issuers default=ISSUER", mount, mount)
			}
		}
		return Change{
			Action: Create, Settings: authoritySettings(e.PKI.Intermediate), needs: needs,
			do: func(ctx context.Context, _ *Change) error {
				all, err := v.conn.issuers(ctx, root)
				if err != nil {
					return err
				}
				have := roots(all)
				if len(have) == 0 {
					return fmt.Errorf("the mount %s has no root; apply the whole stage %s", root, StagePKI)
				}
				return v.conn.makeIntermediate(ctx, e, have[len(have)-1])
			},
		}, nil
	}}
}

// checkIntermediate refuses what one of our roots has not signed.
func (v *view) checkIntermediate(ctx context.Context, used pkiIssuer) (Change, error) {
	p := v.Estate.PKI
	if mounted(v.mounts, p.Root.Mount) != nil {
		all, err := v.conn.issuers(ctx, p.Root.Mount)
		if err != nil {
			return Change{}, err
		}
		if used.keyID != "" && slices.ContainsFunc(roots(all), used.below) {
			return Change{Action: OK, Note: ending(used)}, nil
		}
	}
	return Change{}, refuse("the default issuer of %s (%q) is not below the root in %s; give the estate's PKI other mounts", p.Intermediate.Mount, used.cert.Subject.CommonName, p.Root.Mount)
}

// settings is what the role should be like in Vault: exactly these names, and
// nothing that would widen them.
func (r CertRole) settings(p *PKI) settings {
	isUser := len(r.Users) > 0
	want := settings{
		"allowed_domains":                    r.DNS,
		"allow_bare_domains":                 !isUser,
		"allow_glob_domains":                 isUser,
		"allow_any_name":                     false,
		"allow_localhost":                    false, // it is a name like others
		"allow_subdomains":                   false,
		"allow_wildcard_certificates":        false,
		"allow_token_displayname":            false,
		"allowed_domains_template":           false,
		"allow_ip_sans":                      len(r.IPs) > 0,
		"allowed_uri_sans":                   r.URIs,
		"allowed_uri_sans_template":          false,
		"allowed_other_sans":                 []string{},
		"allowed_serial_numbers":             []string{},
		"allowed_user_ids":                   []string{},
		"basic_constraints_valid_for_non_ca": false,
		"client_flag":                        true,
		"server_flag":                        !isUser,
		"code_signing_flag":                  false,
		"email_protection_flag":              false,
		"enforce_hostnames":                  true,
		"ext_key_usage":                      []string{},
		"ext_key_usage_oids":                 []string{},
		"generate_lease":                     false,
		"issuer_ref":                         "default",
		"key_bits":                           256,
		"key_type":                           "ec",
		"key_usage":                          []string{"DigitalSignature"},
		"max_ttl":                            p.TTL,
		"no_store":                           false, // a roll waits for the last of them
		"not_before_duration":                30 * time.Second,
		"require_cn":                         true,
		"ttl":                                p.TTL,
	}
	if isUser {
		want["allowed_domains"] = r.Users
		want["allow_bare_domains"] = slices.ContainsFunc(r.Users, func(name string) bool { return !strings.HasSuffix(name, "*") })
		// For Vault a name with an underscore is no host name.
		want["enforce_hostnames"] = !slices.ContainsFunc(r.Users, func(name string) bool { return strings.Contains(name, "_") })
	}
	return want
}

func (v *view) pkiRole(r CertRole) item {
	p := v.Estate.PKI
	path := p.Intermediate.Mount + "/roles/" + r.Name
	return item{stage: StagePKI, kind: "pki role", name: p.Intermediate.Mount + "/" + r.Name, reads: []string{path}, writes: []string{path}, look: func(ctx context.Context) (Change, error) {
		want := r.settings(p)
		action, have := Create, map[string]any(nil)
		if mounted(v.mounts, p.Intermediate.Mount) != nil {
			var err error
			if have, err = v.conn.read(ctx, path, nil); err != nil {
				return Change{}, err
			}
			if have != nil {
				action = Update
			}
		}
		return differs(action, want.diff(have), []need{{path, "update"}}, func(ctx context.Context, _ *Change) error {
			return v.conn.write(ctx, path, want.body())
		}), nil
	}}
}

// pkiLeftovers are the roles of the owner's mount that the estate has no more.
// Mounts are never among them: with them an authority would be gone for good.
func (v *view) pkiLeftovers(ctx context.Context) ([]Change, error) {
	p := v.Estate.PKI
	if p == nil || !v.wants(StagePKI) {
		return nil, nil
	}
	mount := p.Intermediate.Mount
	description, _ := mounted(v.mounts, mount)["description"].(string)
	if markedBy(description) != v.Estate.Owner {
		return nil, nil
	}
	if err := v.learn(ctx, []string{mount + "/roles"}); err != nil {
		return nil, err
	}
	names, err := v.listed(ctx, mount+"/roles")
	if err != nil {
		return nil, err
	}
	wanted := namesOf(v.Estate.CertRoles(), func(r CertRole) string { return r.Name })
	var gone []Change
	for _, name := range names {
		if !slices.Contains(wanted, name) {
			gone = append(gone, v.gone(StagePKI, "pki role", mount+"/"+name, mount+"/roles/"+name))
		}
	}
	return gone, nil
}

// grantSign permits a service the certificates of its own names.
func (e *Estate) grantSign(rules map[string]rule, s Service) {
	for _, r := range e.CertRoles() {
		if r.Name == s.Name || r.Name == s.Name+"-db" && len(r.Users) > 0 {
			rules[e.PKI.SignPath(r.Name)] = can("create", "update")
		}
	}
}

// grantPKI permits the pipeline to see what a plan compares, and to have the
// certificates signed that it writes for those that do not boot by themselves.
func (e *Estate) grantPKI(rules map[string]rule) {
	p := e.PKI
	if p == nil {
		return
	}
	for _, mount := range []string{p.Root.Mount, p.Intermediate.Mount} {
		rules[mount+"/config/urls"] = can("read")
		rules[mount+"/config/crl"] = can("read")
	}
	rules[p.Intermediate.Mount+"/config/auto-tidy"] = can("read")
	rules[p.Intermediate.Mount+"/roles"] = can("list")
	rules[p.Intermediate.Mount+"/roles/+"] = can("read")
	for _, m := range p.Material {
		rules[p.SignPath(m.For)] = can("create", "update")
	}
}
