package audit

import "fmt"

// Fault is what is wrong with a chain.
type Fault string

// The faults.
const (
	// Altered: the record, or its hash, is not what it was.
	Altered Fault = "changed"
	// Missing: the record is not there, and later ones are.
	Missing Fault = "missing"
	// Swapped: the record is there, and stands in the wrong place.
	Swapped Fault = "out of place"
	// Truncated: the record and all after it are not there.
	Truncated Fault = "cut off"
	// Rewritten: the record is not the one that the cluster has, and the hashes from there on were made to match.
	Rewritten Fault = "rewritten"
	// Invented: the cluster has no such record.
	Invented Fault = "not the cluster's"
)

// BrokenError names the first record of a chain that is not as it should be.
type BrokenError struct {
	Sequence uint64
	What     Fault
}

func (e *BrokenError) Error() string { return fmt.Sprintf("audit record %d is %s", e.Sequence, e.What) }
