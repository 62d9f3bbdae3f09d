package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/luxfi/zwing"
)

const (
	loopback         = "127.0.0.1:0"
	handshakeTimeout = 10 * time.Second
	bridgeBuffer     = 64 << 10
	acceptPause      = 10 * time.Millisecond
)

// zapwire speaks plain ZAP. The bridges put Z-Wing around it: they copy bytes between a Z-Wing
// connection and a loopback one.

// bridgeServer copies every connection that secured accepts to a connection to plain. It returns nil
// once ctx has ended and all of them are closed.
func bridgeServer(ctx context.Context, secured net.Listener, plain string) error {
	var bridges sync.WaitGroup
	defer bridges.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { secured.Close() })
	defer stop()
	for {
		conn, err := secured.Accept()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("accept: %w", err)
		}
		if err != nil {
			// The reference's Accept tells of each handshake that failed. The pause is for failures that last.
			select {
			case <-ctx.Done():
			case <-time.After(acceptPause):
			}
			continue
		}
		bridges.Add(1)
		go func() {
			defer bridges.Done()
			bridgeTo(ctx, conn, plain)
		}()
	}
}

func bridgeTo(ctx context.Context, secured net.Conn, plain string) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", plain)
	if err != nil {
		secured.Close()
		return
	}
	splice(ctx, secured, conn)
}

// bridgeClient makes a Z-Wing connection to remote while dialling lasts, and returns a loopback address
// that takes one connection to it. The bridge lasts until ctx ends.
func bridgeClient(ctx, dialling context.Context, remote string, cfg *zwing.Config) (string, error) {
	var secured net.Conn
	secured, err := zwing.Dial(dialling, remote, cfg)
	if err != nil {
		return "", err
	}
	listener, err := net.Listen("tcp", loopback)
	if err != nil {
		secured.Close()
		return "", err
	}
	go func() {
		defer secured.Close()
		stop := context.AfterFunc(ctx, func() { listener.Close() })
		defer stop()
		conn, err := listener.Accept()
		listener.Close()
		if err == nil {
			splice(ctx, secured, conn)
		}
	}()
	return listener.Addr().String(), nil
}

// splice copies both ways, every read at once, until either side or ctx ends; it closes both sides.
func splice(ctx context.Context, a, b net.Conn) {
	closeBoth := func() {
		a.Close()
		b.Close()
	}
	stop := context.AfterFunc(ctx, closeBoth)
	defer stop()
	var copies sync.WaitGroup
	for _, pair := range [][2]net.Conn{{a, b}, {b, a}} {
		copies.Add(1)
		go func() {
			defer copies.Done()
			defer closeBoth()
			// Hiding the other methods of both keeps the buffer in use. An end is an end, however it came.
			io.CopyBuffer(struct{ io.Writer }{pair[0]}, struct{ io.Reader }{pair[1]}, make([]byte, bridgeBuffer))
		}()
	}
	copies.Wait()
}
