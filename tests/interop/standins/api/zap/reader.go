package zap

import (
	"encoding/binary"
	"io"
)

// Reader decodes what a Buffer encodes. Each method fails with io.ErrUnexpectedEOF where the bytes
// end too early, before it allocates anything.
type Reader struct {
	rest []byte
}

// NewReader returns a Reader of data, which must not change while it is read.
func NewReader(data []byte) *Reader { return &Reader{rest: data} }

// Remaining returns the number of bytes not read yet.
func (r *Reader) Remaining() int { return len(r.rest) }

func (r *Reader) take(n uint32) ([]byte, error) {
	if uint64(n) > uint64(len(r.rest)) {
		return nil, io.ErrUnexpectedEOF
	}
	taken := r.rest[:n]
	r.rest = r.rest[n:]
	return taken, nil
}

// ReadUint8 reads one byte.
func (r *Reader) ReadUint8() (uint8, error) {
	b, err := r.take(1)
	if err != nil {
		return 0, err
	}
	return b[0], nil
}

// ReadUint16 reads two bytes.
func (r *Reader) ReadUint16() (uint16, error) {
	b, err := r.take(2)
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint16(b), nil
}

// ReadUint32 reads four bytes.
func (r *Reader) ReadUint32() (uint32, error) {
	b, err := r.take(4)
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint32(b), nil
}

// ReadUint64 reads eight bytes.
func (r *Reader) ReadUint64() (uint64, error) {
	b, err := r.take(8)
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(b), nil
}

// ReadInt32 reads four bytes, two's complement.
func (r *Reader) ReadInt32() (int32, error) {
	v, err := r.ReadUint32()
	return int32(v), err
}

// ReadInt64 reads eight bytes, two's complement.
func (r *Reader) ReadInt64() (int64, error) {
	v, err := r.ReadUint64()
	return int64(v), err
}

// ReadBool reads one byte; any but 0 is true.
func (r *Reader) ReadBool() (bool, error) {
	v, err := r.ReadUint8()
	return v != 0, err
}

// ReadString reads a length and a string of as many bytes.
func (r *Reader) ReadString() (string, error) {
	b, err := r.counted()
	return string(b), err
}

// ReadBytes reads a length and as many bytes, into a slice of their own that is never nil.
func (r *Reader) ReadBytes() ([]byte, error) {
	b, err := r.counted()
	if err != nil {
		return nil, err
	}
	return append(make([]byte, 0, len(b)), b...), nil
}

func (r *Reader) counted() ([]byte, error) {
	before := r.rest
	n, err := r.ReadUint32()
	if err != nil {
		return nil, err
	}
	b, err := r.take(n)
	if err != nil {
		r.rest = before
	}
	return b, err
}
