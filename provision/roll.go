package provision

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tamshai/phoenix/auditlog"
	"github.com/tamshai/phoenix/internal/vault"
	"github.com/tamshai/phoenix/internal/yamlfile"
)

// A RollPhase is a part of a roll, in which the estate gets a new root and a
// new intermediate.
type RollPhase string

// The phases, in order.
const (
	RollIdle    RollPhase = "idle"     // there is one root, and no roll under way
	RollAdd     RollPhase = "add"      // a new root and intermediate are made; peers come to trust them
	RollReissue RollPhase = "re-issue" // new certificates come from the new intermediate
	RollRemove  RollPhase = "remove"   // the old root and intermediate are deleted
)

// RollPhases returns those in which something is done.
func RollPhases() []RollPhase { return []RollPhase{RollAdd, RollReissue, RollRemove} }

// ParseRollPhase returns the phase of that name.
func ParseRollPhase(name string) (RollPhase, error) {
	if phase := RollPhase(name); slices.Contains(RollPhases(), phase) {
		return phase, nil
	}
	return "", fmt.Errorf("unknown phase %q%s", name, yamlfile.Suggest(name, namesOf(RollPhases(), func(p RollPhase) string { return string(p) })))
}

// A RollProbe looks at peers before something is done that they must be ready
// for, and returns those that are not, each with the reason.
type RollProbe func(ctx context.Context, look RollLook) (behind []string, err error)

// A RollLook is what a RollProbe looks for.
type RollLook struct {
	Phase RollPhase // RollReissue or RollRemove
	// Roots are new ones in RollReissue, all of which peers must trust; in
	// RollRemove old ones, to none of which they must show a chain.
	Roots []*x509.Certificate
	// Sign gives a certificate to ask peers with, of all the names of a service
	// or server and good for five minutes: from below the new root, or if it is
	// not to be new from the intermediate that signs at this time. Each is
	// recorded. Nil in RollRemove, and in LookRoll, which changes nothing.
	Sign func(ctx context.Context, name string, fresh bool) (*vault.Certificate, error)
}

// RollConfig is how to roll. Its zero value does all that can be done.
type RollConfig struct {
	Through RollPhase // the last phase to do; "" means RollRemove
	// Settle is how long peers have to read the new root, and where CRLs are
	// required that of the new intermediate, before a certificate depends on
	// them; 0 means 5 minutes, five times the interval at which sessions look
	// for roots and once that for CRLs, negative not at all.
	Settle time.Duration
	// Probe looks at peers besides what Vault knows of them; nil looks nowhere.
	Probe RollProbe
	// Progress is told of each step before it is made; nil: nobody is.
	Progress func(RollStep)
	// Audit records each step, before it is made and how it ended; what cannot
	// be recorded is not done. Nil records nothing.
	Audit    auditlog.Recorder
	Patience time.Duration    // as in PlanConfig
	Now      func() time.Time // the wall clock; nil means time.Now
}

const defaultSettle = 5 * time.Minute

// A RollStep is one thing that was done.
type RollStep struct {
	Phase RollPhase `json:"phase"`
	Text  string    `json:"text"` // "make the root phoenix-root-2 in pki-root"
}

// A RollAuthority is an authority as Vault has it.
type RollAuthority struct {
	Mount   string    `json:"mount"`
	Issuer  string    `json:"issuer"` // its ID
	Subject string    `json:"subject"`
	Serial  string    `json:"serial"` // "3a:5e:…"
	Ends    time.Time `json:"ends"`
	Issues  bool      `json:"issues"` // what is signed in this mount is signed by it
	Old     bool      `json:"old"`    // it goes in RollRemove
}

