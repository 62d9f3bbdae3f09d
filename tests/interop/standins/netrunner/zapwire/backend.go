package zapwire

import (
	"context"

	"github.com/luxfi/netrunner/zapwire/types"
)

// Backend does what a Server is asked for. Its methods are called concurrently; their errors become
// the texts of error answers.
type Backend interface {
	Ping(ctx context.Context) (*types.PingResponse, error)
	RPCVersion(ctx context.Context) (*types.RPCVersionResponse, error)
	Health(ctx context.Context) (*types.HealthResponse, error)
	URIs(ctx context.Context) (*types.URIsResponse, error)
	Status(ctx context.Context) (*types.StatusResponse, error)
	Stop(ctx context.Context) (*types.StopResponse, error)
	WaitForHealthy(ctx context.Context) (*types.WaitForHealthyResponse, error)
	AddNode(ctx context.Context, request *types.AddNodeRequest) (*types.AddNodeResponse, error)
	RemoveNode(ctx context.Context, request *types.RemoveNodeRequest) (*types.RemoveNodeResponse, error)
	RestartNode(ctx context.Context, request *types.RestartNodeRequest) (*types.RestartNodeResponse, error)
	PauseNode(ctx context.Context, request *types.PauseNodeRequest) (*types.PauseNodeResponse, error)
	ResumeNode(ctx context.Context, request *types.ResumeNodeRequest) (*types.ResumeNodeResponse, error)
	AttachPeer(ctx context.Context, request *types.AttachPeerRequest) (*types.AttachPeerResponse, error)
	SendOutboundMessage(ctx context.Context, request *types.SendOutboundMessageRequest) (*types.SendOutboundMessageResponse, error)
}
