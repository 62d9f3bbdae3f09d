package zwing

import (
	"bytes"
	"crypto/sha3"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

func TestHandshakesThatAreRefused(t *testing.T) {
	v := goldenHandshakes(t)[0]
	initiator, responder := v.Initiator.identity(t), v.Responder.identity(t)
	init, response := payload(t, v.Frames[0].Bytes), payload(t, v.Frames[1].Bytes)
	asResponder := func(message []byte) error { _, _, err := respond(responder, nil, message); return err }
	asInitiator := func(message []byte) error { _, err := finish(initiator, nil, message); return err }

	for name, message := range spoiled(init) {
		if asResponder(message) == nil {
			t.Errorf("init, %s: taken", name)
		}
	}
	for name, message := range spoiled(response) {
		if asInitiator(message) == nil {
			t.Errorf("response, %s: taken", name)
		}
	}
	if _, err := finish(responder, nil, response); err == nil {
		t.Error("a response for somebody else: taken")
	}
}

// spoiled returns what a hostile peer may make of a message.
func spoiled(message []byte) map[string][]byte {
	spoil := func(at int) []byte {
		changed := bytes.Clone(message)
		changed[at] ^= 1
		return changed
	}
	return map[string][]byte{
		"empty":             {},
		"one byte":          message[:1],
		"cut":               message[:len(message)-1],
		"trailing byte":     append(bytes.Clone(message), 0),
		"first length":      spoil(0),
		"early byte":        spoil(40),
		"in the middle":     spoil(len(message) / 2),
		"length field":      spoil(xwingCiphertextSize + 1),
		"last byte":         spoil(len(message) - 1),
		"as long, but null": make([]byte, len(message)),
		"as long, but ones": bytes.Repeat([]byte{0xff}, len(message)),
	}
}

func TestPinning(t *testing.T) {
	initiator, responder, other := identityOf(t, "initiator"), identityOf(t, "responder"), identityOf(t, "other")
	init, err := initiate(initiator)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := respond(responder, other.Public(), init); !errors.Is(err, ErrIdentityMismatch) {
		t.Errorf("responder: %v", err)
	}
	response, ours, err := respond(responder, initiator.Public(), init)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := finish(initiator, other.Public(), response); !errors.Is(err, ErrIdentityMismatch) {
		t.Errorf("initiator: %v", err)
	}
	theirs, err := finish(initiator, responder.Public(), response)
	if err != nil {
		t.Fatal(err)
	}
	agree(t, ours, theirs)
}

func TestAnIdentityOfTheSameBytesIsTheSame(t *testing.T) {
	a, b, c := identityOf(t, "a"), identityOf(t, "a"), identityOf(t, "c")
	if !a.Public().Equal(b.Public()) || a.Public().Equal(c.Public()) || a.Public().Equal(nil) {
		t.Error("Equal is wrong")
	}
	parsed, err := ParseIdentityPublic(a.Public().MarshalBinary())
	if err != nil || !parsed.Equal(a.Public()) {
		t.Errorf("parsed: %v", err)
	}
	// The same with every version of Go: a restarted server must keep its identity.
	const want = "bc8106c3e88eb8d887ebe0752e4a898d345e5ef8de1f900c768a7dbd7f13f292"
	hash := sha3.Sum256(a.Public().MarshalBinary())
	if got := hex.EncodeToString(hash[:]); got != want {
		t.Errorf("the public identity's SHA3-256 is %s", got)
	}
}

func TestFreshIdentitiesDiffer(t *testing.T) {
	a, err := GenerateIdentity()
	if err != nil {
		t.Fatal(err)
	}
	b, err := GenerateIdentity()
	if err != nil {
		t.Fatal(err)
	}
	if a.Public().Equal(b.Public()) {
		t.Error("they are the same")
	}
}

func TestIdentitiesThatCannotBe(t *testing.T) {
	if _, err := GenerateIdentityFrom(strings.NewReader("too short")); err == nil {
		t.Error("generated of too few bytes")
	}
	public := identityOf(t, "a").Public().MarshalBinary()
	outOfRange := bytes.Clone(public)
	copy(outOfRange[32+1952:], []byte{0xff, 0xff, 0xff}) // ML-KEM coefficients beyond the modulus
	for _, encoded := range [][]byte{nil, public[1:], append(public, 0), outOfRange} {
		if _, err := ParseIdentityPublic(encoded); err == nil {
			t.Errorf("%d bytes: taken", len(encoded))
		}
	}
}

func TestAnAllZeroAgreementIsRefused(t *testing.T) {
	initiator := identityOf(t, "initiator")
	encoded := initiator.Public().MarshalBinary()
	clear(encoded[len(encoded)-x25519Size:])
	public, err := ParseIdentityPublic(encoded)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := public.xwing.encapsulate(); err == nil {
		t.Error("encapsulated to a point of low order")
	}
	_, ciphertext, err := initiator.Public().xwing.encapsulate()
	if err != nil {
		t.Fatal(err)
	}
	clear(ciphertext[len(ciphertext)-x25519Size:])
	if _, err := initiator.xwing.decapsulate(ciphertext); err == nil {
		t.Error("decapsulated with a point of low order")
	}
}

func identityOf(t testing.TB, seed string) *Identity {
	t.Helper()
	random := sha3.NewSHAKE256()
	random.Write([]byte(seed))
	identity, err := GenerateIdentityFrom(random)
	if err != nil {
		t.Fatal(err)
	}
	return identity
}
