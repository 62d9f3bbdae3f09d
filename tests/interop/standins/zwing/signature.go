package zwing

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"

	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
)

const (
	domain        = "lux.zwing.v1"
	signatureSize = ed25519.SignatureSize + mldsa65.SignatureSize
)

// digest is what both algorithms sign. A label is shorter than 256 bytes.
func digest(label string, message []byte) []byte {
	h := sha256.New()
	h.Write([]byte(domain))
	h.Write([]byte{byte(len(label))})
	h.Write([]byte(label))
	h.Write(message)
	return h.Sum(nil)
}

func (id *Identity) sign(label string, message []byte) ([]byte, error) {
	signed := digest(label, message)
	signature := make([]byte, signatureSize)
	copy(signature, ed25519.Sign(id.ed25519, signed))
	const hedged = true
	if err := mldsa65.SignTo(id.mldsa, signed, []byte(domain), hedged, signature[ed25519.SignatureSize:]); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return signature, nil
}

// verify reports whether both halves of the signature hold.
func (p *IdentityPublic) verify(label string, message, signature []byte) bool {
	if len(signature) != signatureSize {
		return false
	}
	signed := digest(label, message)
	return ed25519.Verify(p.ed25519, signed, signature[:ed25519.SignatureSize]) &&
		mldsa65.Verify(&p.mldsa, signed, []byte(domain), signature[ed25519.SignatureSize:])
}
