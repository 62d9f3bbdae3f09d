package main

import (
	"slices"

	"github.com/luxfi/netrunner/zapwire/types"
)

// The bodies have the names that openapi/openapi.json gives them.

type pingBody struct {
	PID int32 `json:"pid"`
}

type statusBody struct {
	ClusterInfo *clusterBody `json:"clusterInfo"`
}

type clusterBody struct {
	NodeNames    []string             `json:"nodeNames"`
	NodeInfos    map[string]nodeBody  `json:"nodeInfos"`
	PID          int32                `json:"pid"`
	RootDataDir  string               `json:"rootDataDir"`
	Healthy      bool                 `json:"healthy"`
	CustomChains map[string]chainBody `json:"customChains"`
	Subnets      []string             `json:"subnets"`
	NetworkID    uint32               `json:"networkId"`
}

type nodeBody struct {
	Name               string `json:"name"`
	ExecPath           string `json:"execPath"`
	URI                string `json:"uri"`
	ID                 string `json:"id"`
	LogDir             string `json:"logDir"`
	DBDir              string `json:"dbDir"`
	Config             []byte `json:"config"`
	PluginDir          string `json:"pluginDir"`
	WhitelistedSubnets string `json:"whitelistedSubnets"`
	Paused             bool   `json:"paused"`
}

type chainBody struct {
	ChainName string `json:"chainName"`
	VMID      string `json:"vmId"`
	VMName    string `json:"vmName"`
	ChainID   string `json:"chainId"`
	SubnetID  string `json:"subnetId"`
	Genesis   []byte `json:"genesis"`
}

func clusterBodyOf(info *types.ClusterInfo) *clusterBody {
	if info == nil {
		return nil
	}
	body := &clusterBody{
		NodeNames:    sorted(info.NodeNames),
		NodeInfos:    make(map[string]nodeBody, len(info.NodeInfos)),
		PID:          info.PID,
		RootDataDir:  info.RootDataDir,
		Healthy:      info.Healthy,
		CustomChains: make(map[string]chainBody, len(info.CustomChains)),
		Subnets:      append([]string{}, info.Subnets...),
		NetworkID:    info.NetworkID,
	}
	for name, node := range info.NodeInfos {
		told := nodeBody(*node)
		told.Config = present(told.Config)
		body.NodeInfos[name] = told
	}
	for id, chain := range info.CustomChains {
		told := chainBody(*chain)
		told.Genesis = present(told.Genesis)
		body.CustomChains[id] = told
	}
	return body
}

// The zero values of slices are null in JSON. Nothing is null here but an absent cluster.

func sorted(names []string) []string {
	names = append([]string{}, names...)
	slices.Sort(names)
	return names
}

func present(bytes []byte) []byte {
	if bytes == nil {
		return []byte{}
	}
	return bytes
}
