package zap

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

var errClosed = errors.New("zap: connection closed")

// Conn is the client's side of a connection. Its methods may be called concurrently.
type Conn struct {
	conn        net.Conn
	out         *messageWriter
	readTimeout time.Duration

	closed  chan struct{} // closed once reason is set
	readEnd chan struct{} // closed once the reading goroutine is gone

	mu      sync.Mutex
	reason  error
	lastID  uint32
	waiting map[uint32]*waiter
}

type waiter struct {
	request MessageType
	answer  chan message // has room for the one answer, so that nobody waits to deliver it
}

// Dial connects to addr over plain TCP.
func Dial(ctx context.Context, addr string, cfg *Config) (*Conn, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("zap: %w", err)
	}
	return NewConn(conn, cfg), nil
}

// NewConn makes calls over conn, which belongs to the Conn from now on.
func NewConn(conn net.Conn, cfg *Config) *Conn {
	bounds := cfg.orDefault()
	c := &Conn{
		conn:        conn,
		out:         newMessageWriter(conn, bounds),
		readTimeout: bounds.ReadTimeout,
		closed:      make(chan struct{}),
		readEnd:     make(chan struct{}),
		waiting:     make(map[uint32]*waiter),
	}
	go c.read(bufio.NewReaderSize(conn, bounds.BufferSize))
	return c
}

// Close ends the connection and every call under way, and waits for its goroutine.
func (c *Conn) Close() error {
	c.close(errClosed)
	<-c.readEnd
	return nil
}

// Call sends a request and waits for its answer, until ctx ends. An error answer is an error whose
// text is "remote error: " and what the server says.
func (c *Conn) Call(ctx context.Context, kind MessageType, payload []byte) (MessageType, []byte, error) {
	id, w, err := c.expect(kind)
	if err != nil {
		return 0, nil, err
	}
	defer c.forget(id)
	sent, err := c.out.write(ctx, message{kind, id, payload})
	if err != nil {
		if sent {
			c.close(fmt.Errorf("zap: write: %w", err))
			err = c.why()
		}
		return 0, nil, err
	}
	select {
	case answer := <-w.answer:
		return result(answer)
	case <-ctx.Done():
		return 0, nil, ctx.Err()
	case <-c.closed:
	}
	select { // an answer that came before the connection ended still counts
	case answer := <-w.answer:
		return result(answer)
	default:
		return 0, nil, c.why()
	}
}

func result(answer message) (MessageType, []byte, error) {
	if answer.kind&MsgErrorFlag != 0 {
		return 0, nil, fmt.Errorf("remote error: %s", answer.body)
	}
	return answer.kind, answer.body, nil
}

// expect takes an id that no waiting call holds.
func (c *Conn) expect(kind MessageType) (uint32, *waiter, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reason != nil {
		return 0, nil, c.reason
	}
	for {
		c.lastID++
		if _, taken := c.waiting[c.lastID]; !taken {
			break
		}
	}
	w := &waiter{request: kind, answer: make(chan message, 1)}
	c.waiting[c.lastID] = w
	return c.lastID, w, nil
}

func (c *Conn) forget(id uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, id)
}

func (c *Conn) read(in *bufio.Reader) {
	defer close(c.readEnd)
	for {
		err := c.conn.SetReadDeadline(time.Now().Add(c.readTimeout))
		var answer message
		if err == nil {
			answer, err = readMessage(in)
		}
		if err == nil {
			err = c.deliver(answer)
		}
		if err != nil {
			c.close(fmt.Errorf("zap: connection lost: %w", err))
			return
		}
	}
}

// deliver drops an answer that nobody waits for: its call was given up.
func (c *Conn) deliver(answer message) error {
	c.mu.Lock()
	w, waiting := c.waiting[answer.id]
	delete(c.waiting, answer.id)
	c.mu.Unlock()
	if !waiting {
		return nil
	}
	if answer.kind&^MsgErrorFlag != w.request|MsgResponseFlag {
		return fmt.Errorf("answer of type 0x%02x to a request of type 0x%02x", uint8(answer.kind), uint8(w.request))
	}
	w.answer <- answer
	return nil
}

func (c *Conn) close(reason error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reason != nil {
		return
	}
	c.reason = reason
	close(c.closed)
	c.conn.Close() // nothing is left to lose, so there is nothing to report
}

func (c *Conn) why() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reason
}
