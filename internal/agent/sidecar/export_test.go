package sidecar

// OwnerOf is for the tests.
var OwnerOf = ownerOf

// Taken counts the requests that were taken without net/http, by where they came.
func (sc *Sidecar) Taken() (inbound, outbound uint64) {
	for _, f := range sc.inbound {
		inbound += f.srv.Taken()
	}
	for _, f := range sc.outbound {
		outbound += f.srv.Taken()
	}
	return inbound, outbound
}
