package zwing

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/luxfi/api/zap"
)

func withinTime(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	t.Cleanup(cancel)
	return ctx
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

// echoing runs a ZAP server that answers with what it is asked, until the test ends.
func echoing(t *testing.T, cfg *Config) string {
	t.Helper()
	listener, err := ListenZAP("127.0.0.1:0", cfg)
	if err != nil {
		t.Fatal(err)
	}
	server := zap.NewServer(listener, zap.HandlerFunc(
		func(_ context.Context, kind zap.MessageType, payload []byte) (zap.MessageType, []byte, error) {
			return kind, payload, nil
		}))
	served := make(chan error, 1)
	go func() { served <- server.Serve(context.Background()) }()
	t.Cleanup(func() {
		server.Close()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return listener.Addr().String()
}

func TestZAPOverZWing(t *testing.T) {
	noLeak(t)
	client, server := identityOf(t, "client"), identityOf(t, "server")
	addr := echoing(t, &Config{LocalIdentity: server, ExpectedRemote: client.Public()})
	conn, err := DialZAP(withinTime(t), addr, &Config{LocalIdentity: client, ExpectedRemote: server.Public()})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, size := range []int{0, 1, 64 << 10, 16<<20 - 4} {
		sent := bytes.Repeat([]byte("x"), size)
		if _, got, err := conn.Call(withinTime(t), 62, sent); err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%d bytes: %d came back, %v", size, len(got), err)
		}
	}
}

func TestWrongPins(t *testing.T) {
	noLeak(t)
	client, server, other := identityOf(t, "client"), identityOf(t, "server"), identityOf(t, "other")
	addr := echoing(t, &Config{LocalIdentity: server, ExpectedRemote: client.Public()})

	_, err := Dial(withinTime(t), addr, &Config{LocalIdentity: client, ExpectedRemote: other.Public()})
	if !errors.Is(err, ErrIdentityMismatch) {
		t.Errorf("another server was expected: %v", err)
	}
	_, err = Dial(withinTime(t), addr, &Config{LocalIdentity: other})
	if !errors.Is(err, io.ErrUnexpectedEOF) && !strings.Contains(err.Error(), "reset") {
		t.Errorf("another client was expected: %v", err)
	}
	conn, err := Dial(withinTime(t), addr, &Config{LocalIdentity: client})
	if err != nil {
		t.Fatalf("the server does not go on: %v", err)
	}
	conn.Close()
}

func TestASilentClient(t *testing.T) {
	noLeak(t)
	addr := echoing(t, &Config{LocalIdentity: identityOf(t, "server"), HandshakeTimeout: 500 * time.Millisecond})
	silent, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	conn, err := Dial(withinTime(t), addr, &Config{LocalIdentity: identityOf(t, "client")})
	if err != nil {
		t.Fatalf("it keeps others out: %v", err)
	}
	conn.Close()
}

func TestClosingAListenerEndsTheHandshakeUnderWay(t *testing.T) {
	noLeak(t)
	listener, err := Listen("127.0.0.1:0", &Config{LocalIdentity: identityOf(t, "server"), HandshakeTimeout: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan error, 1)
	go func() {
		_, err := listener.Accept()
		accepted <- err
	}()
	silent, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	listener.Close()
	select {
	case err := <-accepted:
		if !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	case <-time.After(hang):
		t.Error("Accept hangs")
	}
}

func TestDiallingWhatIsNoPeer(t *testing.T) {
	noLeak(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	cfg := &Config{LocalIdentity: identityOf(t, "client")}

	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := Dial(ctx, listener.Addr().String(), cfg); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a server that says nothing: %v", err)
	}
	quick := &Config{LocalIdentity: cfg.LocalIdentity, HandshakeTimeout: 20 * time.Millisecond}
	if _, err := Dial(withinTime(t), listener.Addr().String(), quick); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the handshake's own time: %v", err)
	}
	listener.Close()
	if _, err := Dial(withinTime(t), listener.Addr().String(), cfg); err == nil {
		t.Error("nobody listens, and yet it connects")
	}
	if _, err := Dial(withinTime(t), listener.Addr().String(), nil); err == nil {
		t.Error("no identity, and yet it connects")
	}
}
