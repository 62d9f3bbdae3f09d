package zapwire

import (
	"context"

	"github.com/luxfi/netrunner/zapwire/types"
)

// Ping returns the server's process id.
func (c *Client) Ping(ctx context.Context) (*types.PingResponse, error) {
	return call(ctx, c, OpPing, nil, new(types.PingResponse))
}

// RPCVersion returns the version of the protocol.
func (c *Client) RPCVersion(ctx context.Context) (*types.RPCVersionResponse, error) {
	return call(ctx, c, OpRPCVersion, nil, new(types.RPCVersionResponse))
}

// Stop stops the cluster and returns its last state.
func (c *Client) Stop(ctx context.Context) (*types.StopResponse, error) {
	return call(ctx, c, OpStop, nil, new(types.StopResponse))
}

// Health returns the cluster and whether it is healthy.
func (c *Client) Health(ctx context.Context) (*types.HealthResponse, error) {
	return start(ctx, c, SubHealth, nil, new(types.HealthResponse))
}

// WaitForHealthy waits until every node is healthy.
func (c *Client) WaitForHealthy(ctx context.Context) (*types.WaitForHealthyResponse, error) {
	return start(ctx, c, SubWaitForHealthy, nil, new(types.WaitForHealthyResponse))
}

// Status returns the cluster.
func (c *Client) Status(ctx context.Context) (*types.StatusResponse, error) {
	return start(ctx, c, SubStatus, nil, new(types.StatusResponse))
}

// URIs returns the URIs of the nodes.
func (c *Client) URIs(ctx context.Context) ([]string, error) {
	answer, err := start(ctx, c, SubURIs, nil, new(types.URIsResponse))
	if err != nil {
		return nil, err
	}
	return answer.URIs, nil
}

// AddNode adds a node.
func (c *Client) AddNode(ctx context.Context, request *types.AddNodeRequest) (*types.AddNodeResponse, error) {
	return start(ctx, c, SubAddNode, request, new(types.AddNodeResponse))
}

// RemoveNode removes a node.
func (c *Client) RemoveNode(ctx context.Context, request *types.RemoveNodeRequest) (*types.RemoveNodeResponse, error) {
	return start(ctx, c, SubRemoveNode, request, new(types.RemoveNodeResponse))
}

// RestartNode starts a node anew.
func (c *Client) RestartNode(ctx context.Context, request *types.RestartNodeRequest) (*types.RestartNodeResponse, error) {
	return start(ctx, c, SubRestartNode, request, new(types.RestartNodeResponse))
}

// PauseNode pauses a node.
func (c *Client) PauseNode(ctx context.Context, request *types.PauseNodeRequest) (*types.PauseNodeResponse, error) {
	return start(ctx, c, SubPauseNode, request, new(types.PauseNodeResponse))
}

// ResumeNode resumes a paused node.
func (c *Client) ResumeNode(ctx context.Context, request *types.ResumeNodeRequest) (*types.ResumeNodeResponse, error) {
	return start(ctx, c, SubResumeNode, request, new(types.ResumeNodeResponse))
}

// AttachPeer attaches a test peer to a node.
func (c *Client) AttachPeer(ctx context.Context, request *types.AttachPeerRequest) (*types.AttachPeerResponse, error) {
	return start(ctx, c, SubAttachPeer, request, new(types.AttachPeerResponse))
}

// SendOutboundMessage sends a message from a test peer to its node.
func (c *Client) SendOutboundMessage(ctx context.Context, request *types.SendOutboundMessageRequest) (*types.SendOutboundMessageResponse, error) {
	return start(ctx, c, SubSendOutboundMessage, request, new(types.SendOutboundMessageResponse))
}