// A RollReport says where a roll stands.
type RollReport struct {
	// Phase is what comes next; RollIdle: nothing, the roll is over.
	Phase       RollPhase       `json:"phase"`
	Authorities []RollAuthority `json:"authorities"`
	Done        []RollStep      `json:"done"` // in this run
	// Waiting is why the phase cannot be done yet; none: it can.
	Waiting []string `json:"waiting"`
	// Until is when time alone will have ended the waiting; zero: that is not
	// known, or there is none.
	Until time.Time `json:"until,omitzero"`
}

// Roll gives the estate new authorities while traffic flows, or goes on with
// that: it begins a roll if none is under way.
//
//   - RollAdd makes a root beside the old one and an intermediate below it.
//     Peers that trust the self-signed issuers of the root's mount
//     (LIST pki-root/issuers, which Vault tells everybody) come to trust both.
//   - RollReissue, after Settle, makes the new intermediate the one that signs,
//     unless Probe names somebody. Services move over as they renew.
//   - RollRemove deletes the old root and intermediate with their keys. It is
//     not done while a certificate from the old intermediate is neither expired
//     nor revoked, while the old root has signed another authority that is in
//     use, or while Probe names somebody.
//
// All state is in Vault. Roll does what can be done and returns; a report whose
// Phase is not RollIdle says in Waiting what the next run waits for. A run that
// ended half-way (ErrStopped) is completed by the next. Two at once do no harm:
// no two issuers of a mount have the same name.
func Roll(ctx context.Context, client *vault.Client, estate *Estate, cfg RollConfig) (*RollReport, error) {
	r, err := newRoller(client, estate, cfg)
	if err != nil {
		return nil, err
	}
	done := []RollStep{}
	begun := false
	for {
		s, err := r.look(ctx)
		if err != nil {
			return nil, err
		}
		report := s.report()
		report.Done = done
		if s.phase == RollIdle {
			if begun {
				return report, nil
			}
			s.phase, s.starting = RollAdd, true
		}
		begun = true
		if slices.Index(RollPhases(), s.phase) > slices.Index(RollPhases(), r.cfg.Through) {
			return report, nil
		}
		if report.Waiting, report.Until, err = r.gate(ctx, s); err != nil || len(report.Waiting) > 0 {
			return report, err
		}
		step, do := s.next()
		if err := r.do(ctx, step, do); err != nil {
			return report, err
		}
		done = append(done, step)
	}
}

// LookRoll reports where a roll stands, and changes nothing. Its probe has
// nothing to ask peers with.
func LookRoll(ctx context.Context, client *vault.Client, estate *Estate, cfg RollConfig) (*RollReport, error) {
	r, err := newRoller(client, estate, cfg)
	if err != nil {
		return nil, err
	}
	s, err := r.look(ctx)
	if err != nil {
		return nil, err
	}
	report := s.report()
	r.looking = true
	report.Waiting, report.Until, err = r.gate(ctx, s)
	return report, err
}

type roller struct {
	estate  *Estate
	pki     *PKI
	conn    *conn
	cfg     RollConfig
	looking bool // and nothing else
}

