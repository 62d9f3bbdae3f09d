package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"time"

	"github.com/luxfi/netrunner/zapwire"
)

// order is a line of stdin.
type order struct {
	RPC     string          `json:"rpc"`
	Request json.RawMessage `json:"request"`
}

// client makes the calls that stdin asks for, one after the other.
func client(ctx context.Context, args []string, t terminal) error {
	flags := flag.NewFlagSet("client", flag.ContinueOnError)
	address := flags.String("address", "", "the server's")
	server := flags.String("server", "", "the server's public identity")
	seed := flags.String("seed", "", "makes the identity reproducible")
	timeout := flags.Duration("timeout", time.Minute, "of the connection, and of each call")
	if err := parse(flags, args, t.err, "address"); err != nil {
		return err
	}
	cfg, err := configFor(*seed, *server)
	if err != nil {
		return err
	}
	err = t.out.print(struct {
		Identity string `json:"identity"`
	}{inHex(cfg.LocalIdentity.Public())})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	connection, err := connect(ctx, *address, cfg, *timeout)
	if err != nil {
		return err
	}
	defer connection.Close()
	orders, failed := readOrders(ctx, t.in)
	for {
		select {
		case next := <-orders:
			if err := obey(ctx, connection, next, *timeout, t.out); err != nil {
				return err
			}
		case err := <-failed:
			return err
		case <-ctx.Done():
			return nil
		}
	}
}

func obey(ctx context.Context, connection *zapwire.Client, next order, timeout time.Duration, out *lines) error {
	call, known := calls[next.RPC]
	if !known {
		return fmt.Errorf("unknown rpc %q", next.RPC)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	response, err := call(ctx, connection, next.Request)
	if err != nil {
		if !answered(err) {
			return err
		}
		return out.print(struct {
			RPC   string `json:"rpc"`
			Error string `json:"error"`
		}{next.RPC, err.Error()})
	}
	return out.print(struct {
		RPC      string `json:"rpc"`
		Response any    `json:"response"`
	}{next.RPC, response})
}

// answered reports whether the connection outlives the error.
func answered(err error) bool {
	return isRemote(err) || errors.Is(err, context.DeadlineExceeded)
}

// readOrders sends what stdin asks for; then, on the second channel, nil or why it can't be read.
func readOrders(ctx context.Context, in io.Reader) (<-chan order, <-chan error) {
	orders, failed := make(chan order), make(chan error, 1)
	go func() {
		decoder := json.NewDecoder(in)
		for {
			var next order
			if err := decoder.Decode(&next); err != nil {
				if errors.Is(err, io.EOF) {
					err = nil
				}
				failed <- wrapped("stdin", err)
				return
			}
			select {
			case orders <- next:
			case <-ctx.Done():
				return
			}
		}
	}()
	return orders, failed
}

func wrapped(context string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", context, err)
}
