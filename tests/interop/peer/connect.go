package main

import (
	"context"
	"fmt"
	"time"

	"github.com/luxfi/netrunner/zapwire"
	"github.com/luxfi/zwing"
)

// connect returns a zapwire.Client over a bridge, which lasts until ctx ends or the Client is closed.
func connect(ctx context.Context, address string, cfg *zwing.Config, timeout time.Duration) (*zapwire.Client, error) {
	dialling, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	plain, err := bridgeClient(ctx, dialling, address, cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	client, err := zapwire.Dial(dialling, plain)
	if err != nil {
		return nil, fmt.Errorf("connect to the bridge: %w", err)
	}
	return client, nil
}
