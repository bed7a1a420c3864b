package auditlog

// Authenticated is a login or the like by user, from a network address, that
// ended as outcome says. A failure is a warning.
func Authenticated(user, client string, outcome Outcome) Event {
	return Event{Category: Authentication, Action: "authenticate", Actor: Actor{User: user, Client: client}, Outcome: outcome, Severity: severityOf(outcome)}
}

// Authorized is a decision on whether somebody may do action to resource.
func Authorized(by Actor, action, resource string, allowed bool) Event {
	outcome := Success
	if !allowed {
		outcome = Blocked
	}
	return Event{Category: Authorization, Action: action, Resource: resource, Actor: by, Outcome: outcome, Severity: severityOf(outcome)}
}

// Accessed is somebody's reading of resource.
func Accessed(by Actor, resource string, outcome Outcome) Event {
	return Event{Category: DataAccess, Action: "read", Resource: resource, Actor: by, Outcome: outcome, Severity: severityOf(outcome)}
}

// Mutated is a change of resource: action says which, such as "employee.update".
func Mutated(by Actor, action, resource string, outcome Outcome) Event {
	return Event{Category: DataMutation, Action: action, Resource: resource, Actor: by, Outcome: outcome, Severity: severityOf(outcome)}
}

// Confirmed is a step of an action that waits for its user's consent: Pending
// when it was asked for, Success when it was given, Blocked when it was denied.
func Confirmed(by Actor, action, resource string, outcome Outcome) Event {
	return Event{Category: Confirmation, Action: action, Resource: resource, Actor: by, Outcome: outcome, Severity: Notice}
}

// Suspicious is something that an operator should look at.
func Suspicious(action, resource string, severity Severity) Event {
	return Event{Category: Security, Action: action, Resource: resource, Outcome: Blocked, Severity: severity}
}

func severityOf(outcome Outcome) Severity {
	if outcome == Failure || outcome == Blocked {
		return Warning
	}
	return Informational
}
