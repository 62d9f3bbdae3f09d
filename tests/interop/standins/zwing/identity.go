// Package zwing stands in for github.com/luxfi/zwing: a post-quantum secure channel with mutual
// authentication, Z-Wing v1. Both sides prove an identity of four keys in one round trip.
package zwing

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/mlkem"
	"crypto/rand"
	"fmt"
	"io"

	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
)

const (
	x25519Size = 32

	xwingPublicSize    = mlkem.EncapsulationKeySize768 + x25519Size
	publicIdentitySize = ed25519.PublicKeySize + mldsa65.PublicKeySize + xwingPublicSize
)

// Identity is a peer's private keys.
type Identity struct {
	ed25519 ed25519.PrivateKey
	mldsa   *mldsa65.PrivateKey
	xwing   xwingPrivate
	public  *IdentityPublic
}

// IdentityPublic is what others know a peer by.
type IdentityPublic struct {
	encoded []byte
	ed25519 ed25519.PublicKey
	mldsa   mldsa65.PublicKey
	xwing   xwingPublic
}

// GenerateIdentity makes new keys.
func GenerateIdentity() (*Identity, error) { return GenerateIdentityFrom(rand.Reader) }

// GenerateIdentityFrom makes keys of the first 160 bytes of random: the same bytes, the same keys. The
// standard library's own generators promise less, so this takes seeds.
func GenerateIdentityFrom(random io.Reader) (*Identity, error) {
	var seeds struct {
		ed25519 [ed25519.SeedSize]byte
		mldsa   [mldsa65.SeedSize]byte
		mlkem   [mlkem.SeedSize]byte
		x25519  [x25519Size]byte
	}
	for _, seed := range [][]byte{seeds.ed25519[:], seeds.mldsa[:], seeds.mlkem[:], seeds.x25519[:]} {
		if _, err := io.ReadFull(random, seed); err != nil {
			return nil, fmt.Errorf("zwing: generate identity: %w", err)
		}
	}
	return newIdentity(seeds.ed25519[:], &seeds.mldsa, seeds.mlkem[:], seeds.x25519[:])
}

func newIdentity(ed25519Seed []byte, mldsaSeed *[mldsa65.SeedSize]byte, mlkemSeed, x25519Key []byte) (*Identity, error) {
	kem, err := mlkem.NewDecapsulationKey768(mlkemSeed)
	if err != nil {
		return nil, fmt.Errorf("ML-KEM-768 seed: %w", err)
	}
	dh, err := ecdh.X25519().NewPrivateKey(x25519Key)
	if err != nil {
		return nil, fmt.Errorf("X25519 key: %w", err)
	}
	classical := ed25519.NewKeyFromSeed(ed25519Seed)
	verifying, signing := mldsa65.NewKeyFromSeed(mldsaSeed)

	encoded := make([]byte, 0, publicIdentitySize)
	encoded = append(encoded, classical.Public().(ed25519.PublicKey)...)
	encoded = append(encoded, verifying.Bytes()...)
	encoded = append(encoded, kem.EncapsulationKey().Bytes()...)
	encoded = append(encoded, dh.PublicKey().Bytes()...)
	public, err := ParseIdentityPublic(encoded)
	if err != nil {
		return nil, err
	}
	return &Identity{classical, signing, xwingPrivate{kem, dh}, public}, nil
}

// Public returns what others know the identity by.
func (id *Identity) Public() *IdentityPublic { return id.public }

// ParseIdentityPublic reads the form that MarshalBinary writes.
func ParseIdentityPublic(encoded []byte) (*IdentityPublic, error) {
	if len(encoded) != publicIdentitySize {
		return nil, fmt.Errorf("public identity of %d bytes, not %d", len(encoded), publicIdentitySize)
	}
	public := &IdentityPublic{encoded: bytes.Clone(encoded)}
	rest := public.encoded
	public.ed25519, rest = ed25519.PublicKey(rest[:ed25519.PublicKeySize]), rest[ed25519.PublicKeySize:]
	if err := public.mldsa.UnmarshalBinary(rest[:mldsa65.PublicKeySize]); err != nil {
		return nil, fmt.Errorf("ML-DSA-65 public key: %w", err)
	}
	xwing, err := parseXWingPublic(rest[mldsa65.PublicKeySize:])
	if err != nil {
		return nil, err
	}
	public.xwing = xwing
	return public, nil
}

// MarshalBinary returns the 3200 bytes of the public keys.
func (p *IdentityPublic) MarshalBinary() []byte { return bytes.Clone(p.encoded) }

// Equal reports whether all four keys are the same.
func (p *IdentityPublic) Equal(other *IdentityPublic) bool {
	return p != nil && other != nil && bytes.Equal(p.encoded, other.encoded)
}
