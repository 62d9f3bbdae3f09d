// Package zap stands in for github.com/luxfi/api/zap: messages over a byte stream, any number of
// calls under way, answered in any order.
package zap

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// MessageType is an opcode in its low six bits, and two flags.
type MessageType uint8

// The flags of an answer. An error answer has both.
const (
	MsgResponseFlag MessageType = 0x80
	MsgErrorFlag    MessageType = 0x40
)

const (
	maxMessageSize = 16 << 20 // request id and body
	requestIDSize  = 4
	maxBodySize    = maxMessageSize - requestIDSize
	headerSize     = 5

	// firstAllocation is what a length field alone can make a reader allocate.
	firstAllocation = 64 << 10
)

// ErrMessageTooLarge is about a body that no message can carry.
var ErrMessageTooLarge = errors.New("zap: message beyond 16 MiB")

type message struct {
	kind MessageType
	id   uint32
	body []byte
}

// readMessage returns io.EOF where the stream ends between two messages.
func readMessage(r io.Reader) (message, error) {
	var header [headerSize]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return message{}, err
	}
	length := binary.BigEndian.Uint32(header[:])
	if length < requestIDSize || length > maxMessageSize {
		return message{}, fmt.Errorf("zap: message of %d bytes; from %d to %d are allowed",
			length, requestIDSize, maxMessageSize)
	}
	var id [requestIDSize]byte
	if _, err := io.ReadFull(r, id[:]); err != nil {
		return message{}, torn(err)
	}
	body, err := readBody(r, int64(length-requestIDSize))
	if err != nil {
		return message{}, torn(err)
	}
	return message{MessageType(header[4]), binary.BigEndian.Uint32(id[:]), body}, nil
}

// readBody allocates as bytes arrive: a length is only a claim.
func readBody(r io.Reader, size int64) ([]byte, error) {
	if size <= firstAllocation {
		body := make([]byte, size)
		_, err := io.ReadFull(r, body)
		return body, err
	}
	var body bytes.Buffer
	body.Grow(firstAllocation)
	_, err := io.CopyN(&body, r, size)
	return body.Bytes(), err
}

func torn(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func writeMessage(w *bufio.Writer, m message) error {
	if len(m.body) > maxBodySize {
		return ErrMessageTooLarge
	}
	var header [headerSize + requestIDSize]byte
	binary.BigEndian.PutUint32(header[:], uint32(len(m.body)+requestIDSize))
	header[4] = byte(m.kind)
	binary.BigEndian.PutUint32(header[headerSize:], m.id)
	if _, err := w.Write(header[:]); err != nil {
		return err
	}
	if _, err := w.Write(m.body); err != nil {
		return err
	}
	return w.Flush()
}
