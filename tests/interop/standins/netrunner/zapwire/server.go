package zapwire

import (
	"context"

	"github.com/luxfi/api/zap"
)

// Server answers calls with a Backend, over plain ZAP.
type Server struct {
	addr string
	zap  *zap.Server
}

// NewServer listens on addr; Serve answers.
func NewServer(addr string, be Backend) (*Server, error) {
	listener, err := zap.Listen(addr, nil)
	if err != nil {
		return nil, err
	}
	return &Server{listener.Addr().String(), zap.NewServer(listener, newHandler(be))}, nil
}

// Addr returns where it listens, as host:port.
func (s *Server) Addr() string { return s.addr }

// Serve answers until ctx ends or Close is called.
func (s *Server) Serve(ctx context.Context) error { return s.zap.Serve(ctx) }

// Close stops listening and closes every connection.
func (s *Server) Close() error { return s.zap.Close() }
