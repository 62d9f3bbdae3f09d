package types

import "github.com/luxfi/api/zap"

// PingResponse tells the server's process id.
type PingResponse struct {
	PID int32
}

// Encode implements Encoder.
func (m *PingResponse) Encode(b *zap.Buffer) { b.WriteInt32(m.PID) }

// Decode implements Decoder.
func (m *PingResponse) Decode(r *zap.Reader) (err error) {
	m.PID, err = r.ReadInt32()
	return err
}

// RPCVersionResponse tells the protocol's version.
type RPCVersionResponse struct {
	Version uint32
}

// Encode implements Encoder.
func (m *RPCVersionResponse) Encode(b *zap.Buffer) { b.WriteUint32(m.Version) }

// Decode implements Decoder.
func (m *RPCVersionResponse) Decode(r *zap.Reader) (err error) {
	m.Version, err = r.ReadUint32()
	return err
}

// URIsResponse tells the URIs of the nodes.
type URIsResponse struct {
	URIs []string
}

// Encode implements Encoder.
func (m *URIsResponse) Encode(b *zap.Buffer) { writeList(b, m.URIs) }

// Decode implements Decoder.
func (m *URIsResponse) Decode(r *zap.Reader) error { return readList(r, &m.URIs) }

// AttachPeerResponse tells the new peer.
type AttachPeerResponse struct {
	ClusterInfo      *ClusterInfo
	AttachedPeerInfo *AttachedPeerInfo
}

// AttachedPeerInfo is a test peer.
type AttachedPeerInfo struct {
	ID string
}

// Encode implements Encoder.
func (m *AttachPeerResponse) Encode(b *zap.Buffer) {
	writeNullable(b, m.ClusterInfo)
	writeNullable(b, m.AttachedPeerInfo)
}

// Decode implements Decoder.
func (m *AttachPeerResponse) Decode(r *zap.Reader) error {
	if err := readNullable(r, &m.ClusterInfo); err != nil {
		return err
	}
	return readNullable(r, &m.AttachedPeerInfo)
}

// Encode implements Encoder.
func (m *AttachedPeerInfo) Encode(b *zap.Buffer) { b.WriteString(m.ID) }

// Decode implements Decoder.
func (m *AttachedPeerInfo) Decode(r *zap.Reader) error { return readStrings(r, &m.ID) }

// SendOutboundMessageResponse tells whether the message was sent.
type SendOutboundMessageResponse struct {
	Sent bool
}

// Encode implements Encoder.
func (m *SendOutboundMessageResponse) Encode(b *zap.Buffer) { b.WriteBool(m.Sent) }

// Decode implements Decoder.
func (m *SendOutboundMessageResponse) Decode(r *zap.Reader) (err error) {
	m.Sent, err = r.ReadBool()
	return err
}
