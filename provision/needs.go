package provision

// A Need is a capability that a token must have at a path to serve a purpose.
type Need struct{ Purpose, Path, Capability string }

// What an operator's or a pipeline's token is for.
const (
	ToPlan  = "provision plan"
	ToApply = "provision apply"
	ToIssue = "issue"
)

// Needs lists what a token must be able to do for each purpose, on a Vault
// that has nothing of the estate yet.
func (e *Estate) Needs() []Need {
	var needs []Need
	add := func(purpose, path string, capabilities ...string) {
		for _, c := range capabilities {
			needs = append(needs, Need{purpose, path, c})
		}
	}
	add(ToPlan, "sys/auth", "read")
	add(ToPlan, "sys/mounts", "read")
	for _, it := range (&view{Plan: &Plan{Estate: e}}).items() {
		for _, path := range it.reads {
			add(ToPlan, path, "read")
		}
		for _, n := range it.also {
			add(ToApply, n.path, n.capability)
		}
		for _, path := range it.writes {
			switch it.kind {
			case "auth mount":
				add(ToApply, path, "update", "sudo")
			case "role", "jwt role", "secret", "database connection", "database role", "static role", "signing key":
				add(ToApply, path, "create", "update")
			default:
				add(ToApply, path, "update")
			}
		}
	}
	for _, s := range e.Services {
		role := e.rolePath(s.Name)
		add(ToIssue, role+"/role-id", "read")
		add(ToIssue, role+"/secret-id", "update")
		add(ToIssue, role+"/secret-id-accessor/destroy", "update")
	}
	return needs
}
