package zwing

import (
	"context"
	"fmt"
	"net"

	"github.com/luxfi/api/zap"
)

// Dial connects to addr over TCP and makes the handshake; ctx bounds both.
func Dial(ctx context.Context, addr string, cfg *Config) (*Conn, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("zwing: %w", err)
	}
	secured, err := secureClient(ctx, conn, cfg)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return secured, nil
}

// DialZAP is Dial with ZAP on it.
func DialZAP(ctx context.Context, addr string, cfg *Config) (*zap.Conn, error) {
	conn, err := Dial(ctx, addr, cfg)
	if err != nil {
		return nil, err
	}
	return zap.NewConn(conn, nil), nil
}
