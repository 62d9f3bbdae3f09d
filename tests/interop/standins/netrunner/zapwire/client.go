package zapwire

import (
	"context"
	"fmt"

	"github.com/luxfi/api/zap"
	"github.com/luxfi/netrunner/zapwire/types"
)

// Client calls a Server over one plain ZAP connection. Its methods may be called concurrently.
type Client struct {
	conn *zap.Conn
}

// Dial connects to a Server.
func Dial(ctx context.Context, addr string) (*Client, error) {
	conn, err := zap.Dial(ctx, addr, nil)
	if err != nil {
		return nil, err
	}
	return &Client{conn}, nil
}

// Close ends the connection and every call under way.
func (c *Client) Close() error { return c.conn.Close() }

func call[A types.Decoder](ctx context.Context, c *Client, opcode zap.MessageType, payload []byte, answer A) (A, error) {
	var none A
	_, body, err := c.conn.Call(ctx, opcode, payload)
	if err != nil {
		return none, err
	}
	if err := answer.Decode(zap.NewReader(body)); err != nil {
		return none, fmt.Errorf("zapwire: decode the answer: %w", err)
	}
	return answer, nil
}

// start calls an RPC of OpStart. A nil request is an empty one.
func start[A types.Decoder](ctx context.Context, c *Client, sub SubOpcode, request types.Encoder, answer A) (A, error) {
	b := zap.GetBuffer()
	defer zap.PutBuffer(b)
	b.WriteUint8(uint8(sub))
	if request != nil {
		request.Encode(b)
	}
	return call(ctx, c, OpStart, b.Bytes(), answer)
}