func newRoller(client *vault.Client, estate *Estate, cfg RollConfig) (*roller, error) {
	if estate.PKI == nil {
		return nil, refuse("%s has no section pki, so that there is nothing to roll", estate.File)
	}
	if cfg.Audit == nil {
		cfg.Audit = auditlog.Slog(nil)
	}
	if cfg.Through == "" {
		cfg.Through = RollRemove
	}
	if cfg.Settle == 0 {
		cfg.Settle = defaultSettle
	}
	if cfg.Patience == 0 {
		cfg.Patience = defaultPatience
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &roller{estate: estate, pki: estate.PKI, conn: &conn{client: client, patience: cfg.Patience}, cfg: cfg}, nil
}

func (r *roller) do(ctx context.Context, step RollStep, do func(context.Context) error) error {
	if r.cfg.Progress != nil {
		r.cfg.Progress(step)
	}
	event := auditlog.Event{
		Service: "phoenix", Environment: r.estate.Environment, Category: auditlog.System, Severity: auditlog.Notice,
		Action: "certs.roll." + string(step.Phase), Resource: step.Text, Outcome: auditlog.Pending,
		Attributes: map[string]string{"owner": r.estate.Owner, "vault": r.conn.client.Addr()},
	}
	if err := r.cfg.Audit.Append(ctx, event); err != nil {
		return fmt.Errorf("provision: %s: it cannot be recorded, so it is not done: %w", step.Text, err)
	}
	err := do(ctx)
	event.Outcome, event.Attributes = auditlog.Success, maps.Clone(event.Attributes)
	if err != nil {
		event.Outcome, event.Severity = auditlog.Failure, auditlog.Error
		event.Attributes["error"] = err.Error()
	}
	if auditErr := r.cfg.Audit.Append(context.WithoutCancel(ctx), event); auditErr != nil {
		err = errors.Join(err, fmt.Errorf("what was done cannot be recorded: %w", auditErr))
	}
	if err != nil {
		return fmt.Errorf("provision: %s: %w (%w)", step.Text, err, ErrStopped)
	}
	return nil
}

// rollState is what Vault says about a roll.
type rollState struct {
	*roller
	phase    RollPhase
	inRoot   []pkiIssuer // the issuers of the root's mount
	inPKI    []pkiIssuer // and of the intermediate's
	target   pkiIssuer   // the newest root
	old      []pkiIssuer // the other roots
	oldCAs   []pkiIssuer // intermediates below those
	copies   []pkiIssuer // the old roots' certificates in the intermediate's mount
	oldKeys  []mountKey  // keys that were theirs
	starting bool        // a new root is to be made
}

// mountKey is a key and where it is.
type mountKey struct{ mount, id, name string }

// look finds out where the roll stands.
func (r *roller) look(ctx context.Context) (*rollState, error) {
	s := &rollState{roller: r}
	var err error
	if s.inRoot, err = r.conn.issuers(ctx, r.pki.Root.Mount); err != nil {
		return nil, err
	}
	if s.inPKI, err = r.conn.issuers(ctx, r.pki.Intermediate.Mount); err != nil {
		return nil, err
	}
	have := roots(s.inRoot)
	if len(have) == 0 {
		return nil, refuse("there is no root in %s to roll; make it first: phoenix provision apply -f %s", r.pki.Root.Mount, r.estate.File)
	}
	s.target, s.old = have[len(have)-1], have[:len(have)-1]
	for _, i := range s.inPKI {
		switch {
		case slices.ContainsFunc(s.old, func(root pkiIssuer) bool { return root.cert.Equal(i.cert) }):
			s.copies = append(s.copies, i)
		case slices.ContainsFunc(s.old, i.below):
			s.oldCAs = append(s.oldCAs, i)
		}
	}
	if err := s.lookAtKeys(ctx); err != nil {
		return nil, err
	}
	issuing := mainIssuer(s.inPKI)
	switch {
	case len(under(s.inPKI, s.target)) == 0:
		s.phase = RollAdd
	case issuing == nil || !issuing.below(s.target) || !s.target.isMain:
		s.phase = RollReissue
	case len(s.old)+len(s.oldCAs)+len(s.copies)+len(s.oldKeys) > 0:
		s.phase = RollRemove
	default:
		s.phase = RollIdle
	}
	return s, nil
}

// lookAtKeys finds the keys of authorities that are gone.
func (s *rollState) lookAtKeys(ctx context.Context) error {
	for mount, have := range map[string][]pkiIssuer{s.pki.Root.Mount: s.inRoot, s.pki.Intermediate.Mount: s.inPKI} {
		spare, err := s.conn.spareKeys(ctx, mount, have)
		if err != nil {
			return err
		}
		for _, k := range spare {
			ours := strings.HasPrefix(k.name, rootName) || strings.HasPrefix(k.name, intermediateName)
			if ours && k.name != intermediateKey(s.target) {
				s.oldKeys = append(s.oldKeys, k)
			}
		}
	}
	return nil
}

func (s *rollState) report() *RollReport {
	report := &RollReport{Phase: s.phase, Done: []RollStep{}, Authorities: []RollAuthority{}, Waiting: []string{}}
	add := func(mount string, i pkiIssuer, old bool) {
		report.Authorities = append(report.Authorities, RollAuthority{
			Mount: mount, Issuer: i.id, Subject: i.cert.Subject.CommonName, Serial: serial(i.cert), Ends: i.cert.NotAfter.UTC(), Issues: i.isMain, Old: old,
		})
	}
	is := func(list []pkiIssuer, i pkiIssuer) bool {
		return slices.ContainsFunc(list, func(j pkiIssuer) bool { return i.id == j.id })
	}
	for _, i := range s.inRoot {
		add(s.pki.Root.Mount, i, is(s.old, i))
	}
	for _, i := range s.inPKI {
		if i.keyID != "" {
			add(s.pki.Intermediate.Mount, i, is(s.oldCAs, i))
		}
	}
	return report
}

// next is what is to be done, which the gate has let through.
func (s *rollState) next() (RollStep, func(context.Context) error) {
	root, pki := s.pki.Root.Mount, s.pki.Intermediate.Mount
	step := func(format string, args ...any) RollStep { return RollStep{s.phase, fmt.Sprintf(format, args...)} }
	remove := func(what, path string) (RollStep, func(context.Context) error) {
		return step("delete %s", what), func(ctx context.Context) error { return s.conn.remove(ctx, path) }
	}
	choose := func(mount string, i pkiIssuer) (RollStep, func(context.Context) error) {
		return step("let %q sign in %s", i.cert.Subject.CommonName, mount), func(ctx context.Context) error {
			return s.conn.write(ctx, mount+"/config/issuers", map[string]any{"default": i.id})
		}
	}
	switch s.phase {
	case RollAdd:
		if s.starting {
			number := s.target.number() + 1
			return step("make the root %s%d in %s", rootName, number, root), func(ctx context.Context) error { return s.conn.makeRoot(ctx, s.estate, number) }
		}
		return step("make an intermediate below %q in %s", s.target.cert.Subject.CommonName, pki), func(ctx context.Context) error {
			return s.conn.makeIntermediate(ctx, s.estate, s.target)
		}
	case RollReissue:
		if issuing := mainIssuer(s.inPKI); issuing == nil || !issuing.below(s.target) {
			below := under(s.inPKI, s.target)
			return choose(pki, below[len(below)-1])
		}
		return choose(root, s.target)
	}
	switch {
	case len(s.oldCAs) > 0:
		ca := s.oldCAs[0]
		what := fmt.Sprintf("the intermediate %q of %s", ca.cert.Subject.CommonName, pki)
		return step("revoke and delete %s", what), func(ctx context.Context) error {
			// Its root's mount must know that it is not in use any more.
			if s.cfg.Now().After(ca.cert.NotAfter) {
				return s.conn.remove(ctx, pki+"/issuer/"+ca.id)
			}
			if err := s.conn.write(ctx, root+"/revoke", map[string]any{"serial_number": serial(ca.cert)}); err != nil {
				return err
			}
			return s.conn.remove(ctx, pki+"/issuer/"+ca.id)
		}
	case len(s.copies) > 0:
		return remove(fmt.Sprintf("the root %q from %s", s.copies[0].cert.Subject.CommonName, pki), pki+"/issuer/"+s.copies[0].id)
	case len(s.old) > 0:
		return remove(fmt.Sprintf("the root %q of %s", s.old[0].cert.Subject.CommonName, root), root+"/issuer/"+s.old[0].id)
	}
	k := s.oldKeys[0]
	return remove(fmt.Sprintf("the key %s of %s", k.name, k.mount), k.mount+"/key/"+k.id)
}
