package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"runtime"
	"testing"
	"time"
)

const hang = 20 * time.Second // after which a test is taken to hang

// program is a mode that runs in this process.
type program struct {
	t     *testing.T
	lines chan string
	stdin *io.PipeWriter
	ended chan error
}

func start(t *testing.T, args ...string) *program {
	t.Helper()
	in, stdin := io.Pipe()
	stdout, out := io.Pipe()
	p := &program{t, make(chan string, 1<<14), stdin, make(chan error, 1)}
	go func() {
		err := run(context.Background(), args, terminal{in, &lines{out: out}, io.Discard})
		out.Close()
		in.Close()
		p.ended <- err
	}()
	go func() {
		defer close(p.lines)
		for printed := bufio.NewReader(stdout); ; {
			line, err := printed.ReadString('\n')
			if err != nil {
				return
			}
			p.lines <- line
		}
	}()
	t.Cleanup(func() { stdin.Close() })
	return p
}

// next decodes the next line that the program prints.
func (p *program) next(value any) {
	p.t.Helper()
	select {
	case line, more := <-p.lines:
		if !more {
			p.t.Fatalf("it ended: %v", <-p.ended)
		}
		if err := json.Unmarshal([]byte(line), value); err != nil {
			p.t.Fatalf("%q: %v", line, err)
		}
	case <-time.After(hang):
		p.t.Fatal("it prints nothing")
	}
}

// end closes stdin and returns how the program ended.
func (p *program) end() error {
	p.t.Helper()
	p.stdin.Close()
	return p.result()
}

func (p *program) result() error {
	p.t.Helper()
	select {
	case err := <-p.ended:
		return err
	case <-time.After(hang):
		p.t.Fatal("it does not end")
		return nil
	}
}

type announcement struct {
	Address, Identity string
	PID               int
}

func startServer(t *testing.T, args ...string) (*program, announcement) {
	t.Helper()
	server := start(t, append([]string{"serve"}, args...)...)
	var said announcement
	server.next(&said)
	return server, said
}

type reply struct {
	RPC      string
	Response json.RawMessage
	Error    string
}

// call makes the client program call, and checks that it answers with the right name.
func (p *program) call(line string) reply {
	p.t.Helper()
	if _, err := io.WriteString(p.stdin, line+"\n"); err != nil {
		p.t.Fatal(err)
	}
	var order order
	var answer reply
	if err := json.Unmarshal([]byte(line), &order); err != nil {
		p.t.Fatal(err)
	}
	if p.next(&answer); answer.RPC != order.RPC {
		p.t.Errorf("asked for %s, answered %s", order.RPC, answer.RPC)
	}
	return answer
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
