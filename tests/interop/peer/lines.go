package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"sync"
)

// lines prints JSON, one value a line, each with one write.
type lines struct {
	mu  sync.Mutex
	out io.Writer
}

func (l *lines) print(value any) error {
	encoded, err := encodeJSON(value)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.out.Write(encoded); err != nil {
		return fmt.Errorf("stdout: %w", err)
	}
	return nil
}

// encodeJSON ends the value with a newline, and leaves <, > and & as they are.
func encodeJSON(value any) ([]byte, error) {
	var encoded bytes.Buffer
	encoder := json.NewEncoder(&encoded)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return nil, err
	}
	return encoded.Bytes(), nil
}
