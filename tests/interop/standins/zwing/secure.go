package zwing

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

const defaultHandshakeTimeout = 10 * time.Second

// Config says who we are and whom to accept.
type Config struct {
	// LocalIdentity is required.
	LocalIdentity *Identity
	// ExpectedRemote pins the peer; nil accepts anybody who proves an identity.
	ExpectedRemote *IdentityPublic
	// HandshakeTimeout bounds a handshake; 10 s where it is not positive.
	HandshakeTimeout time.Duration
}

func (c *Config) check() error {
	if c == nil || c.LocalIdentity == nil {
		return errors.New("zwing: a local identity is needed")
	}
	return nil
}

// secureClient makes the initiator's handshake over conn.
func secureClient(ctx context.Context, conn net.Conn, cfg *Config) (*Conn, error) {
	return secure(ctx, conn, cfg, func() (*Conn, error) {
		init, err := initiate(cfg.LocalIdentity)
		if err != nil {
			return nil, err
		}
		if err := writeFrame(conn, init); err != nil {
			return nil, err
		}
		response, err := readHandshake(conn, responseSize)
		if err != nil {
			return nil, err
		}
		keys, err := finish(cfg.LocalIdentity, cfg.ExpectedRemote, response)
		if err != nil {
			return nil, err
		}
		return newConn(conn, keys.toResponder, keys.toInitiator), nil
	})
}

// secureServer makes the responder's handshake over conn.
func secureServer(ctx context.Context, conn net.Conn, cfg *Config) (*Conn, error) {
	return secure(ctx, conn, cfg, func() (*Conn, error) {
		init, err := readHandshake(conn, initSize)
		if err != nil {
			return nil, err
		}
		response, keys, err := respond(cfg.LocalIdentity, cfg.ExpectedRemote, init)
		if err != nil {
			return nil, err
		}
		if err := writeFrame(conn, response); err != nil {
			return nil, err
		}
		return newConn(conn, keys.toInitiator, keys.toResponder), nil
	})
}

func readHandshake(conn net.Conn, size int) ([]byte, error) {
	frame := frameReader{in: conn, minimum: size, maximum: size}
	payload, err := frame.next()
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return payload, err
}

// secure runs a handshake that ends when ctx ends or its time is over. The caller closes conn where it
// fails.
func secure(ctx context.Context, conn net.Conn, cfg *Config, handshake func() (*Conn, error)) (*Conn, error) {
	timeout := cfg.HandshakeTimeout
	if timeout <= 0 {
		timeout = defaultHandshakeTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	secured, err := handshake()
	if !stop() { // the deadline may be set, or is about to be
		err = ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("zwing: handshake: %w", err)
	}
	return secured, nil
}
