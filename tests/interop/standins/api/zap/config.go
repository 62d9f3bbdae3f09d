package zap

import "time"

// Config bounds a connection. Fields that are not positive mean the value of DefaultConfig.
type Config struct {
	// ReadTimeout is how long a client waits for bytes before it closes the connection, and a server
	// for the rest of a message that has begun.
	ReadTimeout time.Duration
	// WriteTimeout is how long a peer may take to read one message.
	WriteTimeout time.Duration
	// MaxConcurrent is how many requests of one connection a server runs at once; it reads no further
	// while there are as many.
	MaxConcurrent int
	// BufferSize is the size of a connection's buffers in bytes, one for each direction.
	BufferSize int
}

// DefaultConfig returns the bounds that a nil *Config means.
func DefaultConfig() *Config {
	return &Config{
		ReadTimeout:   30 * time.Second,
		WriteTimeout:  10 * time.Second,
		MaxConcurrent: 1000,
		BufferSize:    64 << 10,
	}
}

func (c *Config) orDefault() Config {
	complete := *DefaultConfig()
	if c == nil {
		return complete
	}
	if c.ReadTimeout > 0 {
		complete.ReadTimeout = c.ReadTimeout
	}
	if c.WriteTimeout > 0 {
		complete.WriteTimeout = c.WriteTimeout
	}
	if c.MaxConcurrent > 0 {
		complete.MaxConcurrent = c.MaxConcurrent
	}
	if c.BufferSize > 0 {
		complete.BufferSize = c.BufferSize
	}
	return complete
}
