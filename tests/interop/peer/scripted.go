package main

import (
	"context"

	"github.com/luxfi/netrunner/zapwire"
	"github.com/luxfi/netrunner/zapwire/types"
)

// scripted is a Backend whose answers the tests know. It runs no node.
type scripted struct {
	cluster *cluster
}

var _ zapwire.Backend = (*scripted)(nil)

func newScripted(pid int32) *scripted { return &scripted{newCluster(pid)} }

func (s *scripted) Ping(context.Context) (*types.PingResponse, error) {
	return &types.PingResponse{PID: s.cluster.pid}, nil
}

func (s *scripted) RPCVersion(context.Context) (*types.RPCVersionResponse, error) {
	return &types.RPCVersionResponse{Version: zapwire.ProtocolVersion}, nil
}

func (s *scripted) Health(context.Context) (*types.HealthResponse, error) {
	return &types.HealthResponse{ClusterInfo: s.cluster.info()}, nil
}

func (s *scripted) WaitForHealthy(context.Context) (*types.WaitForHealthyResponse, error) {
	return &types.WaitForHealthyResponse{ClusterInfo: s.cluster.info()}, nil
}

func (s *scripted) Status(context.Context) (*types.StatusResponse, error) {
	return &types.StatusResponse{ClusterInfo: s.cluster.info()}, nil
}

func (s *scripted) URIs(context.Context) (*types.URIsResponse, error) {
	answer := &types.URIsResponse{URIs: []string{}}
	if info := s.cluster.info(); info != nil {
		for _, name := range info.NodeNames {
			answer.URIs = append(answer.URIs, info.NodeInfos[name].URI)
		}
	}
	return answer, nil
}

func (s *scripted) Stop(context.Context) (*types.StopResponse, error) {
	return &types.StopResponse{ClusterInfo: s.cluster.stop()}, nil
}

func (s *scripted) AddNode(_ context.Context, request *types.AddNodeRequest) (*types.AddNodeResponse, error) {
	info, err := s.cluster.add(request.Name, func(node *types.NodeInfo) {
		node.ExecPath = request.ExecPath
		node.PluginDir = request.PluginDir
		node.Config = []byte(request.NodeConfig)
	})
	return &types.AddNodeResponse{ClusterInfo: info}, err
}

func (s *scripted) RemoveNode(_ context.Context, request *types.RemoveNodeRequest) (*types.RemoveNodeResponse, error) {
	info, err := s.cluster.remove(request.Name)
	return &types.RemoveNodeResponse{ClusterInfo: info}, err
}

func (s *scripted) RestartNode(_ context.Context, request *types.RestartNodeRequest) (*types.RestartNodeResponse, error) {
	info, err := s.cluster.change(request.Name, func(node *types.NodeInfo) {
		if request.ExecPathSet {
			node.ExecPath = request.ExecPath
		}
		if request.WhitelistedChainsSet {
			node.WhitelistedSubnets = request.WhitelistedChains
		}
		node.PluginDir = request.PluginDir
	})
	return &types.RestartNodeResponse{ClusterInfo: info}, err
}

func (s *scripted) PauseNode(_ context.Context, request *types.PauseNodeRequest) (*types.PauseNodeResponse, error) {
	info, err := s.cluster.change(request.Name, func(node *types.NodeInfo) { node.Paused = true })
	return &types.PauseNodeResponse{ClusterInfo: info}, err
}

func (s *scripted) ResumeNode(_ context.Context, request *types.ResumeNodeRequest) (*types.ResumeNodeResponse, error) {
	info, err := s.cluster.change(request.Name, func(node *types.NodeInfo) { node.Paused = false })
	return &types.ResumeNodeResponse{ClusterInfo: info}, err
}

func (s *scripted) SendOutboundMessage(_ context.Context, request *types.SendOutboundMessageRequest) (*types.SendOutboundMessageResponse, error) {
	info := s.cluster.info()
	sent := info != nil && info.NodeInfos[request.NodeName] != nil
	return &types.SendOutboundMessageResponse{Sent: sent}, nil
}
