package main

const (
	// ownFiles are the descriptors that a node needs besides those of connections: stores, listeners, its own connections
	// to others, and some to spare.
	ownFiles = 64
	// plentyOfFiles is where the node's own bounds on connections hold without a thought.
	plentyOfFiles = 4096
)

// maxConns gives the bound on callers' connections that the limit on open files leaves room for, and that limit; 0
// for the node's own bound. Of five connections, one may come to the Raft port.
func maxConns() (conns int, files uint64) {
	files, known := fileLimit()
	if !known || files >= plentyOfFiles {
		return 0, files
	}
	return max(16, (int(files)-ownFiles)*4/5), files
}
