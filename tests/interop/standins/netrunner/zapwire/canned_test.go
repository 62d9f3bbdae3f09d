package zapwire

import (
	"context"

	"github.com/luxfi/netrunner/zapwire/types"
)

// canned is a Backend that gives one answer to everything.
type canned struct {
	answer   any // of the type that the method called returns; otherwise it panics, as with panics
	err      error
	panics   any
	requests chan any // what came, where a test wants to know
}

func give[A any](c *canned, request any) (A, error) {
	if c.requests != nil {
		c.requests <- request
	}
	if c.panics != nil {
		panic(c.panics)
	}
	if c.err != nil {
		var none A
		return none, c.err
	}
	return c.answer.(A), nil
}

func (c *canned) Ping(context.Context) (*types.PingResponse, error) {
	return give[*types.PingResponse](c, nil)
}

func (c *canned) RPCVersion(context.Context) (*types.RPCVersionResponse, error) {
	return give[*types.RPCVersionResponse](c, nil)
}

func (c *canned) Health(context.Context) (*types.HealthResponse, error) {
	return give[*types.HealthResponse](c, nil)
}

func (c *canned) URIs(context.Context) (*types.URIsResponse, error) {
	return give[*types.URIsResponse](c, nil)
}

func (c *canned) Status(context.Context) (*types.StatusResponse, error) {
	return give[*types.StatusResponse](c, nil)
}

func (c *canned) Stop(context.Context) (*types.StopResponse, error) {
	return give[*types.StopResponse](c, nil)
}

func (c *canned) WaitForHealthy(context.Context) (*types.WaitForHealthyResponse, error) {
	return give[*types.WaitForHealthyResponse](c, nil)
}

func (c *canned) AddNode(_ context.Context, r *types.AddNodeRequest) (*types.AddNodeResponse, error) {
	return give[*types.AddNodeResponse](c, r)
}

func (c *canned) RemoveNode(_ context.Context, r *types.RemoveNodeRequest) (*types.RemoveNodeResponse, error) {
	return give[*types.RemoveNodeResponse](c, r)
}

func (c *canned) RestartNode(_ context.Context, r *types.RestartNodeRequest) (*types.RestartNodeResponse, error) {
	return give[*types.RestartNodeResponse](c, r)
}

func (c *canned) PauseNode(_ context.Context, r *types.PauseNodeRequest) (*types.PauseNodeResponse, error) {
	return give[*types.PauseNodeResponse](c, r)
}

func (c *canned) ResumeNode(_ context.Context, r *types.ResumeNodeRequest) (*types.ResumeNodeResponse, error) {
	return give[*types.ResumeNodeResponse](c, r)
}

func (c *canned) AttachPeer(_ context.Context, r *types.AttachPeerRequest) (*types.AttachPeerResponse, error) {
	return give[*types.AttachPeerResponse](c, r)
}

func (c *canned) SendOutboundMessage(_ context.Context, r *types.SendOutboundMessageRequest) (*types.SendOutboundMessageResponse, error) {
	return give[*types.SendOutboundMessageResponse](c, r)
}
