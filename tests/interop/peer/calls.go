package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/luxfi/netrunner/zapwire"
	"github.com/luxfi/netrunner/zapwire/types"
)

// rpc makes a call of a JSON request, whose names are Go's own.
type rpc func(ctx context.Context, client *zapwire.Client, request json.RawMessage) (any, error)

var calls = map[string]rpc{
	"Ping":                without((*zapwire.Client).Ping),
	"RPCVersion":          without((*zapwire.Client).RPCVersion),
	"Health":              without((*zapwire.Client).Health),
	"URIs":                without(uris),
	"Status":              without((*zapwire.Client).Status),
	"WaitForHealthy":      without((*zapwire.Client).WaitForHealthy),
	"Stop":                without((*zapwire.Client).Stop),
	"AddNode":             with((*zapwire.Client).AddNode),
	"RemoveNode":          with((*zapwire.Client).RemoveNode),
	"RestartNode":         with((*zapwire.Client).RestartNode),
	"PauseNode":           with((*zapwire.Client).PauseNode),
	"ResumeNode":          with((*zapwire.Client).ResumeNode),
	"AttachPeer":          with((*zapwire.Client).AttachPeer),
	"SendOutboundMessage": with((*zapwire.Client).SendOutboundMessage),
}

func uris(client *zapwire.Client, ctx context.Context) (types.URIsResponse, error) {
	found, err := client.URIs(ctx)
	return types.URIsResponse{URIs: found}, err
}

func without[A any](method func(*zapwire.Client, context.Context) (A, error)) rpc {
	return func(ctx context.Context, client *zapwire.Client, _ json.RawMessage) (any, error) {
		return method(client, ctx)
	}
}

func with[R, A any](method func(*zapwire.Client, context.Context, *R) (A, error)) rpc {
	return func(ctx context.Context, client *zapwire.Client, encoded json.RawMessage) (any, error) {
		request := new(R)
		if err := decodeStrictly(encoded, request); err != nil {
			return nil, err
		}
		return method(client, ctx, request)
	}
}

// decodeStrictly refuses names that the request does not have: a test that misspells one must fail.
func decodeStrictly(encoded json.RawMessage, request any) error {
	if len(encoded) == 0 {
		return nil
	}
	decoder := json.NewDecoder(bytes.NewReader(encoded))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(request); err != nil {
		return fmt.Errorf("request: %w", err)
	}
	return nil
}
