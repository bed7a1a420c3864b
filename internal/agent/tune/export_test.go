package tune

// SidecarWith is Sidecar with another nap.
var SidecarWith = sidecar
