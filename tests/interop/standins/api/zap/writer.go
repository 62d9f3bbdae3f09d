package zap

import (
	"bufio"
	"context"
	"net"
	"time"
)

// messageWriter lets one goroutine at a time write a message. A message bigger than the buffer goes
// out in two pieces: what fills the buffer, then the rest.
type messageWriter struct {
	turn    chan struct{}
	conn    net.Conn
	out     *bufio.Writer
	timeout time.Duration
}

func newMessageWriter(conn net.Conn, cfg Config) *messageWriter {
	return &messageWriter{
		turn:    make(chan struct{}, 1),
		conn:    conn,
		out:     bufio.NewWriterSize(conn, cfg.BufferSize),
		timeout: cfg.WriteTimeout,
	}
}

// write returns sent = false where not a byte of m has left. Any other failure leaves the stream torn:
// the connection must be closed.
func (w *messageWriter) write(ctx context.Context, m message) (sent bool, err error) {
	if len(m.body) > maxBodySize {
		return false, ErrMessageTooLarge
	}
	select {
	case w.turn <- struct{}{}:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	defer func() { <-w.turn }()
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if err := w.conn.SetWriteDeadline(time.Now().Add(w.timeout)); err != nil {
		return true, err
	}
	return true, writeMessage(w.out, m)
}
