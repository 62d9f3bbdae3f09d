package zwing

import (
	"crypto/ecdh"
	"crypto/mlkem"
	"crypto/rand"
	"crypto/sha3"
	"fmt"
)

const xwingCiphertextSize = mlkem.CiphertextSize768 + x25519Size

// xwingLabel is Z-Wing's own, and comes first. The IETF draft's is another and comes last.
const xwingLabel = "\x5c\x2e\x2fX-Wing"

type xwingPrivate struct {
	kem *mlkem.DecapsulationKey768
	dh  *ecdh.PrivateKey
}

type xwingPublic struct {
	kem *mlkem.EncapsulationKey768
	dh  *ecdh.PublicKey
}

func parseXWingPublic(encoded []byte) (xwingPublic, error) {
	kem, err := mlkem.NewEncapsulationKey768(encoded[:mlkem.EncapsulationKeySize768])
	if err != nil {
		return xwingPublic{}, fmt.Errorf("ML-KEM-768 public key: %w", err)
	}
	dh, err := ecdh.X25519().NewPublicKey(encoded[mlkem.EncapsulationKeySize768:])
	if err != nil {
		return xwingPublic{}, fmt.Errorf("X25519 public key: %w", err)
	}
	return xwingPublic{kem, dh}, nil
}

func (p xwingPublic) encapsulate() (secret, ciphertext []byte, err error) {
	ephemeral, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("ephemeral key: %w", err)
	}
	agreed, err := ephemeral.ECDH(p.dh) // fails where the result is all zeros
	if err != nil {
		return nil, nil, fmt.Errorf("X25519: %w", err)
	}
	kemSecret, kemCiphertext := p.kem.Encapsulate()
	public := ephemeral.PublicKey().Bytes()
	return combine(kemSecret, agreed, public, p.dh.Bytes()), append(kemCiphertext, public...), nil
}

func (p xwingPrivate) decapsulate(ciphertext []byte) ([]byte, error) {
	if len(ciphertext) != xwingCiphertextSize {
		return nil, fmt.Errorf("X-Wing ciphertext of %d bytes, not %d", len(ciphertext), xwingCiphertextSize)
	}
	kemCiphertext, public := ciphertext[:mlkem.CiphertextSize768], ciphertext[mlkem.CiphertextSize768:]
	kemSecret, err := p.kem.Decapsulate(kemCiphertext)
	if err != nil {
		return nil, fmt.Errorf("ML-KEM-768: %w", err)
	}
	ephemeral, err := ecdh.X25519().NewPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("X25519: %w", err)
	}
	agreed, err := p.dh.ECDH(ephemeral) // fails where the result is all zeros
	if err != nil {
		return nil, fmt.Errorf("X25519: %w", err)
	}
	return combine(kemSecret, agreed, public, p.dh.PublicKey().Bytes()), nil
}

func combine(kemSecret, agreed, ephemeral, static []byte) []byte {
	h := sha3.New256()
	h.Write([]byte(xwingLabel))
	h.Write(kemSecret)
	h.Write(agreed)
	h.Write(ephemeral)
	h.Write(static)
	return h.Sum(nil)
}
