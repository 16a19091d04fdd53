// Package boltstore keeps one member's Raft log, term and vote in a bbolt file. It is there because
// raft-boltdb, on which it builds, takes the disk at its word: bbolt checks its two meta pages and nothing
// else, so a flipped bit elsewhere comes back as a different entry, a missing page as a shorter log, and a
// damaged tree as a panic in a goroutine that nobody can recover. A member that acts on any of these can
// undo what the quorum has acknowledged. Here, what comes out is what went in, or an error.
//
// # How
//
//   - Each entry is stored in an envelope with its index, term, type, data, extensions and time under one
//     checksum (CRC-64/ECMA, as in raft's own snapshot files). It guards against faults, not against a foe:
//     who can write the file can compute a checksum, and the keys in it are sealed with authentication.
//     64 bits, as one wrong acceptance lets members diverge and the cost beside an fsync cannot be seen;
//     a cryptographic hash would cost more and promise nothing further.
//   - The last index is kept in a record of its own, the tail, written in the same transaction as the entries:
//     a log that has lost its end is noticed.
//   - Term and vote share one checksummed record, which is read once, when the store is opened. A lost record
//     is damage. Left to itself, bbolt would say "not found", raft would take it for a member that never voted,
//     and the member could vote twice.
//   - The file is surveyed before bbolt sees it: both meta pages, every page that can be reached, every key, then
//     every checksum. What is damaged, foreign or of a newer format is refused before a byte of it is changed.
//     Panics and memory faults (a mapped page that cannot be read) become errors.
//   - A new file is made under another name and renamed when it is whole. A file that exists and is not whole is
//     therefore damage, never a start that was cut short.
//
// A write cut short by a crash or a power loss is undone by bbolt's order of writing: the meta page goes last, and
// the one before it stays valid. A meta page that is itself invalid is refused, although bbolt would go back to
// the other one: its 80 bytes lie in one sector, which disks write whole, so it is damage, and going back would
// lose a write that was acknowledged.
//
// What stays beyond it: a disk that reports a page as written and drops it whole, with an older version of the
// same page in its place. Raft's promises rest on disks that do what fsync says.
//
// # Errors, and what raft 1.8.0 makes of them
//
// It panics where the term cannot be saved, and where a committed entry, or one that NewRaft looks through for
// configurations, cannot be read. It grants no vote that cannot be saved. A leader that cannot append steps down, a
// follower refuses, and both live on. raft tells a key that was never set by the error's text, "not found".
//
// After a failed write the store takes no more: the kernel may have dropped the pages that it could not
// write and report the next fsync as done. Options.OnHang then ends the node, as it does for a hanging
// disk and for damage found while running.
//
// # Metrics
//
// raft-boltdb reports to the process-wide sink of armon/go-metrics, under names of its own and as summaries of the
// last seconds. The one number that matters, how long a durable write takes, is simpler to measure here, as a
// Prometheus histogram, than to bridge.
package boltstore
