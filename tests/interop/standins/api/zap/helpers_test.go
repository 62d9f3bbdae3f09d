package zap

import (
	"context"
	"net"
	"runtime"
	"testing"
	"time"
)

const hang = 20 * time.Second // after which a test is taken to hang

func withinTime(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	t.Cleanup(cancel)
	return ctx
}

// serving runs a handler until the test ends, and returns its address.
func serving(t *testing.T, cfg *Config, handler HandlerFunc) string {
	t.Helper()
	listener, err := Listen("127.0.0.1:0", cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- NewServer(listener, handler).Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := receive(t, served); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return listener.Addr().String()
}

func dialled(t *testing.T, addr string, cfg *Config) *Conn {
	t.Helper()
	conn, err := Dial(withinTime(t), addr, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func receive[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case value := <-from:
		return value
	case <-time.After(hang):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

// pipe returns a client and the server's side of its connection.
func pipe(t *testing.T, cfg *Config) (*Conn, net.Conn) {
	t.Helper()
	near, far := net.Pipe()
	conn := NewConn(near, cfg)
	t.Cleanup(func() {
		conn.Close()
		far.Close()
	})
	return conn, far
}

// noLeak fails the test where goroutines outlive what comes after it in the test.
func noLeak(t *testing.T) {
	t.Helper()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		for deadline := time.Now().Add(hang); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				stacks := make([]byte, 1<<16)
				t.Fatalf("goroutines left:\n%s", stacks[:runtime.Stack(stacks, true)])
			}
		}
	})
}
