package zwing

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"
)

const hang = 20 * time.Second // after which a test is taken to hang

// session returns two sides over a pipe, and the pipe's end of the second.
func session(t *testing.T) (a, b *Conn, raw net.Conn) {
	t.Helper()
	keys, err := deriveKeys(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	t.Cleanup(func() {
		near.Close()
		far.Close()
	})
	for _, conn := range []net.Conn{near, far} {
		conn.SetDeadline(time.Now().Add(hang))
	}
	return newConn(near, keys.toResponder, keys.toInitiator), newConn(far, keys.toInitiator, keys.toResponder), far
}

func TestRecords(t *testing.T) {
	for _, sizes := range [][]int{{1}, {64 << 10, 1}, {maxPlaintext}, {maxPlaintext + 1, 3}, {16 << 20}} {
		a, b, _ := session(t)
		var sent []byte
		go func() {
			for _, size := range sizes {
				a.Write(bytes.Repeat([]byte{byte(size)}, size))
			}
			a.Close()
		}()
		for _, size := range sizes {
			sent = append(sent, bytes.Repeat([]byte{byte(size)}, size)...)
		}
		if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%v: %d bytes, %v", sizes, len(got), err)
		}
	}
}

func TestARecordIsTwoWrites(t *testing.T) {
	a, _, raw := session(t)
	go a.Write(make([]byte, maxPlaintext+5))
	var writes []int
	buffer := make([]byte, maxFrameSize)
	for range 4 {
		n, err := raw.Read(buffer) // a pipe's read takes one write at most
		if err != nil {
			t.Fatal(err)
		}
		writes = append(writes, n)
	}
	if want := []int{4, maxFrameSize, 4, 5 + recordOverhead}; !slices.Equal(writes, want) {
		t.Errorf("%v, not %v", writes, want)
	}
}

func TestNothingIsNoRecord(t *testing.T) {
	a, b, _ := session(t)
	if n, err := a.Write(nil); n != 0 || err != nil {
		t.Errorf("write: %d, %v", n, err)
	}
	if n, err := b.Read(nil); n != 0 || err != nil {
		t.Errorf("read: %d, %v", n, err)
	}
}

func TestRecordsThatEndTheConnection(t *testing.T) {
	_, sealer, _ := session(t)
	good, err := sealer.sealing.seal(nil, []byte("hello"))
	if err != nil {
		t.Fatal(err)
	}
	empty := (&direction{aead: sealer.sealing.aead}).aead.Seal(nil, make([]byte, 12), nil, nil)
	forged := bytes.Clone(good)
	forged[3] ^= 1
	for name, stream := range map[string][]byte{
		"forged":         frameOf(forged),
		"short":          frameOf(good[:recordOverhead-1]),
		"empty":          frameOf(empty),
		"no length":      {0, 0, 0, 0},
		"too long":       {0, 0x10, 0, 1},
		"huge":           {0xff, 0xff, 0xff, 0xff},
		"replayed":       append(frameOf(good), frameOf(good)...),
		"cut in length":  frameOf(good)[:3],
		"cut in payload": frameOf(good)[:10],
	} {
		t.Run(name, func(t *testing.T) {
			a, _, raw := session(t)
			go func() {
				raw.Write(stream)
				raw.Close()
			}()
			got, err := io.ReadAll(a)
			if err == nil || (len(got) > 0) != (name == "replayed") {
				t.Errorf("%q, %v", got, err)
			}
			if _, again := a.Read(make([]byte, 1)); !errors.Is(again, err) {
				t.Errorf("then %v", again)
			}
		})
	}
}

func frameOf(payload []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(payload))), payload...)
}

func TestAReadDeadlineLosesNothing(t *testing.T) {
	a, b, _ := session(t)
	sealed, err := b.sealing.seal(nil, []byte("hello"))
	if err != nil {
		t.Fatal(err)
	}
	frame := frameOf(sealed)
	a.records.in = &halting{pieces: [][]byte{frame[:2], frame[2:10], frame[10:]}}
	got := make([]byte, 9)
	for range 3 {
		if n, err := a.Read(got); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("%d, %v", n, err)
		}
	}
	if n, err := a.Read(got); err != nil || string(got[:n]) != "hello" {
		t.Errorf("%q, %v", got[:n], err)
	}
}

// halting is a stream on which a deadline passes before each piece.
type halting struct {
	pieces [][]byte
	halted bool
}

func (h *halting) Read(p []byte) (int, error) {
	if h.halted = !h.halted; h.halted {
		return 0, os.ErrDeadlineExceeded
	}
	n := copy(p, h.pieces[0])
	if h.pieces[0] = h.pieces[0][n:]; len(h.pieces[0]) == 0 {
		h.pieces = h.pieces[1:]
	} else {
		h.halted = true // the rest of the piece is there already
	}
	return n, nil
}

func TestAFailedWriteIsTheLast(t *testing.T) {
	a, _, raw := session(t)
	go io.CopyN(io.Discard, raw, 10) // and then nothing more is read
	a.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	_, err := a.Write([]byte("torn"))
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	a.SetWriteDeadline(time.Now().Add(hang))
	go io.Copy(io.Discard, raw)
	if _, again := a.Write([]byte("more")); !errors.Is(again, err) {
		t.Errorf("then %v", again)
	}
}

func TestWritersAtOnce(t *testing.T) {
	a, b, _ := session(t)
	var writers sync.WaitGroup
	for i := range 8 {
		writers.Add(1)
		go func() {
			defer writers.Done()
			for range 50 {
				a.Write(bytes.Repeat([]byte{byte(i)}, 100))
			}
		}()
	}
	go func() {
		writers.Wait()
		a.Close()
	}()
	got, err := io.ReadAll(b)
	if err != nil || len(got) != 8*50*100 {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	for part := range slices.Chunk(got, 100) {
		if bytes.Count(part, part[:1]) != 100 {
			t.Fatal("two writes in one record")
		}
	}
}

func FuzzRecords(f *testing.F) {
	f.Add(frameOf([]byte("sixteen bytes and more")))
	f.Fuzz(func(t *testing.T, stream []byte) {
		keys, err := deriveKeys(make([]byte, 32))
		if err != nil {
			t.Fatal(err)
		}
		near, far := net.Pipe()
		defer near.Close()
		go func() {
			far.Write(stream)
			far.Close()
		}()
		if got, _ := io.ReadAll(newConn(near, keys.toResponder, keys.toInitiator)); len(got) > 0 {
			t.Errorf("%q out of what nobody sealed", got)
		}
	})
}
