package provision

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// IssuerStatus is how the resident issuer is doing.
type IssuerStatus struct {
	Reason error // why nothing can be issued at all; nil: it can
	Spares []SpareStatus
}

// SpareStatus is how one service is doing.
type SpareStatus struct {
	Service string
	File    string
	Ready   bool      // a spare lies there that is good, and nothing is wrong, as far as is known
	Expires time.Time // that spare's end
	Alarm   bool      // the service has consumed too many of late
	Reason  string    // why not, if it is not ready
}

// Status is how the issuer is doing. It may be called from any goroutine.
func (i *Issuer) Status() IssuerStatus {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.status
}

func (i *Issuer) publish(reason error) {
	st := IssuerStatus{Reason: reason}
	for _, s := range i.spares {
		one := SpareStatus{Service: s.service.Name, File: s.file.path, Alarm: s.alarmed}
		switch h := s.held; {
		case s.waits.said != "":
			one.Reason = s.waits.said
		case h != nil && !h.spent && time.Now().Before(h.expires):
			one.Ready, one.Expires = true, h.expires
		case s.refused:
			one.Reason = "it has consumed too many; the next comes when its time is up"
		case h != nil:
			one.Reason = "what lies there was used, or has expired"
		default:
			one.Reason = "none was issued yet"
		}
		st.Spares = append(st.Spares, one)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.status = st
}

// Err says what is wrong; nil means that every service has its spare, that none
// is in alarm, and that more can be issued.
func (s IssuerStatus) Err() error {
	var all []error
	if s.Reason != nil {
		all = append(all, fmt.Errorf("provision: nothing can be issued: %w", s.Reason))
	}
	for _, one := range s.Spares {
		switch {
		case one.Alarm:
			all = append(all, fmt.Errorf("provision: service %s consumes too many SecretIDs", one.Service))
		case !one.Ready:
			all = append(all, fmt.Errorf("provision: service %s has no spare: %s", one.Service, one.Reason))
		}
	}
	return errors.Join(all...)
}

// String is the status in one line.
func (s IssuerStatus) String() string {
	ready, alarms := 0, []string(nil)
	for _, one := range s.Spares {
		if one.Ready {
			ready++
		}
		if one.Alarm {
			alarms = append(alarms, one.Service)
		}
	}
	text := fmt.Sprintf("%d of %d services have a spare", ready, len(s.Spares))
	if len(alarms) > 0 {
		text = "ALARM, too many consumed: " + strings.Join(alarms, ", ") + "; " + text
	}
	if s.Reason != nil {
		text += "; nothing can be issued: " + s.Reason.Error()
	}
	return text
}
