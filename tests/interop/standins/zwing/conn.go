package zwing

import (
	"bufio"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"sync"

	"golang.org/x/crypto/chacha20poly1305"
)

const (
	recordOverhead = chacha20poly1305.Overhead
	minRecordSize  = recordOverhead + 1 // an empty record says nothing
	maxPlaintext   = maxFrameSize - recordOverhead
	readBufferSize = 64 << 10
)

// Conn is a net.Conn whose bytes cross the wire in sealed records. Its methods may be called
// concurrently. A read whose deadline passed can be repeated; after a failed write only Close is left.
type Conn struct {
	net.Conn

	reading sync.Mutex
	records frameReader
	opening direction
	opened  []byte // of the last record, not read yet
	readErr error

	writing  sync.Mutex
	sealing  direction
	sealed   []byte
	writeErr error
}

func newConn(conn net.Conn, sealing, opening cipher.AEAD) *Conn {
	return &Conn{
		Conn:    conn,
		records: frameReader{in: bufio.NewReaderSize(conn, readBufferSize), minimum: minRecordSize, maximum: maxFrameSize},
		opening: direction{aead: opening},
		sealing: direction{aead: sealing},
	}
}

// Read implements net.Conn. It returns io.EOF where the peer closed between two records.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.reading.Lock()
	defer c.reading.Unlock()
	if len(c.opened) == 0 {
		if err := c.readRecord(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.opened)
	c.opened = c.opened[n:]
	return n, nil
}

func (c *Conn) readRecord() error {
	if c.readErr != nil {
		return c.readErr
	}
	record, err := c.records.next()
	if err == nil {
		c.opened, err = c.opening.open(record)
	}
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.readErr = err
	}
	return err
}

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (written int, err error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	for len(p) > 0 && c.writeErr == nil {
		plaintext := p[:min(len(p), maxPlaintext)]
		if c.writeErr = c.writeRecord(plaintext); c.writeErr == nil {
			written += len(plaintext)
			p = p[len(plaintext):]
		}
	}
	return written, c.writeErr
}

func (c *Conn) writeRecord(plaintext []byte) error {
	sealed, err := c.sealing.seal(c.sealed[:0], plaintext)
	if err != nil {
		return err
	}
	c.sealed = sealed
	return writeFrame(c.Conn, sealed)
}

// direction counts the records of one direction.
type direction struct {
	aead     cipher.AEAD
	sequence uint64
}

func (d *direction) seal(dst, plaintext []byte) ([]byte, error) {
	nonce, err := d.nonce()
	if err != nil {
		return nil, err
	}
	return d.aead.Seal(dst, nonce[:], plaintext, nil), nil
}

// open works in place.
func (d *direction) open(record []byte) ([]byte, error) {
	nonce, err := d.nonce()
	if err != nil {
		return nil, err
	}
	plaintext, err := d.aead.Open(record[:0], nonce[:], record, nil)
	if err != nil {
		return nil, fmt.Errorf("record %d does not open", d.sequence-1)
	}
	return plaintext, nil
}

// nonce returns each nonce once.
func (d *direction) nonce() (nonce [chacha20poly1305.NonceSize]byte, err error) {
	if d.sequence == math.MaxUint64 {
		return nonce, errors.New("no sequence numbers left")
	}
	binary.BigEndian.PutUint64(nonce[4:], d.sequence)
	d.sequence++
	return nonce, nil
}
