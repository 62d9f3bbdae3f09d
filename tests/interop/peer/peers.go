package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/luxfi/netrunner/zapwire/types"
)

const (
	largestPeerID = 32 << 20 // twice what a message carries
	longestSleep  = time.Hour
)

// AttachPeer attaches a peer to any node. Special names make it answer in special ways.
func (s *scripted) AttachPeer(ctx context.Context, request *types.AttachPeerRequest) (*types.AttachPeerResponse, error) {
	kind, rest, _ := strings.Cut(request.NodeName, ":")
	switch kind {
	case "size":
		return sizedPeer(rest)
	case "sleep":
		return sleepingPeer(ctx, rest)
	case "text":
		return nil, errors.New(rest)
	case "none":
		return &types.AttachPeerResponse{}, nil
	case "panic":
		panic("asked to")
	}
	answer := peerOf("peer-of-" + request.NodeName)
	answer.ClusterInfo = s.cluster.info()
	return answer, nil
}

func peerOf(id string) *types.AttachPeerResponse {
	return &types.AttachPeerResponse{AttachedPeerInfo: &types.AttachedPeerInfo{ID: id}}
}

// sizedPeer has an id of as many letters as the text says.
func sizedPeer(text string) (*types.AttachPeerResponse, error) {
	size, err := strconv.Atoi(text)
	if err != nil || size < 0 || size > largestPeerID {
		return nil, fmt.Errorf("size:N needs a number from 0 to %d", largestPeerID)
	}
	return peerOf(strings.Repeat("a", size)), nil
}

// sleepingPeer answers late: milliseconds, a colon, the peer's id.
func sleepingPeer(ctx context.Context, text string) (*types.AttachPeerResponse, error) {
	number, word, found := strings.Cut(text, ":")
	milliseconds, err := strconv.ParseUint(number, 10, 32)
	pause := time.Duration(milliseconds) * time.Millisecond
	if err != nil || !found || pause > longestSleep {
		return nil, fmt.Errorf("sleep:MS:word needs a number of milliseconds, at most %v", longestSleep)
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return peerOf(word), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
