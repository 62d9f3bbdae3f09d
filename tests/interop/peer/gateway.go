package main

import (
	"context"
	"errors"
	"flag"
	"net"
	"net/http"
	"time"

	"github.com/luxfi/api/zap"
	"github.com/luxfi/netrunner/zapwire"
	"github.com/luxfi/netrunner/zapwire/types"
)

const (
	readHeaderTimeout = 10 * time.Second
	callTimeout       = 30 * time.Second
	shutdownTimeout   = 2 * time.Second
)

// gateway is what the Python gateway's reading calls look like in plain Go: the benchmarks compare them.
func gateway(ctx context.Context, args []string, t terminal) error {
	flags := flag.NewFlagSet("gateway", flag.ContinueOnError)
	listen := flags.String("listen", loopback, "address")
	address := flags.String("address", "", "the server's")
	server := flags.String("server", "", "the server's public identity")
	if err := parse(flags, args, t.err, "listen", "address", "server"); err != nil {
		return err
	}
	cfg, err := configFor("", *server)
	if err != nil {
		return err
	}
	up := newUpstream(*address, cfg)
	defer up.close()
	if _, err := up.connect(ctx); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	err = t.out.print(struct {
		Address string `json:"address"`
	}{listener.Addr().String()})
	if err != nil {
		listener.Close()
		return err
	}
	return serveHTTP(ctx, t, listener, routes(up))
}

// serveHTTP returns once ctx or stdin has ended and the requests under way have their answers.
func serveHTTP(ctx context.Context, t terminal, listener net.Listener, handler http.Handler) error {
	ctx, cancel := untilEOF(ctx, t.in)
	defer cancel()
	server := &http.Server{Handler: handler, ReadHeaderTimeout: readHeaderTimeout}
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
		defer cancel()
		stopped <- server.Shutdown(grace)
	}()
	err := server.Serve(listener)
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	cancel()
	return errors.Join(err, <-stopped)
}

func routes(up *upstream) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /v1/ping", route(up, zapwire.OpPing, nil, func(answer *types.PingResponse) any {
		return pingBody{PID: answer.PID}
	}))
	status := []byte{byte(zapwire.SubStatus)}
	mux.Handle("GET /v1/status", route(up, zapwire.OpStart, status, func(answer *types.StatusResponse) any {
		return statusBody{ClusterInfo: clusterBodyOf(answer.ClusterInfo)}
	}))
	return mux
}

// route answers with the body that shape makes of the server's answer.
func route[T any, A interface {
	*T
	types.Decoder
}](up *upstream, opcode zap.MessageType, payload []byte, shape func(A) any) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), callTimeout)
		defer cancel()
		answer := A(new(T))
		if err := up.call(ctx, opcode, payload, answer); err != nil {
			http.Error(w, err.Error(), statusOf(err))
			return
		}
		body, err := encodeJSON(shape(answer))
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Write(body) // a client that is gone needs no answer
	}
}

func statusOf(err error) int {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return http.StatusGatewayTimeout
	case isRemote(err):
		return http.StatusBadGateway
	default:
		return http.StatusServiceUnavailable
	}
}
