package zapwire

import (
	"context"
	"errors"
	"fmt"

	"github.com/luxfi/api/zap"
	"github.com/luxfi/netrunner/zapwire/types"
)

const answerCapacity = 1 << 10

var errNoSubOpcode = errors.New("zapwire: missing sub-opcode byte")

// rpc decodes a request, asks the Backend and encodes its answer.
type rpc func(ctx context.Context, request []byte) ([]byte, error)

type handler struct {
	opcodes    map[zap.MessageType]rpc
	subOpcodes map[SubOpcode]rpc
}

func newHandler(be Backend) *handler {
	h := &handler{
		subOpcodes: map[SubOpcode]rpc{
			SubHealth:              without(be.Health),
			SubWaitForHealthy:      without(be.WaitForHealthy),
			SubURIs:                without(be.URIs),
			SubStatus:              without(be.Status),
			SubAddNode:             with(be.AddNode),
			SubRemoveNode:          with(be.RemoveNode),
			SubRestartNode:         with(be.RestartNode),
			SubPauseNode:           with(be.PauseNode),
			SubResumeNode:          with(be.ResumeNode),
			SubAttachPeer:          with(be.AttachPeer),
			SubSendOutboundMessage: with(be.SendOutboundMessage),
		},
	}
	h.opcodes = map[zap.MessageType]rpc{
		OpPing:       without(be.Ping),
		OpRPCVersion: without(be.RPCVersion),
		OpStart:      h.start,
		OpStop:       without(be.Stop),
	}
	return h
}

// Handle implements zap.Handler.
func (h *handler) Handle(ctx context.Context, kind zap.MessageType, payload []byte) (zap.MessageType, []byte, error) {
	call, known := h.opcodes[kind]
	if !known {
		return 0, nil, fmt.Errorf("zapwire: unknown opcode 0x%02x", uint8(kind))
	}
	answer, err := call(ctx, payload)
	return kind | zap.MsgResponseFlag, answer, err
}

func (h *handler) start(ctx context.Context, payload []byte) ([]byte, error) {
	if len(payload) == 0 {
		return nil, errNoSubOpcode
	}
	call, known := h.subOpcodes[SubOpcode(payload[0])]
	if !known {
		return nil, fmt.Errorf("zapwire: unknown SubOp 0x%02x for OpStart", payload[0])
	}
	return call(ctx, payload[1:])
}

// without is an RPC whose request is empty; a newer peer's may not be.
func without[A types.Encoder](method func(context.Context) (A, error)) rpc {
	return func(ctx context.Context, _ []byte) ([]byte, error) {
		return encoded(method(ctx))
	}
}

func with[T any, A types.Encoder, R interface {
	*T
	types.Decoder
}](method func(context.Context, R) (A, error)) rpc {
	return func(ctx context.Context, payload []byte) ([]byte, error) {
		request := R(new(T))
		if err := request.Decode(zap.NewReader(payload)); err != nil {
			return nil, err
		}
		return encoded(method(ctx, request))
	}
}

func encoded[A types.Encoder](answer A, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	b := zap.NewBuffer(answerCapacity)
	answer.Encode(b)
	return b.Bytes(), nil
}
