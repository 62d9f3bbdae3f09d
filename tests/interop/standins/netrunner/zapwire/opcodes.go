// Package zapwire stands in for github.com/luxfi/netrunner/zapwire: netrunner's control protocol over
// plain ZAP.
package zapwire

import "github.com/luxfi/api/zap"

// ProtocolVersion is what RPCVersion answers.
const ProtocolVersion uint32 = 1

// The opcodes. A request of OpStart begins with a SubOpcode.
const (
	OpPing       zap.MessageType = 60
	OpRPCVersion zap.MessageType = 61
	OpStart      zap.MessageType = 62
	OpStop       zap.MessageType = 63
)

// SubOpcode is an RPC of OpStart.
type SubOpcode uint8

// The sub-opcodes. SubStreamStatus is reserved: nothing implements it.
const (
	SubHealth         SubOpcode = 1
	SubWaitForHealthy SubOpcode = 2
	SubURIs           SubOpcode = 3
	SubStatus         SubOpcode = 4
	SubStreamStatus   SubOpcode = 5

	SubAddNode     SubOpcode = 20
	SubRemoveNode  SubOpcode = 21
	SubRestartNode SubOpcode = 22
	SubPauseNode   SubOpcode = 23
	SubResumeNode  SubOpcode = 24

	SubAttachPeer          SubOpcode = 30
	SubSendOutboundMessage SubOpcode = 31
)
