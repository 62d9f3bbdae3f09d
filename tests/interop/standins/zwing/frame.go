package zwing

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	frameHeaderSize = 4
	maxFrameSize    = 1 << 20
)

func writeFrame(w io.Writer, payload []byte) error {
	var header [frameHeaderSize]byte
	binary.BigEndian.PutUint32(header[:], uint32(len(payload)))
	if _, err := w.Write(header[:]); err != nil {
		return err
	}
	_, err := w.Write(payload)
	return err
}

// frameReader reads frames of minimum to maximum bytes. What it has of a frame survives a failed read,
// so a deadline that passes does not put the stream out of step.
type frameReader struct {
	in               io.Reader
	minimum, maximum int
	header           [frameHeaderSize]byte
	payload          []byte
	have             int // bytes of header and payload
}

// next returns a payload that is valid until the following call, and io.EOF where the stream ends
// between two frames.
func (f *frameReader) next() ([]byte, error) {
	if err := f.fill(f.header[:], 0); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(f.header[:])
	if size < uint32(f.minimum) || size > uint32(f.maximum) {
		return nil, fmt.Errorf("frame of %d bytes; from %d to %d are allowed", size, f.minimum, f.maximum)
	}
	if cap(f.payload) < int(size) {
		f.payload = make([]byte, size)
	}
	f.payload = f.payload[:size]
	if err := f.fill(f.payload, frameHeaderSize); err != nil {
		return nil, err
	}
	f.have = 0
	return f.payload, nil
}

// fill reads until part, which begins at offset start of the frame, is whole.
func (f *frameReader) fill(part []byte, start int) error {
	for f.have < start+len(part) {
		n, err := f.in.Read(part[f.have-start:])
		f.have += n
		if f.have == start+len(part) {
			return nil
		}
		if errors.Is(err, io.EOF) && f.have > 0 {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
	}
	return nil
}
