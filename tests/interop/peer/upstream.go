package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/luxfi/api/zap"
	"github.com/luxfi/netrunner/zapwire/types"
	"github.com/luxfi/zwing"
)

// call makes one call and decodes its answer.
func call(ctx context.Context, conn *zap.Conn, opcode zap.MessageType, payload []byte, answer types.Decoder) error {
	_, body, err := conn.Call(ctx, opcode, payload)
	if err != nil {
		return err
	}
	if err := answer.Decode(zap.NewReader(body)); err != nil {
		return fmt.Errorf("decode the answer: %w", err)
	}
	return nil
}

// isRemote reports whether the server answered with the error.
func isRemote(err error) bool { return strings.Contains(err.Error(), "remote error: ") }

// upstream is one Z-Wing connection, made anew when it was lost.
type upstream struct {
	address string
	cfg     *zwing.Config
	turn    chan struct{} // who has it may use conn
	conn    *zap.Conn     // nil where there is none
}

func newUpstream(address string, cfg *zwing.Config) *upstream {
	return &upstream{address: address, cfg: cfg, turn: make(chan struct{}, 1)}
}

// call is for calls that only read: it repeats one whose connection breaks, once.
func (u *upstream) call(ctx context.Context, opcode zap.MessageType, payload []byte, answer types.Decoder) error {
	err := u.callOnce(ctx, opcode, payload, answer)
	if err != nil && !isRemote(err) && ctx.Err() == nil {
		err = u.callOnce(ctx, opcode, payload, answer)
	}
	return err
}

func (u *upstream) callOnce(ctx context.Context, opcode zap.MessageType, payload []byte, answer types.Decoder) error {
	conn, err := u.connect(ctx)
	if err != nil {
		return err
	}
	err = call(ctx, conn, opcode, payload, answer)
	if err != nil && !isRemote(err) && ctx.Err() == nil {
		u.discard(conn)
	}
	return err
}

// connect returns the connection there is, or else a new one.
func (u *upstream) connect(ctx context.Context) (*zap.Conn, error) {
	select {
	case u.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-u.turn }()
	if u.conn != nil {
		return u.conn, nil
	}
	conn, err := zwing.DialZAP(ctx, u.address, u.cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", u.address, err)
	}
	u.conn = conn
	return conn, nil
}

func (u *upstream) discard(conn *zap.Conn) {
	u.turn <- struct{}{}
	defer func() { <-u.turn }()
	conn.Close()
	if u.conn == conn {
		u.conn = nil
	}
}

func (u *upstream) close() {
	u.turn <- struct{}{}
	defer func() { <-u.turn }()
	if u.conn != nil {
		u.conn.Close()
		u.conn = nil
	}
}
