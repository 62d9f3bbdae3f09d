package zwing

import (
	"bytes"
	"crypto/ecdh"
	"crypto/mlkem"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	circl "github.com/cloudflare/circl/kem/mlkem/mlkem768"
	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
)

// octets are bytes that the golden vectors have in hex.
type octets []byte

func (o *octets) UnmarshalText(text []byte) (err error) {
	*o, err = hex.DecodeString(string(text))
	return err
}

func golden(t testing.TB, name string, vectors any) {
	t.Helper()
	encoded, err := os.ReadFile(filepath.Join("../../../vectors", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(encoded, vectors); err != nil {
		t.Fatal(err)
	}
}

func same(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s: %.40x…, not %.40x…", what, got, want)
	}
}

type seeds struct {
	Ed25519 octets `json:"ed25519_seed"`
	MLDSA   octets `json:"mldsa_seed"`
	MLKEM   octets `json:"mlkem_seed"`
	X25519  octets `json:"x25519_private"`
	Public  octets `json:"public_identity"`
}

func (s *seeds) identity(t testing.TB) *Identity {
	t.Helper()
	identity, err := newIdentity(s.Ed25519, (*[mldsa65.SeedSize]byte)(s.MLDSA), s.MLKEM, s.X25519)
	if err != nil {
		t.Fatal(err)
	}
	return identity
}

func TestGoldenXWing(t *testing.T) {
	var vectors struct {
		Combiner []struct {
			KEMSecret octets `json:"ss_m"`
			Agreed    octets `json:"ss_x"`
			Ephemeral octets `json:"ct_x"`
			Static    octets `json:"pk_x"`
			Secret    octets `json:"shared_secret"`
		} `json:"combiner_kats"`
		Encapsulations []struct {
			MLKEM      octets `json:"mlkem_seed"`
			X25519     octets `json:"x25519_private"`
			Public     octets `json:"public_key"`
			Random     octets `json:"encapsulation_randomness"`
			Ciphertext octets `json:"ciphertext"`
			Secret     octets `json:"shared_secret"`
		} `json:"encapsulations"`
	}
	golden(t, "xwing.json", &vectors)
	for _, v := range vectors.Combiner {
		same(t, "combined", combine(v.KEMSecret, v.Agreed, v.Ephemeral, v.Static), v.Secret)
	}
	for _, v := range vectors.Encapsulations {
		private := xwingKey(t, v.MLKEM, v.X25519)
		public := append(private.kem.EncapsulationKey().Bytes(), private.dh.PublicKey().Bytes()...)
		same(t, "public key", public, v.Public)
		secret, err := private.decapsulate(v.Ciphertext)
		if err != nil {
			t.Fatal(err)
		}
		same(t, "decapsulated", secret, v.Secret)
		same(t, "ciphertext", encapsulateWith(t, v.Public, v.Random), v.Ciphertext)
	}
}

func xwingKey(t *testing.T, mlkemSeed, x25519Key []byte) xwingPrivate {
	t.Helper()
	kem, err := mlkem.NewDecapsulationKey768(mlkemSeed)
	if err != nil {
		t.Fatal(err)
	}
	dh, err := ecdh.X25519().NewPrivateKey(x25519Key)
	if err != nil {
		t.Fatal(err)
	}
	return xwingPrivate{kem, dh}
}

// encapsulateWith makes the ciphertext of given randomness, which the standard library can't.
func encapsulateWith(t *testing.T, public, random []byte) []byte {
	t.Helper()
	var kem circl.PublicKey
	if err := kem.Unpack(public[:circl.PublicKeySize]); err != nil {
		t.Fatal(err)
	}
	ciphertext, secret := make([]byte, circl.CiphertextSize), make([]byte, circl.SharedKeySize)
	kem.EncapsulateTo(ciphertext, secret, random[:circl.EncapsulationSeedSize])
	ephemeral, err := ecdh.X25519().NewPrivateKey(random[circl.EncapsulationSeedSize:])
	if err != nil {
		t.Fatal(err)
	}
	return append(ciphertext, ephemeral.PublicKey().Bytes()...)
}

func TestGoldenIdentities(t *testing.T) {
	var vectors struct {
		Identities []struct {
			seeds
			Label     string
			Message   octets
			Digest    octets
			Signature octets
			Tampered  octets `json:"tampered_signature"`
		}
	}
	golden(t, "identity.json", &vectors)
	for _, v := range vectors.Identities {
		identity := v.identity(t)
		public := identity.Public()
		same(t, "public identity", public.MarshalBinary(), v.Public)
		same(t, "digest", digest(v.Label, v.Message), v.Digest)
		if !public.verify(v.Label, v.Message, v.Signature) {
			t.Error("the signature does not hold")
		}
		if public.verify(v.Label, v.Message, v.Tampered) {
			t.Error("the tampered signature holds")
		}
		own, err := identity.sign(v.Label, v.Message)
		if err != nil || !public.verify(v.Label, v.Message, own) {
			t.Errorf("our own signature does not hold (%v)", err)
		}
		if public.verify(responseLabel, v.Message, own) || public.verify(v.Label, v.Message[1:], own) || public.verify(v.Label, v.Message, own[1:]) {
			t.Error("a signature holds for something else")
		}
	}
}

type goldenHandshake struct {
	Initiator, Responder seeds
	Frames               []struct {
		Bytes octets
	}
	Ciphertext octets `json:"xwing_ciphertext"`
	Secret     octets `json:"shared_secret"`
	Transcript octets `json:"transcript_hash"`
	IDKey      octets `json:"resp_id_key"`
	IDPlain    octets `json:"resp_id_plaintext"`
	I2R        octets `json:"key_i2r"`
	R2I        octets `json:"key_r2i"`
	Records    []struct {
		Direction string
		Plaintext octets
		Frame     octets
	}
}

func goldenHandshakes(t testing.TB) []goldenHandshake {
	t.Helper()
	var vectors struct{ Handshakes []goldenHandshake }
	golden(t, "handshake.json", &vectors)
	if len(vectors.Handshakes) == 0 {
		t.Fatal("no vectors")
	}
	return vectors.Handshakes
}

// payload returns a frame's, and checks the length before it.
func payload(t testing.TB, frame []byte) []byte {
	t.Helper()
	read := frameReader{in: bytes.NewReader(frame), maximum: maxFrameSize}
	content, err := read.next()
	if err != nil || len(content)+frameHeaderSize != len(frame) {
		t.Fatalf("frame of %d bytes: %d, %v", len(frame), len(content), err)
	}
	return content
}

func TestGoldenHandshakes(t *testing.T) {
	for _, v := range goldenHandshakes(t) {
		initiator, responder := v.Initiator.identity(t), v.Responder.identity(t)
		for label, want := range map[string]octets{"i2r": v.I2R, "r2i": v.R2I, "resp-id": v.IDKey} {
			key, err := deriveKey(v.Secret, "lux.zwing.v1/"+label)
			if err != nil {
				t.Fatal(err)
			}
			same(t, label, key, want)
		}
		same(t, "transcript", transcript(initiator.Public(), v.Ciphertext), v.Transcript)

		keys, err := finish(initiator, responder.Public(), payload(t, v.Frames[1].Bytes))
		if err != nil {
			t.Fatalf("finish: %v", err)
		}
		opening := map[string]*direction{"i2r": {aead: keys.toResponder}, "r2i": {aead: keys.toInitiator}}
		sealing := map[string]*direction{"i2r": {aead: keys.toResponder}, "r2i": {aead: keys.toInitiator}}
		for _, record := range v.Records {
			sealed, err := sealing[record.Direction].seal(nil, record.Plaintext)
			if err != nil {
				t.Fatal(err)
			}
			same(t, "record", sealed, payload(t, record.Frame))
			opened, err := opening[record.Direction].open(sealed)
			if err != nil {
				t.Fatal(err)
			}
			same(t, "plaintext", opened, record.Plaintext)
		}

		response, ours, err := respond(responder, initiator.Public(), payload(t, v.Frames[0].Bytes))
		if err != nil {
			t.Fatalf("respond: %v", err)
		}
		theirs, err := finish(initiator, nil, response)
		if err != nil {
			t.Fatalf("finish our own response: %v", err)
		}
		agree(t, ours, theirs)
	}
}

func agree(t *testing.T, a, b sessionKeys) {
	t.Helper()
	nonce := make([]byte, a.toResponder.NonceSize())
	same(t, "key to the responder", a.toResponder.Seal(nil, nonce, nil, nil), b.toResponder.Seal(nil, nonce, nil, nil))
	same(t, "key to the initiator", a.toInitiator.Seal(nil, nonce, nil, nil), b.toInitiator.Seal(nil, nonce, nil, nil))
}
