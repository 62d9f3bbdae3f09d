package zap

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

type outcome struct {
	body []byte
	err  error
}

// calling makes a call in a goroutine.
func calling(ctx context.Context, conn *Conn, payload string) <-chan outcome {
	ended := make(chan outcome, 1)
	go func() {
		_, body, err := conn.Call(ctx, 62, []byte(payload))
		ended <- outcome{body, err}
	}()
	return ended
}

func take(t *testing.T, conn net.Conn) message {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(hang))
	m, err := readMessage(conn)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func send(t *testing.T, conn net.Conn, m message) {
	t.Helper()
	conn.SetWriteDeadline(time.Now().Add(hang))
	if _, err := conn.Write(encodeMessage(t, m)); err != nil {
		t.Fatal(err)
	}
}

func TestAnswersInAnyOrder(t *testing.T) {
	noLeak(t)
	conn, server := pipe(t, nil)
	ctx := withinTime(t)
	first := calling(ctx, conn, "first")
	request := take(t, server)
	second := calling(ctx, conn, "second")
	later := take(t, server)
	if request.id == later.id {
		t.Fatal("one id for two calls")
	}
	send(t, server, message{62 | MsgResponseFlag, later.id, []byte("2")})
	if got := receive(t, second); got.err != nil || string(got.body) != "2" {
		t.Errorf("second: %+v", got)
	}
	send(t, server, message{62 | MsgResponseFlag | MsgErrorFlag, request.id, []byte("no")})
	if got := receive(t, first); got.err == nil || got.err.Error() != "remote error: no" {
		t.Errorf("first: %+v", got)
	}
}

func TestALateAnswerIsDropped(t *testing.T) {
	noLeak(t)
	conn, server := pipe(t, nil)
	ctx, giveUp := context.WithCancel(withinTime(t))
	first := calling(ctx, conn, "first")
	abandoned := take(t, server)
	giveUp()
	if got := receive(t, first); !errors.Is(got.err, context.Canceled) {
		t.Fatalf("%+v", got)
	}
	send(t, server, message{62 | MsgResponseFlag, abandoned.id, []byte("late")})
	second := calling(withinTime(t), conn, "second")
	request := take(t, server)
	send(t, server, message{62 | MsgResponseFlag, request.id, []byte("2")})
	send(t, server, message{62 | MsgResponseFlag, request.id, []byte("again")})
	if got := receive(t, second); got.err != nil || string(got.body) != "2" {
		t.Errorf("%+v", got)
	}
}

func TestAnAnswerOfAnotherTypeEndsTheConnection(t *testing.T) {
	for _, kind := range []MessageType{62, 61 | MsgResponseFlag, 62 | MsgErrorFlag} {
		noLeak(t)
		conn, server := pipe(t, nil)
		call := calling(withinTime(t), conn, "")
		send(t, server, message{kind, take(t, server).id, nil})
		if got := receive(t, call); got.err == nil {
			t.Errorf("type 0x%02x: taken", kind)
		}
		if _, _, err := conn.Call(withinTime(t), 62, nil); err == nil {
			t.Errorf("type 0x%02x: the connection lives on", kind)
		}
	}
}

func TestEveryCallEndsWithTheConnection(t *testing.T) {
	noLeak(t)
	conn, server := pipe(t, nil)
	first := calling(withinTime(t), conn, "")
	take(t, server)
	second := calling(withinTime(t), conn, "")
	take(t, server)
	answer := encodeMessage(t, message{62 | MsgResponseFlag, 1, []byte("torn")})
	if _, err := server.Write(answer[:len(answer)-1]); err != nil {
		t.Fatal(err)
	}
	server.Close()
	for _, call := range []<-chan outcome{first, second} {
		if got := receive(t, call); !errors.Is(got.err, io.ErrUnexpectedEOF) {
			t.Errorf("%+v", got)
		}
	}
}

func TestAQuietConnectionIsClosed(t *testing.T) {
	noLeak(t)
	conn, server := pipe(t, &Config{ReadTimeout: time.Millisecond})
	if _, err := server.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the server's side: %v", err)
	}
	if _, _, err := conn.Call(withinTime(t), 60, nil); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a call: %v", err)
	}
}

func TestAPeerThatReadsNothing(t *testing.T) {
	noLeak(t)
	conn, _ := pipe(t, &Config{WriteTimeout: 50 * time.Millisecond})
	stuck := calling(withinTime(t), conn, "")
	ctx, giveUp := context.WithCancel(withinTime(t))
	giveUp()
	if _, _, err := conn.Call(ctx, 62, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a call that was given up: %v", err)
	}
	if got := receive(t, stuck); !errors.Is(got.err, os.ErrDeadlineExceeded) {
		t.Errorf("%+v", got)
	}
}

func TestARequestTooLargeIsNotSent(t *testing.T) {
	noLeak(t)
	conn, server := pipe(t, nil)
	if _, _, err := conn.Call(withinTime(t), 62, make([]byte, maxBodySize+1)); !errors.Is(err, ErrMessageTooLarge) {
		t.Fatal(err)
	}
	call := calling(withinTime(t), conn, "small")
	send(t, server, message{62 | MsgResponseFlag, take(t, server).id, nil})
	if got := receive(t, call); got.err != nil {
		t.Errorf("the next call: %v", got.err)
	}
}

func TestIdsWrapAroundThoseInUse(t *testing.T) {
	noLeak(t)
	conn, server := pipe(t, nil)
	first := calling(withinTime(t), conn, "")
	taken := take(t, server)
	conn.mu.Lock()
	conn.lastID = taken.id - 1
	conn.mu.Unlock()
	second := calling(withinTime(t), conn, "")
	other := take(t, server)
	if other.id == taken.id {
		t.Fatal("an id in use was taken again")
	}
	for _, m := range []message{taken, other} {
		send(t, server, message{62 | MsgResponseFlag, m.id, nil})
	}
	if a, b := receive(t, first), receive(t, second); a.err != nil || b.err != nil {
		t.Errorf("%v, %v", a.err, b.err)
	}
}

func TestHostileAnswers(t *testing.T) {
	for name, bytes := range map[string][]byte{
		"no id":    {0, 0, 0, 3, 0xbe, 0, 0, 0},
		"too long": {0x01, 0, 0, 1, 0xbe},
		"huge":     {0xff, 0xff, 0xff, 0xff, 0xbe},
		"http":     []byte("HTTP/1.1 400 Bad Request\r\n\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			noLeak(t)
			conn, server := pipe(t, nil)
			call := calling(withinTime(t), conn, "")
			take(t, server)
			go server.Write(bytes)
			if got := receive(t, call); got.err == nil || !strings.Contains(got.err.Error(), "are allowed") {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestWhatABigMessageIsWrittenIn(t *testing.T) {
	noLeak(t)
	near, far := net.Pipe()
	conn := NewConn(near, nil)
	defer conn.Close()
	call := calling(withinTime(t), conn, strings.Repeat("x", 200<<10))
	first := make([]byte, 300<<10)
	n, err := far.Read(first) // a pipe's read takes one write at most
	if err != nil || n != 64<<10 {
		t.Errorf("%d bytes first, %v", n, err)
	}
	rest, err := far.Read(first[n:])
	if err != nil || n+rest != headerSize+requestIDSize+200<<10 {
		t.Errorf("then %d bytes, %v", rest, err)
	}
	if id := binary.BigEndian.Uint32(first[headerSize:]); id == 0 || !bytes.Contains(first, []byte("xxx")) {
		t.Errorf("id %d", id)
	}
	far.Close()
	receive(t, call)
}
