// Package types stands in for github.com/luxfi/netrunner/zapwire/types: the messages of netrunner's
// control protocol. Fields are encoded in the order that the structs have them.
package types

import (
	"io"

	"github.com/luxfi/api/zap"
)

// Encoder is a message that can be written.
type Encoder interface {
	Encode(b *zap.Buffer)
}

// Decoder is a message that can be read. After an error its fields are worth nothing.
type Decoder interface {
	Decode(r *zap.Reader) error
}

// The least that an item takes, in bytes.
const (
	minString    = 4
	minStringMap = 2 * minString
	minNodeInfo  = 9*4 + 1
	minChainInfo = 6 * 4
)

// readCount refuses a count that the bytes left can't back, before anything is allocated for it.
func readCount(r *zap.Reader, minItem int) (int, error) {
	count, err := r.ReadUint32()
	if err != nil {
		return 0, err
	}
	if uint64(count)*uint64(minItem) > uint64(r.Remaining()) {
		return 0, io.ErrUnexpectedEOF
	}
	return int(count), nil
}

// readStrings reads strings one after the other.
func readStrings(r *zap.Reader, fields ...*string) error {
	for _, field := range fields {
		value, err := r.ReadString()
		if err != nil {
			return err
		}
		*field = value
	}
	return nil
}

func writeStrings(b *zap.Buffer, fields ...string) {
	for _, field := range fields {
		b.WriteString(field)
	}
}

func readList(r *zap.Reader, field *[]string) error {
	count, err := readCount(r, minString)
	if err != nil {
		return err
	}
	*field = make([]string, count)
	for i := range *field {
		if err := readStrings(r, &(*field)[i]); err != nil {
			return err
		}
	}
	return nil
}

func writeList(b *zap.Buffer, items []string) {
	b.WriteUint32(uint32(len(items)))
	writeStrings(b, items...)
}

// readMaps reads maps one after the other.
func readMaps(r *zap.Reader, fields ...*map[string]string) error {
	for _, field := range fields {
		count, err := readCount(r, minStringMap)
		if err != nil {
			return err
		}
		*field = make(map[string]string)
		for range count {
			var key, value string
			if err := readStrings(r, &key, &value); err != nil {
				return err
			}
			(*field)[key] = value
		}
	}
	return nil
}

func writeMaps(b *zap.Buffer, fields ...map[string]string) {
	for _, field := range fields {
		b.WriteUint32(uint32(len(field)))
		for key, value := range field {
			writeStrings(b, key, value)
		}
	}
}

// readOptional reads a string that may be absent.
func readOptional(r *zap.Reader, field *string, set *bool) (err error) {
	*field = ""
	if *set, err = r.ReadBool(); err != nil || !*set {
		return err
	}
	return readStrings(r, field)
}

func writeOptional(b *zap.Buffer, field string, set bool) {
	b.WriteBool(set)
	if set {
		b.WriteString(field)
	}
}

// readNullable reads a message that may be absent.
func readNullable[T any, P interface {
	*T
	Decoder
}](r *zap.Reader, field *P) error {
	*field = nil
	present, err := r.ReadBool()
	if err != nil || !present {
		return err
	}
	*field = new(T)
	return (*field).Decode(r)
}

func writeNullable[T any, P interface {
	*T
	Encoder
}](b *zap.Buffer, field P) {
	b.WriteBool(field != nil)
	if field != nil {
		field.Encode(b)
	}
}
