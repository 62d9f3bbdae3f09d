package zap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

func echo(_ context.Context, kind MessageType, payload []byte) (MessageType, []byte, error) {
	return kind, payload, nil
}

func TestManyCallsAtOnce(t *testing.T) {
	noLeak(t)
	const calls = 500
	var all sync.WaitGroup
	all.Add(calls)
	// No answer before every request is there: they must run at once.
	conn := dialled(t, serving(t, nil, func(_ context.Context, kind MessageType, payload []byte) (MessageType, []byte, error) {
		all.Done()
		all.Wait()
		return kind, payload, nil
	}), nil)
	ctx := withinTime(t)
	failed := make(chan error, calls)
	for i := range calls {
		go func() {
			sent := []byte(fmt.Sprint(i))
			kind, got, err := conn.Call(ctx, 62, sent)
			if err == nil && (kind != 62|MsgResponseFlag || !bytes.Equal(got, sent)) {
				err = fmt.Errorf("sent %s, got %s of type 0x%02x", sent, got, kind)
			}
			failed <- err
		}()
	}
	for range calls {
		if err := receive(t, failed); err != nil {
			t.Error(err)
		}
	}
}

func TestErrorsAndPanics(t *testing.T) {
	noLeak(t)
	conn := dialled(t, serving(t, nil, func(_ context.Context, _ MessageType, payload []byte) (MessageType, []byte, error) {
		if string(payload) == "panic" {
			panic("asked to")
		}
		return 0, nil, errors.New(string(payload))
	}), nil)
	long := strings.Repeat("e", maxBodySize)
	for sent, want := range map[string]string{
		"":      "remote error: ",
		"nö":    "remote error: nö",
		"panic": "remote error: handler panic: asked to",
		long:    "remote error: " + long,
	} {
		if _, _, err := conn.Call(withinTime(t), 62, []byte(sent)); err == nil || err.Error() != want {
			t.Errorf("%.20s: %.60v", sent, err)
		}
	}
}

func TestTheLimitOfMessages(t *testing.T) {
	noLeak(t)
	conn := dialled(t, serving(t, nil, func(_ context.Context, kind MessageType, payload []byte) (MessageType, []byte, error) {
		return kind, append(payload, payload[0]), nil
	}), nil)
	payload := bytes.Repeat([]byte("z"), maxBodySize)
	_, got, err := conn.Call(withinTime(t), 62, payload[1:])
	if err != nil || !bytes.Equal(got, payload) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if _, _, err := conn.Call(withinTime(t), 62, payload); err == nil || !strings.Contains(err.Error(), ErrMessageTooLarge.Error()) {
		t.Errorf("an answer of one byte too many: %.60v", err)
	}
}

func TestMaxConcurrent(t *testing.T) {
	noLeak(t)
	started, release := make(chan struct{}, 3), make(chan struct{})
	conn := dialled(t, serving(t, &Config{MaxConcurrent: 2}, func(ctx context.Context, kind MessageType, _ []byte) (MessageType, []byte, error) {
		started <- struct{}{}
		select {
		case <-release:
		case <-ctx.Done():
		}
		return kind, nil, nil
	}), nil)
	calls := make([]<-chan outcome, 3)
	for i := range calls {
		calls[i] = calling(withinTime(t), conn, "")
	}
	receive(t, started)
	receive(t, started)
	select {
	case <-started:
		t.Error("a third request runs")
	case <-time.After(20 * time.Millisecond):
	}
	close(release)
	for _, call := range calls {
		if got := receive(t, call); got.err != nil {
			t.Error(got.err)
		}
	}
}

func TestAHandlersContextEndsWithTheConnection(t *testing.T) {
	noLeak(t)
	started, ended := make(chan struct{}), make(chan struct{})
	addr := serving(t, nil, func(ctx context.Context, kind MessageType, _ []byte) (MessageType, []byte, error) {
		close(started)
		<-ctx.Done()
		close(ended)
		return kind, nil, nil
	})
	conn := dialled(t, addr, nil)
	call := calling(withinTime(t), conn, "")
	receive(t, started)
	conn.Close()
	receive(t, ended)
	if got := receive(t, call); !errors.Is(got.err, errClosed) {
		t.Errorf("%+v", got)
	}
}

func TestClosingTheServer(t *testing.T) {
	noLeak(t)
	listener, err := Listen("127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	server := NewServer(listener, HandlerFunc(echo))
	served := make(chan error, 1)
	go func() { served <- server.Serve(context.Background()) }()
	conn := dialled(t, listener.Addr().String(), nil)
	if _, _, err := conn.Call(withinTime(t), 60, nil); err != nil {
		t.Fatal(err)
	}
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	if err := receive(t, served); err != nil {
		t.Error(err)
	}
	if _, _, err := conn.Call(withinTime(t), 60, nil); err == nil {
		t.Error("the connection lives on")
	}
}

func TestTheServerEndsHostileConnections(t *testing.T) {
	noLeak(t)
	addr := serving(t, nil, echo)
	for name, bytes := range map[string]string{
		"no id":    "\x00\x00\x00\x03\x3e\x00\x00\x00",
		"too long": "\x01\x00\x00\x01\x3e",
		"http":     "GET / HTTP/1.1\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(hang))
			if _, err := io.WriteString(conn, bytes); err != nil {
				t.Fatal(err)
			}
			if answer, err := io.ReadAll(conn); len(answer) != 0 || isTimeout(err) {
				t.Errorf("%x, %v", answer, err)
			}
		})
	}
	if _, _, err := dialled(t, addr, nil).Call(withinTime(t), 60, nil); err != nil {
		t.Errorf("another client: %v", err)
	}
}

func isTimeout(err error) bool {
	var failure net.Error
	return errors.As(err, &failure) && failure.Timeout()
}

func TestOnlyATornMessageTimesOut(t *testing.T) {
	noLeak(t)
	const pause = 20 * time.Millisecond
	addr := serving(t, &Config{ReadTimeout: pause}, echo)
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	time.Sleep(3 * pause) // silence is what this is about
	send(t, conn, message{62, 1, []byte("whole")})
	if got := take(t, conn); string(got.body) != "whole" {
		t.Errorf("%+v", got)
	}
	if _, err := conn.Write([]byte{0, 0, 0, 9, 62}); err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(hang))
	if rest, err := io.ReadAll(conn); len(rest) != 0 || isTimeout(err) {
		t.Errorf("%x, %v", rest, err)
	}
}
