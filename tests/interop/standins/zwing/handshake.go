package zwing

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

const (
	initLabel       = "lux.zwing.v1/handshake-init"
	responseLabel   = "lux.zwing.v1/handshake-response"
	transcriptLabel = "lux.zwing.v1/transcript"
	responseNonce   = "zwing-resp-i" // the first 12 bytes of "zwing-resp-id"

	shortLength = 2 // bytes of a u16
	proofSize   = shortLength + publicIdentitySize + shortLength + signatureSize
	sealedSize  = proofSize + chacha20poly1305.Overhead

	initSize     = proofSize
	responseSize = xwingCiphertextSize + shortLength + sealedSize
)

// ErrIdentityMismatch is about a peer that is not the expected one.
var ErrIdentityMismatch = errors.New("the peer's identity is not the expected one")

var errMalformed = errors.New("malformed handshake")

// The handshake, without its frames: the initiator sends initiate, the responder answers with
// respond, and the initiator reads that with finish.

func initiate(local *Identity) ([]byte, error) {
	return prove(local, initLabel, local.public.encoded)
}

func respond(local *Identity, expected *IdentityPublic, init []byte) ([]byte, sessionKeys, error) {
	remote, signature, err := splitProof(init)
	if err != nil {
		return nil, sessionKeys{}, err
	}
	if err := remote.check(expected, initLabel, remote.encoded, signature); err != nil {
		return nil, sessionKeys{}, err
	}
	secret, ciphertext, err := remote.xwing.encapsulate()
	if err != nil {
		return nil, sessionKeys{}, err
	}
	keys, err := deriveKeys(secret)
	if err != nil {
		return nil, sessionKeys{}, err
	}
	proof, err := prove(local, responseLabel, transcript(remote, ciphertext))
	if err != nil {
		return nil, sessionKeys{}, err
	}
	response := make([]byte, 0, responseSize)
	response = append(response, ciphertext...)
	response = binary.BigEndian.AppendUint16(response, sealedSize)
	return keys.identity.Seal(response, []byte(responseNonce), proof, ciphertext), keys, nil
}

func finish(local *Identity, expected *IdentityPublic, response []byte) (sessionKeys, error) {
	if len(response) != responseSize {
		return sessionKeys{}, errMalformed
	}
	ciphertext, rest := response[:xwingCiphertextSize], response[xwingCiphertextSize:]
	sealed, err := cutCounted(&rest, sealedSize)
	if err != nil {
		return sessionKeys{}, err
	}
	secret, err := local.xwing.decapsulate(ciphertext)
	if err != nil {
		return sessionKeys{}, err
	}
	keys, err := deriveKeys(secret)
	if err != nil {
		return sessionKeys{}, err
	}
	proof, err := keys.identity.Open(nil, []byte(responseNonce), sealed, ciphertext)
	if err != nil {
		return sessionKeys{}, errors.New("the handshake's answer was not sealed for us")
	}
	remote, signature, err := splitProof(proof)
	if err != nil {
		return sessionKeys{}, err
	}
	err = remote.check(expected, responseLabel, transcript(local.public, ciphertext), signature)
	return keys, err
}

// check costs least where the peer is the wrong one.
func (p *IdentityPublic) check(expected *IdentityPublic, label string, message, signature []byte) error {
	if expected != nil && !p.Equal(expected) {
		return ErrIdentityMismatch
	}
	if !p.verify(label, message, signature) {
		return errors.New("the peer's signature does not hold")
	}
	return nil
}

func prove(local *Identity, label string, message []byte) ([]byte, error) {
	signature, err := local.sign(label, message)
	if err != nil {
		return nil, err
	}
	proof := make([]byte, 0, proofSize)
	proof = binary.BigEndian.AppendUint16(proof, publicIdentitySize)
	proof = append(proof, local.public.encoded...)
	proof = binary.BigEndian.AppendUint16(proof, signatureSize)
	return append(proof, signature...), nil
}

func splitProof(proof []byte) (*IdentityPublic, []byte, error) {
	encoded, err := cutCounted(&proof, publicIdentitySize)
	if err != nil {
		return nil, nil, err
	}
	signature, err := cutCounted(&proof, signatureSize)
	if err != nil {
		return nil, nil, err
	}
	if len(proof) != 0 {
		return nil, nil, errMalformed
	}
	remote, err := ParseIdentityPublic(encoded)
	if err != nil {
		return nil, nil, fmt.Errorf("the peer's identity: %w", err)
	}
	return remote, signature, nil
}

// cutCounted cuts a part with its u16 length off the front of rest. Every part has one size only.
func cutCounted(rest *[]byte, size int) ([]byte, error) {
	if len(*rest) < shortLength+size || int(binary.BigEndian.Uint16(*rest)) != size {
		return nil, errMalformed
	}
	part := (*rest)[shortLength : shortLength+size]
	*rest = (*rest)[shortLength+size:]
	return part, nil
}

// transcript is what a responder signs: who asked, and the ciphertext that only they can open.
func transcript(initiator *IdentityPublic, ciphertext []byte) []byte {
	counted := []byte(transcriptLabel)
	for _, part := range [][]byte{initiator.encoded, ciphertext} {
		counted = binary.BigEndian.AppendUint32(counted, uint32(len(part)))
		counted = append(counted, part...)
	}
	hash := sha256.Sum256(counted)
	return hash[:]
}
