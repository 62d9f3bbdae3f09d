package zwing

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

// sessionKeys are one AEAD for each direction, and one for the responder's identity.
type sessionKeys struct {
	toResponder cipher.AEAD
	toInitiator cipher.AEAD
	identity    cipher.AEAD
}

func deriveKeys(secret []byte) (sessionKeys, error) {
	var keys sessionKeys
	for _, key := range []struct {
		label string
		aead  *cipher.AEAD
	}{
		{"lux.zwing.v1/i2r", &keys.toResponder},
		{"lux.zwing.v1/r2i", &keys.toInitiator},
		{"lux.zwing.v1/resp-id", &keys.identity},
	} {
		derived, err := deriveKey(secret, key.label)
		if err != nil {
			return sessionKeys{}, err
		}
		if *key.aead, err = chacha20poly1305.New(derived); err != nil {
			return sessionKeys{}, fmt.Errorf("ChaCha20-Poly1305: %w", err)
		}
	}
	return keys, nil
}

func deriveKey(secret []byte, label string) ([]byte, error) {
	key, err := hkdf.Key(sha256.New, secret, nil, label, chacha20poly1305.KeySize)
	if err != nil {
		return nil, fmt.Errorf("derive key: %w", err)
	}
	return key, nil
}
