package rpc

import (
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	peerv1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/peer/v1"
	"github.com/keyquorum/keyquorum/rpc/gen/keyquorum/peer/v1/peerv1connect"
	v1 "github.com/keyquorum/keyquorum/rpc/gen/keyquorum/v1"
)

// methods gives every RPC there is.
func methods() []protoreflect.MethodDescriptor {
	var all []protoreflect.MethodDescriptor
	for _, file := range []protoreflect.FileDescriptor{
		v1.File_keyquorum_v1_token_proto, v1.File_keyquorum_v1_key_proto, v1.File_keyquorum_v1_cluster_proto,
		v1.File_keyquorum_v1_access_proto, v1.File_keyquorum_v1_audit_proto, peerv1.File_keyquorum_peer_v1_peer_proto,
	} {
		for s := range file.Services().Len() {
			service := file.Services().Get(s)
			for m := range service.Methods().Len() {
				all = append(all, service.Methods().Get(m))
			}
		}
	}
	return all
}

// procedures gives the paths that the RPCs are served at.
func procedures() []string {
	var all []string
	for _, m := range methods() {
		all = append(all, procedureOf(m))
	}
	return all
}

// streaming has the procedures with a stream of answers.
var streaming = func() map[string]bool {
	streams := make(map[string]bool)
	for _, m := range methods() {
		streams[procedureOf(m)] = m.IsStreamingServer()
	}
	return streams
}()

func procedureOf(m protoreflect.MethodDescriptor) string {
	return "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
}

// isPeer tells what the nodes of a cluster ask of each other.
func isPeer(procedure string) bool {
	return strings.HasPrefix(procedure, "/"+peerv1connect.PeerServiceName+"/")
}

// reading has the procedures that their protos declare to change nothing.
var reading = func() map[string]bool {
	reads := make(map[string]bool)
	for _, m := range methods() {
		options, ok := m.Options().(*descriptorpb.MethodOptions)
		if ok && options.GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS {
			reads[procedureOf(m)] = true
		}
	}
	return reads
}()
