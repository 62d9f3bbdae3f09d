package main

import (
	"context"

	"github.com/luxfi/netrunner/zapwire"
	"github.com/luxfi/netrunner/zapwire/types"
)

// journal is a Backend that prints every request before it is served.
type journal struct {
	zapwire.Backend
	out *lines
}

func (j *journal) note(rpc string, request any) error {
	return j.out.print(struct {
		RPC     string `json:"rpc"`
		Request any    `json:"request"`
	}{rpc, request})
}

// noted serves a request once it is printed.
func noted[A, R any](ctx context.Context, j *journal, rpc string, request R, serve func(context.Context, R) (A, error)) (A, error) {
	if err := j.note(rpc, request); err != nil {
		var none A
		return none, err
	}
	return serve(ctx, request)
}

// notedEmpty is noted for an RPC whose request is empty.
func notedEmpty[A any](ctx context.Context, j *journal, rpc string, serve func(context.Context) (A, error)) (A, error) {
	return noted(ctx, j, rpc, struct{}{}, func(ctx context.Context, _ struct{}) (A, error) { return serve(ctx) })
}

func (j *journal) Ping(ctx context.Context) (*types.PingResponse, error) {
	return notedEmpty(ctx, j, "Ping", j.Backend.Ping)
}

func (j *journal) RPCVersion(ctx context.Context) (*types.RPCVersionResponse, error) {
	return notedEmpty(ctx, j, "RPCVersion", j.Backend.RPCVersion)
}

func (j *journal) Health(ctx context.Context) (*types.HealthResponse, error) {
	return notedEmpty(ctx, j, "Health", j.Backend.Health)
}

func (j *journal) URIs(ctx context.Context) (*types.URIsResponse, error) {
	return notedEmpty(ctx, j, "URIs", j.Backend.URIs)
}

func (j *journal) Status(ctx context.Context) (*types.StatusResponse, error) {
	return notedEmpty(ctx, j, "Status", j.Backend.Status)
}

func (j *journal) Stop(ctx context.Context) (*types.StopResponse, error) {
	return notedEmpty(ctx, j, "Stop", j.Backend.Stop)
}

func (j *journal) WaitForHealthy(ctx context.Context) (*types.WaitForHealthyResponse, error) {
	return notedEmpty(ctx, j, "WaitForHealthy", j.Backend.WaitForHealthy)
}

func (j *journal) AddNode(ctx context.Context, request *types.AddNodeRequest) (*types.AddNodeResponse, error) {
	return noted(ctx, j, "AddNode", request, j.Backend.AddNode)
}

func (j *journal) RemoveNode(ctx context.Context, request *types.RemoveNodeRequest) (*types.RemoveNodeResponse, error) {
	return noted(ctx, j, "RemoveNode", request, j.Backend.RemoveNode)
}

func (j *journal) RestartNode(ctx context.Context, request *types.RestartNodeRequest) (*types.RestartNodeResponse, error) {
	return noted(ctx, j, "RestartNode", request, j.Backend.RestartNode)
}

func (j *journal) PauseNode(ctx context.Context, request *types.PauseNodeRequest) (*types.PauseNodeResponse, error) {
	return noted(ctx, j, "PauseNode", request, j.Backend.PauseNode)
}

func (j *journal) ResumeNode(ctx context.Context, request *types.ResumeNodeRequest) (*types.ResumeNodeResponse, error) {
	return noted(ctx, j, "ResumeNode", request, j.Backend.ResumeNode)
}

func (j *journal) AttachPeer(ctx context.Context, request *types.AttachPeerRequest) (*types.AttachPeerResponse, error) {
	return noted(ctx, j, "AttachPeer", request, j.Backend.AttachPeer)
}

func (j *journal) SendOutboundMessage(ctx context.Context, request *types.SendOutboundMessageRequest) (*types.SendOutboundMessageResponse, error) {
	return noted(ctx, j, "SendOutboundMessage", request, j.Backend.SendOutboundMessage)
}
