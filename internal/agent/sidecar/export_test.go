package sidecar

// OwnerOf is for the tests.
var OwnerOf = ownerOf
