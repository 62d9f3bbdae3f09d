package types

import "github.com/luxfi/api/zap"

// The answers in this file are the cluster's state, nil where there is no cluster.

// HealthResponse answers Health.
type HealthResponse struct {
	ClusterInfo *ClusterInfo
}

// Encode implements Encoder.
func (m *HealthResponse) Encode(b *zap.Buffer) { writeNullable(b, m.ClusterInfo) }

// Decode implements Decoder.
func (m *HealthResponse) Decode(r *zap.Reader) error { return readNullable(r, &m.ClusterInfo) }

// WaitForHealthyResponse answers WaitForHealthy.
type WaitForHealthyResponse struct {
	ClusterInfo *ClusterInfo
}

// Encode implements Encoder.
func (m *WaitForHealthyResponse) Encode(b *zap.Buffer) { writeNullable(b, m.ClusterInfo) }

// Decode implements Decoder.
func (m *WaitForHealthyResponse) Decode(r *zap.Reader) error { return readNullable(r, &m.ClusterInfo) }

// StatusResponse answers Status.
type StatusResponse struct {
	ClusterInfo *ClusterInfo
}

// Encode implements Encoder.
func (m *StatusResponse) Encode(b *zap.Buffer) { writeNullable(b, m.ClusterInfo) }

// Decode implements Decoder.
func (m *StatusResponse) Decode(r *zap.Reader) error { return readNullable(r, &m.ClusterInfo) }

// StopResponse answers Stop.
type StopResponse struct {
	ClusterInfo *ClusterInfo
}

// Encode implements Encoder.
func (m *StopResponse) Encode(b *zap.Buffer) { writeNullable(b, m.ClusterInfo) }

// Decode implements Decoder.
func (m *StopResponse) Decode(r *zap.Reader) error { return readNullable(r, &m.ClusterInfo) }

// AddNodeResponse answers AddNode.
type AddNodeResponse struct {
	ClusterInfo *ClusterInfo
}

// Encode implements Encoder.
func (m *AddNodeResponse) Encode(b *zap.Buffer) { writeNullable(b, m.ClusterInfo) }

// Decode implements Decoder.
func (m *AddNodeResponse) Decode(r *zap.Reader) error { return readNullable(r, &m.ClusterInfo) }

// RemoveNodeResponse answers RemoveNode.
type RemoveNodeResponse struct {
	ClusterInfo *ClusterInfo
}

// Encode implements Encoder.
func (m *RemoveNodeResponse) Encode(b *zap.Buffer) { writeNullable(b, m.ClusterInfo) }

// Decode implements Decoder.
func (m *RemoveNodeResponse) Decode(r *zap.Reader) error { return readNullable(r, &m.ClusterInfo) }

// RestartNodeResponse answers RestartNode.
type RestartNodeResponse struct {
	ClusterInfo *ClusterInfo
}

// Encode implements Encoder.
func (m *RestartNodeResponse) Encode(b *zap.Buffer) { writeNullable(b, m.ClusterInfo) }

// Decode implements Decoder.
func (m *RestartNodeResponse) Decode(r *zap.Reader) error { return readNullable(r, &m.ClusterInfo) }

// PauseNodeResponse answers PauseNode.
type PauseNodeResponse struct {
	ClusterInfo *ClusterInfo
}

// Encode implements Encoder.
func (m *PauseNodeResponse) Encode(b *zap.Buffer) { writeNullable(b, m.ClusterInfo) }

// Decode implements Decoder.
func (m *PauseNodeResponse) Decode(r *zap.Reader) error { return readNullable(r, &m.ClusterInfo) }

// ResumeNodeResponse answers ResumeNode.
type ResumeNodeResponse struct {
	ClusterInfo *ClusterInfo
}

// Encode implements Encoder.
func (m *ResumeNodeResponse) Encode(b *zap.Buffer) { writeNullable(b, m.ClusterInfo) }

// Decode implements Decoder.
func (m *ResumeNodeResponse) Decode(r *zap.Reader) error { return readNullable(r, &m.ClusterInfo) }
