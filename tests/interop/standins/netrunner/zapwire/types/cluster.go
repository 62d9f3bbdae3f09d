package types

import "github.com/luxfi/api/zap"

// ClusterInfo is the state of the whole cluster.
type ClusterInfo struct {
	NodeNames    []string
	NodeInfos    map[string]*NodeInfo // by name
	PID          int32
	RootDataDir  string
	Healthy      bool
	CustomChains map[string]*ChainInfo // by chain id
	Subnets      []string
	NetworkID    uint32
}

// NodeInfo is one node of the cluster.
type NodeInfo struct {
	Name               string
	ExecPath           string
	URI                string
	ID                 string
	LogDir             string
	DBDir              string
	Config             []byte
	PluginDir          string
	WhitelistedSubnets string
	Paused             bool
}

// ChainInfo is one blockchain that was created on the cluster.
type ChainInfo struct {
	ChainName string
	VMID      string
	VMName    string
	ChainID   string
	SubnetID  string
	Genesis   []byte
}

// Encode implements Encoder. The maps are their values alone, which know their keys.
func (c *ClusterInfo) Encode(b *zap.Buffer) {
	writeList(b, c.NodeNames)
	b.WriteUint32(uint32(len(c.NodeInfos)))
	for _, node := range c.NodeInfos {
		node.Encode(b)
	}
	b.WriteInt32(c.PID)
	b.WriteString(c.RootDataDir)
	b.WriteBool(c.Healthy)
	b.WriteUint32(uint32(len(c.CustomChains)))
	for _, chain := range c.CustomChains {
		chain.Encode(b)
	}
	writeList(b, c.Subnets)
	b.WriteUint32(c.NetworkID)
}

// Decode implements Decoder.
func (c *ClusterInfo) Decode(r *zap.Reader) (err error) {
	if err = readList(r, &c.NodeNames); err != nil {
		return err
	}
	if c.NodeInfos, err = readKeyed(r, minNodeInfo, (*NodeInfo).key); err != nil {
		return err
	}
	if c.PID, err = r.ReadInt32(); err != nil {
		return err
	}
	if err = readStrings(r, &c.RootDataDir); err != nil {
		return err
	}
	if c.Healthy, err = r.ReadBool(); err != nil {
		return err
	}
	if c.CustomChains, err = readKeyed(r, minChainInfo, (*ChainInfo).key); err != nil {
		return err
	}
	if err = readList(r, &c.Subnets); err != nil {
		return err
	}
	c.NetworkID, err = r.ReadUint32()
	return err
}

func readKeyed[T any, P interface {
	*T
	Decoder
}](r *zap.Reader, minItem int, key func(P) string) (map[string]P, error) {
	count, err := readCount(r, minItem)
	if err != nil {
		return nil, err
	}
	items := make(map[string]P)
	for range count {
		item := P(new(T))
		if err := item.Decode(r); err != nil {
			return nil, err
		}
		items[key(item)] = item
	}
	return items, nil
}

func (n *NodeInfo) key() string { return n.Name }

func (c *ChainInfo) key() string { return c.ChainID }

// Encode implements Encoder.
func (n *NodeInfo) Encode(b *zap.Buffer) {
	writeStrings(b, n.Name, n.ExecPath, n.URI, n.ID, n.LogDir, n.DBDir)
	b.WriteBytes(n.Config)
	writeStrings(b, n.PluginDir, n.WhitelistedSubnets)
	b.WriteBool(n.Paused)
}

// Decode implements Decoder.
func (n *NodeInfo) Decode(r *zap.Reader) (err error) {
	if err = readStrings(r, &n.Name, &n.ExecPath, &n.URI, &n.ID, &n.LogDir, &n.DBDir); err != nil {
		return err
	}
	if n.Config, err = r.ReadBytes(); err != nil {
		return err
	}
	if err = readStrings(r, &n.PluginDir, &n.WhitelistedSubnets); err != nil {
		return err
	}
	n.Paused, err = r.ReadBool()
	return err
}

// Encode implements Encoder.
func (c *ChainInfo) Encode(b *zap.Buffer) {
	writeStrings(b, c.ChainName, c.VMID, c.VMName, c.ChainID, c.SubnetID)
	b.WriteBytes(c.Genesis)
}

// Decode implements Decoder.
func (c *ChainInfo) Decode(r *zap.Reader) (err error) {
	if err = readStrings(r, &c.ChainName, &c.VMID, &c.VMName, &c.ChainID, &c.SubnetID); err != nil {
		return err
	}
	c.Genesis, err = r.ReadBytes()
	return err
}
