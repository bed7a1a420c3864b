// Package auditlog records who did what, so that nobody can change it unseen.
//
// An [Event] is one thing that happened. A [Recorder] keeps events; every room
// of Phoenix that takes decisions takes a Recorder and fails closed when it
// cannot record one. [Slog] is the recorder to start with: it writes events to
// a *slog.Logger.
//
// [Open] gives a [Log], the recorder for production:
//
//   - [Log.Append] returns when the event is on stable storage. Records stand in
//     segments, each with a CRC and a hash that chains it to the one before.
//   - [Log.Attach] has checkpoints signed by a [Signer]: statements over the
//     Merkle tree (RFC 6962) of a segment, each with the hash of the last.
//   - A checkpoint is then put to an [Anchor], a place where it can be written
//     once. From there on not even root of this host and holder of the key can
//     change what it covers.
//   - A [Sink] gets the events. Each has a cursor of its own; what it refuses
//     becomes a dead letter, which [Redeliver] delivers again. [Ship] delivers a
//     log that another process writes.
//
// [Read] and [Follow] read a log, [Inspect] says how it is doing, [Verify]
// finds what was done to it, and [Prove] proves to others that an event is in it.
//
// A directory is one log, and its life is an epoch. A host that is wiped begins
// another epoch, whose first checkpoint names the last anchored one before.
//
// An event names secrets by their references and accessors and never holds a
// secret value; [Config] has a scrubber for when one gets there, and a [Hasher]
// for personal data.
package auditlog
