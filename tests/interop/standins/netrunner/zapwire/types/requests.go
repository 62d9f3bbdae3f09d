package types

import "github.com/luxfi/api/zap"

// AddNodeRequest asks for a new node.
type AddNodeRequest struct {
	Name             string
	ExecPath         string
	NodeConfig       string
	NodeConfigSet    bool
	ChainConfigs     map[string]string
	UpgradeConfigs   map[string]string
	ChainConfigFiles map[string]string
	PluginDir        string
}

// Encode implements Encoder.
func (m *AddNodeRequest) Encode(b *zap.Buffer) {
	writeStrings(b, m.Name, m.ExecPath)
	writeOptional(b, m.NodeConfig, m.NodeConfigSet)
	writeMaps(b, m.ChainConfigs, m.UpgradeConfigs, m.ChainConfigFiles)
	b.WriteString(m.PluginDir)
}

// Decode implements Decoder.
func (m *AddNodeRequest) Decode(r *zap.Reader) error {
	if err := readStrings(r, &m.Name, &m.ExecPath); err != nil {
		return err
	}
	if err := readOptional(r, &m.NodeConfig, &m.NodeConfigSet); err != nil {
		return err
	}
	if err := readMaps(r, &m.ChainConfigs, &m.UpgradeConfigs, &m.ChainConfigFiles); err != nil {
		return err
	}
	return readStrings(r, &m.PluginDir)
}

// RestartNodeRequest asks for a node to be started anew, with what is set changed.
type RestartNodeRequest struct {
	Name                 string
	ExecPath             string
	ExecPathSet          bool
	WhitelistedChains    string
	WhitelistedChainsSet bool
	ChainConfigs         map[string]string
	UpgradeConfigs       map[string]string
	ChainConfigFiles     map[string]string
	PluginDir            string
}

// Encode implements Encoder.
func (m *RestartNodeRequest) Encode(b *zap.Buffer) {
	b.WriteString(m.Name)
	writeOptional(b, m.ExecPath, m.ExecPathSet)
	writeOptional(b, m.WhitelistedChains, m.WhitelistedChainsSet)
	writeMaps(b, m.ChainConfigs, m.UpgradeConfigs, m.ChainConfigFiles)
	b.WriteString(m.PluginDir)
}

// Decode implements Decoder.
func (m *RestartNodeRequest) Decode(r *zap.Reader) error {
	if err := readStrings(r, &m.Name); err != nil {
		return err
	}
	if err := readOptional(r, &m.ExecPath, &m.ExecPathSet); err != nil {
		return err
	}
	if err := readOptional(r, &m.WhitelistedChains, &m.WhitelistedChainsSet); err != nil {
		return err
	}
	if err := readMaps(r, &m.ChainConfigs, &m.UpgradeConfigs, &m.ChainConfigFiles); err != nil {
		return err
	}
	return readStrings(r, &m.PluginDir)
}

// RemoveNodeRequest asks for a node to be removed.
type RemoveNodeRequest struct {
	Name string
}

// Encode implements Encoder.
func (m *RemoveNodeRequest) Encode(b *zap.Buffer) { b.WriteString(m.Name) }

// Decode implements Decoder.
func (m *RemoveNodeRequest) Decode(r *zap.Reader) error { return readStrings(r, &m.Name) }

// PauseNodeRequest asks for a node to be paused.
type PauseNodeRequest struct {
	Name string
}

// Encode implements Encoder.
func (m *PauseNodeRequest) Encode(b *zap.Buffer) { b.WriteString(m.Name) }

// Decode implements Decoder.
func (m *PauseNodeRequest) Decode(r *zap.Reader) error { return readStrings(r, &m.Name) }

// ResumeNodeRequest asks for a paused node to be resumed.
type ResumeNodeRequest struct {
	Name string
}

// Encode implements Encoder.
func (m *ResumeNodeRequest) Encode(b *zap.Buffer) { b.WriteString(m.Name) }

// Decode implements Decoder.
func (m *ResumeNodeRequest) Decode(r *zap.Reader) error { return readStrings(r, &m.Name) }

// AttachPeerRequest asks for a test peer of a node.
type AttachPeerRequest struct {
	NodeName string
}

// Encode implements Encoder.
func (m *AttachPeerRequest) Encode(b *zap.Buffer) { b.WriteString(m.NodeName) }

// Decode implements Decoder.
func (m *AttachPeerRequest) Decode(r *zap.Reader) error { return readStrings(r, &m.NodeName) }

// SendOutboundMessageRequest asks for a message from a test peer to its node.
type SendOutboundMessageRequest struct {
	NodeName string
	PeerID   string
	Op       uint32
	MsgBody  []byte
}

// Encode implements Encoder.
func (m *SendOutboundMessageRequest) Encode(b *zap.Buffer) {
	writeStrings(b, m.NodeName, m.PeerID)
	b.WriteUint32(m.Op)
	b.WriteBytes(m.MsgBody)
}

// Decode implements Decoder.
func (m *SendOutboundMessageRequest) Decode(r *zap.Reader) (err error) {
	if err = readStrings(r, &m.NodeName, &m.PeerID); err != nil {
		return err
	}
	if m.Op, err = r.ReadUint32(); err != nil {
		return err
	}
	m.MsgBody, err = r.ReadBytes()
	return err
}
