package main

import (
	"crypto/sha3"
	"encoding/hex"
	"fmt"

	"github.com/luxfi/zwing"
)

const seedDomain = "zap-gateway/interop/peer/identity:"

// identityFrom makes the same identity of the same seed, and a new one where seed is empty.
func identityFrom(seed string) (*zwing.Identity, error) {
	if seed == "" {
		return zwing.GenerateIdentity()
	}
	random := sha3.NewSHAKE256()
	random.Write([]byte(seedDomain + seed))
	return zwing.GenerateIdentityFrom(random)
}

// parsePinned reads a public identity in hex; empty text pins nobody.
func parsePinned(text string) (*zwing.IdentityPublic, error) {
	if text == "" {
		return nil, nil
	}
	encoded, err := hex.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("%w: a public identity is hex digits: %v", errUsage, err)
	}
	pinned, err := zwing.ParseIdentityPublic(encoded)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", errUsage, err)
	}
	return pinned, nil
}

func inHex(identity *zwing.IdentityPublic) string {
	return hex.EncodeToString(identity.MarshalBinary())
}

// configFor makes a Z-Wing configuration of what the flags say.
func configFor(seed, pinned string) (*zwing.Config, error) {
	remote, err := parsePinned(pinned)
	if err != nil {
		return nil, err
	}
	local, err := identityFrom(seed)
	if err != nil {
		return nil, err
	}
	return &zwing.Config{LocalIdentity: local, ExpectedRemote: remote, HandshakeTimeout: handshakeTimeout}, nil
}
