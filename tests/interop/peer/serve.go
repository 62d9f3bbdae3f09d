package main

import (
	"context"
	"errors"
	"flag"
	"net"
	"os"
	"time"

	"github.com/luxfi/netrunner/zapwire"
	"github.com/luxfi/zwing"
)

// serve runs a netrunner server with the scripted backend behind Z-Wing.
func serve(ctx context.Context, args []string, t terminal) error {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	listen := flags.String("listen", loopback, "address")
	seed := flags.String("seed", "", "makes the identity reproducible")
	client := flags.String("client", "", "public identity of the only client to let in")
	if err := parse(flags, args, t.err, "listen"); err != nil {
		return err
	}
	cfg, err := configFor(*seed, *client)
	if err != nil {
		return err
	}
	pid := os.Getpid()
	server, err := zapwire.NewServer(loopback, &journal{newScripted(int32(pid)), t.out})
	if err != nil {
		return err
	}
	defer server.Close()
	var secured net.Listener
	secured, err = zwing.Listen(*listen, cfg)
	if err != nil {
		return err
	}
	defer secured.Close()
	err = t.out.print(struct {
		Address  string `json:"address"`
		Identity string `json:"identity"`
		PID      int    `json:"pid"`
	}{secured.Addr().String(), inHex(cfg.LocalIdentity.Public()), pid})
	if err != nil {
		return err
	}
	return serveBoth(ctx, t, server, secured)
}

// serveBoth runs the server and the bridge to it; the end of one ends the other.
func serveBoth(ctx context.Context, t terminal, server *zapwire.Server, secured net.Listener) error {
	ctx, cancel := untilEOF(ctx, t.in)
	defer cancel()
	served := make(chan error, 1)
	go func() {
		defer cancel()
		err := server.Serve(ctx)
		if ctx.Err() != nil {
			err = nil // it was asked to end
		}
		served <- err
	}()
	bridged := bridgeServer(ctx, secured, server.Addr())
	cancel()
	server.Close() // the reference's Serve returns only then
	select {
	case err := <-served:
		return errors.Join(bridged, err)
	case <-time.After(shutdownTimeout): // a handler hangs on a stdout that nobody reads
		return bridged
	}
}
