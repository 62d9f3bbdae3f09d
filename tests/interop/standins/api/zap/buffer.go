package zap

import (
	"encoding/binary"
	"sync"
)

const (
	pooledCapacity = 512
	largestPooled  = 64 << 10
)

var buffers = sync.Pool{New: func() any { return NewBuffer(pooledCapacity) }}

// Buffer encodes primitives, big-endian. The zero value is ready.
type Buffer struct {
	bytes []byte
}

// NewBuffer returns an empty Buffer with room for capacity bytes.
func NewBuffer(capacity int) *Buffer {
	return &Buffer{bytes: make([]byte, 0, capacity)}
}

// GetBuffer returns an empty Buffer that PutBuffer takes back.
func GetBuffer() *Buffer {
	return buffers.Get().(*Buffer)
}

// PutBuffer takes b back. Neither b nor its Bytes may be used afterwards.
func PutBuffer(b *Buffer) {
	if cap(b.bytes) > largestPooled {
		return
	}
	b.bytes = b.bytes[:0]
	buffers.Put(b)
}

// Bytes returns what was written; it is valid until the next write.
func (b *Buffer) Bytes() []byte { return b.bytes }

// Len returns the number of bytes written.
func (b *Buffer) Len() int { return len(b.bytes) }

// WriteUint8 appends one byte.
func (b *Buffer) WriteUint8(v uint8) { b.bytes = append(b.bytes, v) }

// WriteUint16 appends two bytes.
func (b *Buffer) WriteUint16(v uint16) { b.bytes = binary.BigEndian.AppendUint16(b.bytes, v) }

// WriteUint32 appends four bytes.
func (b *Buffer) WriteUint32(v uint32) { b.bytes = binary.BigEndian.AppendUint32(b.bytes, v) }

// WriteUint64 appends eight bytes.
func (b *Buffer) WriteUint64(v uint64) { b.bytes = binary.BigEndian.AppendUint64(b.bytes, v) }

// WriteInt32 appends four bytes, two's complement.
func (b *Buffer) WriteInt32(v int32) { b.WriteUint32(uint32(v)) }

// WriteInt64 appends eight bytes, two's complement.
func (b *Buffer) WriteInt64(v int64) { b.WriteUint64(uint64(v)) }

// WriteBool appends 1 or 0.
func (b *Buffer) WriteBool(v bool) {
	if v {
		b.WriteUint8(1)
	} else {
		b.WriteUint8(0)
	}
}

// WriteString appends the length of v, and v.
func (b *Buffer) WriteString(v string) {
	b.WriteUint32(uint32(len(v)))
	b.bytes = append(b.bytes, v...)
}

// WriteBytes appends the length of v, and v.
func (b *Buffer) WriteBytes(v []byte) {
	b.WriteUint32(uint32(len(v)))
	b.bytes = append(b.bytes, v...)
}
