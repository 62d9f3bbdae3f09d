package zap

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

// Handler answers requests. Its error becomes the text of an error answer. It is called concurrently,
// and ctx ends with the connection.
type Handler interface {
	Handle(ctx context.Context, kind MessageType, payload []byte) (MessageType, []byte, error)
}

// HandlerFunc is a function as a Handler.
type HandlerFunc func(ctx context.Context, kind MessageType, payload []byte) (MessageType, []byte, error)

// Handle calls f.
func (f HandlerFunc) Handle(ctx context.Context, kind MessageType, payload []byte) (MessageType, []byte, error) {
	return f(ctx, kind, payload)
}

// Server runs a Handler for every connection of a Listener.
type Server struct {
	listener *Listener
	handler  Handler

	mu     sync.Mutex
	closed bool
	conns  map[net.Conn]struct{}
	served sync.WaitGroup
}

// NewServer serves nothing before Serve is called. The Listener belongs to it from now on.
func NewServer(listener *Listener, handler Handler) *Server {
	return &Server{listener: listener, handler: handler, conns: make(map[net.Conn]struct{})}
}

// Serve accepts connections until ctx ends or Close is called, and then returns nil once every
// handler has returned.
func (s *Server) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer s.served.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	for {
		conn, err := s.listener.inner.Accept()
		if err != nil {
			failed := !s.isClosed()
			s.Close()
			if failed {
				return fmt.Errorf("zap: accept: %w", err)
			}
			return nil
		}
		if !s.add(conn) {
			conn.Close()
			return nil
		}
		go func() {
			defer s.remove(conn)
			s.serve(ctx, conn)
		}()
	}
}

// Close stops listening and closes every connection; the requests under way are cancelled.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	for conn := range s.conns {
		conn.Close()
	}
	return s.listener.Close()
}

func (s *Server) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

func (s *Server) add(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.conns[conn] = struct{}{}
	s.served.Add(1)
	return true
}

func (s *Server) remove(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, conn)
	conn.Close()
	s.served.Done()
}

// serve runs every request at once, and ends with the first message that makes no sense.
func (s *Server) serve(ctx context.Context, conn net.Conn) {
	cfg := s.listener.cfg
	in := bufio.NewReaderSize(conn, cfg.BufferSize)
	out := newMessageWriter(conn, cfg)
	slots := make(chan struct{}, cfg.MaxConcurrent)
	var running sync.WaitGroup
	defer running.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer conn.Close() // an answer that nobody takes must not keep running waiting
	for {
		request, err := nextRequest(conn, in, cfg.ReadTimeout)
		if err != nil {
			return
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		running.Add(1)
		go func() {
			defer running.Done()
			defer func() { <-slots }()
			if sent, err := out.write(ctx, s.answer(ctx, request)); sent && err != nil {
				conn.Close()
			}
		}()
	}
}

// nextRequest waits for a message as long as it takes, but not for its end once it has begun.
func nextRequest(conn net.Conn, in *bufio.Reader, timeout time.Duration) (message, error) {
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return message{}, err
	}
	if _, err := in.Peek(1); err != nil {
		return message{}, err
	}
	if err := conn.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return message{}, err
	}
	return readMessage(in)
}

func (s *Server) answer(ctx context.Context, request message) message {
	kind, body, err := s.handle(ctx, request)
	if err == nil && len(body) > maxBodySize {
		err = ErrMessageTooLarge
	}
	if err != nil {
		text := err.Error()
		return message{
			kind: request.kind | MsgResponseFlag | MsgErrorFlag,
			id:   request.id,
			body: []byte(text[:min(len(text), maxBodySize)]),
		}
	}
	return message{kind | MsgResponseFlag, request.id, body}
}

func (s *Server) handle(ctx context.Context, request message) (kind MessageType, body []byte, err error) {
	defer func() {
		if reason := recover(); reason != nil {
			err = fmt.Errorf("handler panic: %v", reason)
		}
	}()
	return s.handler.Handle(ctx, request.kind, request.body)
}
