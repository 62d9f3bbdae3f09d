package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/luxfi/netrunner/zapwire/types"
)

const (
	rootDataDir    = "/var/lib/netrunner"
	scriptedNodes  = 5
	firstNodePort  = 9630
	nodePortStride = 2
	networkID      = 1337
)

var (
	errNotBootstrapped = errors.New("not bootstrapped")
	errNodeExists      = errors.New("node already exists")
)

// cluster is the scripted state. A node never changes once it is in nodes; another takes its place.
type cluster struct {
	mu      sync.Mutex
	pid     int32
	nodes   map[string]*types.NodeInfo // nil where there is no cluster
	created int
}

func newCluster(pid int32) *cluster {
	c := &cluster{pid: pid, nodes: make(map[string]*types.NodeInfo)}
	for i := range scriptedNodes {
		name := fmt.Sprintf("node%d", i+1)
		node := c.newNode(name)
		node.ExecPath = "/opt/luxd/luxd"
		node.PluginDir = "/opt/luxd/plugins"
		node.Config = append([]byte(`{"node":"`+name+`"}`), 0x00, 0xff, 0xfe)
		c.nodes[name] = node
	}
	return c
}

// newNode makes the part of a node that its name and number tell.
func (c *cluster) newNode(name string) *types.NodeInfo {
	port := firstNodePort + nodePortStride*c.created
	c.created++
	return &types.NodeInfo{
		Name:               name,
		URI:                fmt.Sprintf("http://127.0.0.1:%d", port),
		ID:                 "NodeID-" + name,
		LogDir:             rootDataDir + "/" + name + "/logs",
		DBDir:              rootDataDir + "/" + name + "/db",
		WhitelistedSubnets: "subnet-1,subnet-2",
	}
}

// info returns the state right now, nil where there is no cluster.
func (c *cluster) info() *types.ClusterInfo {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.infoLocked()
}

func (c *cluster) infoLocked() *types.ClusterInfo {
	if c.nodes == nil {
		return nil
	}
	healthy := true
	for _, node := range c.nodes {
		healthy = healthy && !node.Paused
	}
	return &types.ClusterInfo{
		NodeNames:    slices.Sorted(maps.Keys(c.nodes)),
		NodeInfos:    maps.Clone(c.nodes),
		PID:          c.pid,
		RootDataDir:  rootDataDir,
		Healthy:      healthy,
		CustomChains: map[string]*types.ChainInfo{"chain-1": scriptedChain()},
		Subnets:      []string{"subnet-1", "subnet-2"},
		NetworkID:    networkID,
	}
}

func scriptedChain() *types.ChainInfo {
	return &types.ChainInfo{
		ChainName: "C-Test",
		VMID:      "vm-1",
		VMName:    "subnetevm",
		ChainID:   "chain-1",
		SubnetID:  "subnet-1",
		Genesis:   append([]byte(`{"x":"ü"}`), 0x80),
	}
}

// stop returns the last state.
func (c *cluster) stop() *types.ClusterInfo {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := c.infoLocked()
	c.nodes = nil
	return last
}

// add takes a new node of that name, filled in.
func (c *cluster) add(name string, fill func(*types.NodeInfo)) (*types.ClusterInfo, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.nodes == nil {
		return nil, errNotBootstrapped
	}
	if _, exists := c.nodes[name]; exists {
		return nil, errNodeExists
	}
	node := c.newNode(name)
	fill(node)
	c.nodes[name] = node
	return c.infoLocked(), nil
}

func (c *cluster) remove(name string) (*types.ClusterInfo, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := c.find(name); err != nil {
		return nil, err
	}
	delete(c.nodes, name)
	return c.infoLocked(), nil
}

func (c *cluster) change(name string, change func(*types.NodeInfo)) (*types.ClusterInfo, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	node, err := c.find(name)
	if err != nil {
		return nil, err
	}
	changed := *node
	change(&changed)
	c.nodes[name] = &changed
	return c.infoLocked(), nil
}

func (c *cluster) find(name string) (*types.NodeInfo, error) {
	if c.nodes == nil {
		return nil, errNotBootstrapped
	}
	node, exists := c.nodes[name]
	if !exists {
		return nil, fmt.Errorf("node %q not found", name)
	}
	return node, nil
}
