package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/luxfi/zwing"
)

func TestServerAndClient(t *testing.T) {
	noLeak(t)
	server, said := startServer(t)
	if said.PID != os.Getpid() || len(said.Identity) != 6400 {
		t.Errorf("%+v", said)
	}
	client := start(t, "client", "-address", said.Address, "-server", said.Identity)
	var first announcement
	if client.next(&first); len(first.Identity) != 6400 {
		t.Errorf("%+v", first)
	}
	for _, c := range []struct{ line, answer, noted string }{
		{`{"rpc":"RPCVersion"}`, `{"Version":1}`, `{"rpc":"RPCVersion","request":{}}`},
		{
			`{"rpc":"SendOutboundMessage","request":{"NodeName":"node1","Op":7,"MsgBody":"/w=="}}`, `{"Sent":true}`,
			`{"rpc":"SendOutboundMessage","request":{"NodeName":"node1","PeerID":"","Op":7,"MsgBody":"/w=="}}`,
		},
		{
			`{"rpc":"AttachPeer","request":{"NodeName":"sleep:1:<ü>"}}`,
			`{"ClusterInfo":null,"AttachedPeerInfo":{"ID":"<ü>"}}`,
			`{"rpc":"AttachPeer","request":{"NodeName":"sleep:1:<ü>"}}`,
		},
	} {
		if got := client.call(c.line); string(got.Response) != c.answer || got.Error != "" {
			t.Errorf("%s: %s %s", c.line, got.Response, got.Error)
		}
		if noted := <-server.lines; noted != c.noted+"\n" {
			t.Errorf("%s: noted %s", c.line, noted)
		}
	}
	got := client.call(`{"rpc":"PauseNode","request":{"Name":"no\"body"}}`)
	if got.Error != `remote error: node "no\"body" not found` {
		t.Errorf("%+v", got)
	}
	if got := client.call(`{"rpc":"AttachPeer","request":{"NodeName":"panic"}}`); got.Error != "remote error: handler panic: asked to" {
		t.Errorf("%+v", got)
	}
	if err := client.end(); err != nil {
		t.Errorf("client: %v", err)
	}
	if err := server.end(); err != nil {
		t.Errorf("server: %v", err)
	}
}

func TestEveryRPCReachesTheBackend(t *testing.T) {
	noLeak(t)
	server, said := startServer(t)
	client := start(t, "client", "-address", said.Address)
	client.next(&announcement{})
	for name := range calls {
		if got := client.call(`{"rpc":"` + name + `","request":{}}`); strings.Contains(got.Error, "unknown") {
			t.Errorf("%s: %s", name, got.Error)
		}
		var noted order
		if server.next(&noted); noted.RPC != name {
			t.Errorf("%s: noted %s", name, noted.RPC)
		}
	}
	if err := errors.Join(client.end(), server.end()); err != nil {
		t.Error(err)
	}
}

func TestPins(t *testing.T) {
	noLeak(t)
	identity, err := identityFrom("client")
	if err != nil {
		t.Fatal(err)
	}
	_, said := startServer(t, "-seed", "server", "-client", inHex(identity.Public()))
	right := start(t, "client", "-address", said.Address, "-server", said.Identity, "-seed", "client")
	if right.next(&announcement{}); string(right.call(`{"rpc":"RPCVersion"}`).Response) != `{"Version":1}` {
		t.Error("no answer")
	}
	stranger := start(t, "client", "-address", said.Address, "-seed", "stranger")
	if err := stranger.result(); err == nil || !strings.Contains(err.Error(), "handshake") {
		t.Errorf("a stranger: %v", err)
	}
	misled := start(t, "client", "-address", said.Address, "-server", inHex(identity.Public()), "-seed", "client")
	if err := misled.result(); !errors.Is(err, zwing.ErrIdentityMismatch) {
		t.Errorf("a wrong server: %v", err)
	}
}

func TestALostConnectionEndsTheClient(t *testing.T) {
	noLeak(t)
	server, said := startServer(t)
	client := start(t, "client", "-address", said.Address)
	client.next(&announcement{})
	client.call(`{"rpc":"Ping"}`)
	if err := server.end(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(client.stdin, `{"rpc":"Ping"}`+"\n"); err != nil {
		t.Fatal(err)
	}
	if err := client.result(); status(err, io.Discard) != 1 {
		t.Errorf("%v", err)
	}
}

func TestACallsTimeout(t *testing.T) {
	noLeak(t)
	_, said := startServer(t)
	client := start(t, "client", "-address", said.Address, "-timeout", "2s")
	client.next(&announcement{})
	got := client.call(`{"rpc":"AttachPeer","request":{"NodeName":"sleep:600000:late"}}`)
	if got.Error != context.DeadlineExceeded.Error() {
		t.Errorf("%+v", got)
	}
	if got := client.call(`{"rpc":"RPCVersion"}`); got.Error != "" {
		t.Errorf("then %+v", got)
	}
}

func TestOrdersThatMakeNoSense(t *testing.T) {
	noLeak(t)
	_, said := startServer(t)
	for _, line := range []string{
		`nonsense`, `{"rpc":"Nonsense"}`, `{"rpc":"AddNode","request":{"name_":"x"}}`, `{"rpc":"AddNode","request":[]}`,
	} {
		client := start(t, "client", "-address", said.Address)
		client.next(&announcement{})
		io.WriteString(client.stdin, line+"\n")
		if err := client.result(); status(err, io.Discard) != 1 {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func TestExitStatus(t *testing.T) {
	noLeak(t)
	for args, want := range map[string]int{
		"":                         2,
		"nonsense":                 2,
		"serve more":               2,
		"serve -nonsense":          2,
		"serve -client zz":         2,
		"serve -client 00":         2,
		"client":                   2,
		"gateway -address a":       2,
		"load -address a":          2,
		"serve -h":                 0,
		"serve -listen nonsense":   1,
		"client -address nonsense": 1,
	} {
		p := start(t, strings.Fields(args)...)
		var printed strings.Builder
		if got := status(p.result(), &printed); got != want {
			t.Errorf("%q: %d %s", args, got, printed.String())
		} else if want == 1 && strings.Count(printed.String(), "\n") != 1 {
			t.Errorf("%q: not one line: %q", args, printed.String())
		}
	}
}

func TestASignalIsNoFailure(t *testing.T) {
	noLeak(t)
	ctx, cancel := context.WithCancel(context.Background())
	in, stdin := io.Pipe()
	defer stdin.Close()
	stdout, out := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, []string{"serve"}, terminal{in, &lines{out: out}, io.Discard}) }()
	if _, err := stdout.Read(make([]byte, 1<<14)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestHelpIsNoFailure(t *testing.T) {
	var printed strings.Builder
	if err := parse(flag.NewFlagSet("", flag.ContinueOnError), []string{"-h"}, &printed); !errors.Is(err, flag.ErrHelp) || printed.Len() == 0 {
		t.Errorf("%v, %q", err, printed.String())
	}
}

func TestASeedMakesOneIdentity(t *testing.T) {
	a, err := identityFrom("a")
	if err != nil {
		t.Fatal(err)
	}
	again, err := identityFrom("a")
	if err != nil {
		t.Fatal(err)
	}
	other, err := identityFrom("b")
	if err != nil {
		t.Fatal(err)
	}
	if !a.Public().Equal(again.Public()) || a.Public().Equal(other.Public()) {
		t.Error("a seed does not tell identities apart")
	}
}
