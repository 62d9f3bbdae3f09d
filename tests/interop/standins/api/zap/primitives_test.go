package zap

import (
	"bytes"
	"errors"
	"io"
	"math"
	"testing"
)

func TestPrimitives(t *testing.T) {
	b := GetBuffer()
	defer PutBuffer(b)
	b.WriteUint8(0xff)
	b.WriteUint16(0x0102)
	b.WriteUint32(0x03040506)
	b.WriteUint64(math.MaxUint64 - 1)
	b.WriteInt32(-2)
	b.WriteInt64(math.MinInt64)
	b.WriteBool(true)
	b.WriteBool(false)
	b.WriteString("ü")
	b.WriteBytes([]byte{0, 1})
	want := []byte("\xff\x01\x02\x03\x04\x05\x06\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff\xfe" +
		"\x80\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x02\xc3\xbc\x00\x00\x00\x02\x00\x01")
	if !bytes.Equal(b.Bytes(), want) || b.Len() != len(want) {
		t.Fatalf("%x, not %x", b.Bytes(), want)
	}

	r := NewReader(want)
	expect(t, r.ReadUint8, 0xff)
	expect(t, r.ReadUint16, 0x0102)
	expect(t, r.ReadUint32, 0x03040506)
	expect(t, r.ReadUint64, math.MaxUint64-1)
	expect(t, r.ReadInt32, -2)
	expect(t, r.ReadInt64, math.MinInt64)
	expect(t, r.ReadBool, true)
	expect(t, r.ReadBool, false)
	expect(t, r.ReadString, "ü")
	if got, err := r.ReadBytes(); err != nil || !bytes.Equal(got, []byte{0, 1}) {
		t.Errorf("bytes: %x, %v", got, err)
	}
	if r.Remaining() != 0 {
		t.Errorf("%d bytes left", r.Remaining())
	}
}

func expect[T comparable](t *testing.T, read func() (T, error), want T) {
	t.Helper()
	if got, err := read(); err != nil || got != want {
		t.Errorf("%v, %v; not %v", got, err, want)
	}
}

func TestReadingTooMuch(t *testing.T) {
	for name, read := range map[string]func(*Reader) error{
		"u8":     func(r *Reader) error { _, err := r.ReadUint8(); return err },
		"u16":    func(r *Reader) error { _, err := r.ReadUint16(); return err },
		"u32":    func(r *Reader) error { _, err := r.ReadUint32(); return err },
		"u64":    func(r *Reader) error { _, err := r.ReadUint64(); return err },
		"bool":   func(r *Reader) error { _, err := r.ReadBool(); return err },
		"string": func(r *Reader) error { _, err := r.ReadString(); return err },
		"bytes":  func(r *Reader) error { _, err := r.ReadBytes(); return err },
	} {
		if err := read(NewReader(nil)); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s of nothing: %v", name, err)
		}
	}
	for _, counted := range []string{"\xff\xff\xff\xff", "\x00\x00\x00\x02a", "\x80\x00\x00\x00"} {
		if _, err := NewReader([]byte(counted)).ReadString(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("string %q: %v", counted, err)
		}
		if _, err := NewReader([]byte(counted)).ReadBytes(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("bytes %q: %v", counted, err)
		}
	}
}

func TestBytesReadStandAlone(t *testing.T) {
	source := []byte{0, 0, 0, 1, 'a'}
	got, err := NewReader(source).ReadBytes()
	source[4] = 'b'
	if err != nil || string(got) != "a" {
		t.Errorf("%q, %v", got, err)
	}
}
