package rpc

// Procedures are the paths of all RPCs.
var Procedures = procedures
