package zwing

import (
	"context"
	"fmt"
	"net"

	"github.com/luxfi/api/zap"
)

// Listener is a net.Listener whose connections have a handshake behind them.
type Listener struct {
	inner  net.Listener
	cfg    Config
	closed context.Context // ends the handshake under way
	close  context.CancelFunc
}

// Listen listens on addr over TCP.
func Listen(addr string, cfg *Config) (*Listener, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	inner, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("zwing: %w", err)
	}
	closed, cancel := context.WithCancel(context.Background())
	return &Listener{inner, *cfg, closed, cancel}, nil
}

// ListenZAP is Listen with ZAP on it.
func ListenZAP(addr string, cfg *Config) (*zap.Listener, error) {
	listener, err := Listen(addr, cfg)
	if err != nil {
		return nil, err
	}
	return zap.NewListener(listener, nil), nil
}

// Accept makes one handshake after the other and returns the first connection whose handshake
// succeeds. The others are closed without a word.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.inner.Accept()
		if err != nil {
			return nil, err
		}
		secured, err := secureServer(l.closed, conn, &l.cfg)
		if err == nil {
			return secured, nil
		}
		conn.Close()
	}
}

// Close stops listening. Connections stay.
func (l *Listener) Close() error {
	l.close()
	return l.inner.Close()
}

// Addr returns where it listens.
func (l *Listener) Addr() net.Addr { return l.inner.Addr() }
