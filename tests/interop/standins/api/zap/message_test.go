package zap

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"runtime"
	"testing"
)

// goldenFrames returns the messages of the golden vectors, each with its length.
func goldenFrames(t testing.TB) [][]byte {
	t.Helper()
	encoded, err := os.ReadFile("../../../../vectors/messages.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct {
		Messages []struct{ Frame string }
		Errors   []struct {
			Request  string `json:"request_frame"`
			Response string `json:"response_frame"`
		}
	}
	if err := json.Unmarshal(encoded, &vectors); err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, message := range vectors.Messages {
		texts = append(texts, message.Frame)
	}
	for _, failure := range vectors.Errors {
		texts = append(texts, failure.Request, failure.Response)
	}
	if len(texts) == 0 {
		t.Fatal("no vectors")
	}
	frames := make([][]byte, len(texts))
	for i, text := range texts {
		if frames[i], err = hex.DecodeString(text); err != nil {
			t.Fatal(err)
		}
	}
	return frames
}

func encodeMessage(t testing.TB, m message) []byte {
	t.Helper()
	var stream bytes.Buffer
	if err := writeMessage(bufio.NewWriter(&stream), m); err != nil {
		t.Fatal(err)
	}
	return stream.Bytes()
}

func TestGoldenFrames(t *testing.T) {
	for _, frame := range goldenFrames(t) {
		m, err := readMessage(bytes.NewReader(frame))
		if err != nil {
			t.Fatalf("%x: %v", frame, err)
		}
		if m.id != 7 {
			t.Errorf("%x: id %d", frame, m.id)
		}
		if again := encodeMessage(t, m); !bytes.Equal(again, frame) {
			t.Errorf("%x became %x", frame, again)
		}
	}
}

func TestMessagesCutAnywhere(t *testing.T) {
	for _, m := range []message{{kind: 1, id: 2, body: []byte("abc")}, {body: make([]byte, firstAllocation+1)}} {
		frame := encodeMessage(t, m)
		for cut := range min(len(frame), 20) {
			_, err := readMessage(bytes.NewReader(frame[:cut]))
			want := io.ErrUnexpectedEOF
			if cut == 0 {
				want = io.EOF
			}
			if !errors.Is(err, want) {
				t.Errorf("cut at %d: %v, not %v", cut, err, want)
			}
		}
		if _, err := readMessage(bytes.NewReader(frame[:len(frame)-1])); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("all but the last byte: %v", err)
		}
	}
}

func TestLengthsBeyondTheLimits(t *testing.T) {
	for _, length := range []string{"00000000", "00000003", "01000001", "ffffffff"} {
		header, err := hex.DecodeString(length + "3e")
		if err != nil {
			t.Fatal(err)
		}
		// The header alone is enough: nothing is waited for.
		if _, err := readMessage(bytes.NewReader(header)); err == nil || errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("length %s: %v", length, err)
		}
	}
}

func TestAClaimedLengthAllocatesLittle(t *testing.T) {
	claim := []byte{0x01, 0, 0, 0, 0x3e, 0, 0, 0, 7, 'x'} // 16 MiB, of which one byte comes
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := readMessage(bytes.NewReader(claim)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if allocated := after.TotalAlloc - before.TotalAlloc; allocated > 1<<20 {
		t.Errorf("%d bytes allocated", allocated)
	}
}

func TestTheLargestMessage(t *testing.T) {
	m := message{kind: 62, id: 1, body: bytes.Repeat([]byte("ab"), maxBodySize/2)}
	read, err := readMessage(bytes.NewReader(encodeMessage(t, m)))
	if err != nil || !bytes.Equal(read.body, m.body) {
		t.Fatalf("%d bytes came back, error %v", len(read.body), err)
	}
	m.body = append(m.body, 'c')
	if err := writeMessage(bufio.NewWriter(io.Discard), m); !errors.Is(err, ErrMessageTooLarge) {
		t.Errorf("one byte more: %v", err)
	}
}

func FuzzReadMessage(f *testing.F) {
	for _, frame := range goldenFrames(f) {
		f.Add(frame)
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		m, err := readMessage(bytes.NewReader(stream))
		if err != nil {
			return
		}
		if again := encodeMessage(t, m); !bytes.HasPrefix(stream, again) {
			t.Errorf("%x became %x", stream, again)
		}
	})
}
