package zap

import (
	"fmt"
	"net"
)

// Listener is where a Server gets its connections from.
type Listener struct {
	inner net.Listener
	cfg   Config
}

// Listen listens on addr over plain TCP.
func Listen(addr string, cfg *Config) (*Listener, error) {
	inner, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("zap: %w", err)
	}
	return NewListener(inner, cfg), nil
}

// NewListener speaks ZAP over the connections of inner, which belongs to the Listener from now on.
func NewListener(inner net.Listener, cfg *Config) *Listener {
	return &Listener{inner: inner, cfg: cfg.orDefault()}
}

// Addr returns where it listens.
func (l *Listener) Addr() net.Addr { return l.inner.Addr() }

// Close stops listening. Connections stay.
func (l *Listener) Close() error { return l.inner.Close() }
