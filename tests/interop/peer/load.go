package main

import (
	"context"
	"flag"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/luxfi/api/zap"
	"github.com/luxfi/netrunner/zapwire"
	"github.com/luxfi/netrunner/zapwire/types"
	"github.com/luxfi/zwing"
)

// load measures Status calls over one connection.
func load(ctx context.Context, args []string, t terminal) error {
	flags := flag.NewFlagSet("load", flag.ContinueOnError)
	address := flags.String("address", "", "the server's")
	server := flags.String("server", "", "the server's public identity")
	number := flags.Int("calls", 0, "how many")
	inFlight := flags.Int("in-flight", 0, "at once")
	if err := parse(flags, args, t.err, "address", "server"); err != nil {
		return err
	}
	if *number < 1 || *inFlight < 1 {
		return fmt.Errorf("%w: -calls and -in-flight are needed, at least 1", errUsage)
	}
	cfg, err := configFor("", *server)
	if err != nil {
		return err
	}
	conn, err := zwing.DialZAP(ctx, *address, cfg)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", *address, err)
	}
	defer conn.Close()
	result, err := measure(ctx, conn, *number, *inFlight)
	if err != nil {
		return err
	}
	if err := t.out.print(result.loadResult); err != nil {
		return err
	}
	if result.Errors > 0 {
		return fmt.Errorf("%d of %d calls failed, the first with: %w", result.Errors, result.Calls, result.first)
	}
	return nil
}

type loadResult struct {
	Calls      int     `json:"calls"`
	Errors     int     `json:"errors"`
	Seconds    float64 `json:"seconds"`
	CPUSeconds float64 `json:"cpu_seconds"`
}

type measured struct {
	loadResult
	first error
}

func measure(ctx context.Context, conn *zap.Conn, number, inFlight int) (measured, error) {
	cpu, err := cpuTime()
	if err != nil {
		return measured{}, err
	}
	began := time.Now()
	failed, first := callStatus(ctx, conn, number, min(inFlight, number))
	elapsed := time.Since(began)
	cpuAfter, err := cpuTime()
	if err != nil {
		return measured{}, err
	}
	return measured{
		loadResult{number, failed, elapsed.Seconds(), (cpuAfter - cpu).Seconds()},
		first,
	}, ctx.Err()
}

// callStatus makes calls with that many workers. It returns how many failed, and how the first did.
func callStatus(ctx context.Context, conn *zap.Conn, number, workers int) (failed int, first error) {
	var (
		next     atomic.Int64
		mu       sync.Mutex // guards failed and first
		finished sync.WaitGroup
	)
	payload := []byte{byte(zapwire.SubStatus)}
	for range workers {
		finished.Add(1)
		go func() {
			defer finished.Done()
			for next.Add(1) <= int64(number) {
				err := callWithin(ctx, conn, payload)
				if err == nil {
					continue
				}
				mu.Lock()
				if failed++; first == nil {
					first = err
				}
				mu.Unlock()
			}
		}()
	}
	finished.Wait()
	return failed, first
}

func callWithin(ctx context.Context, conn *zap.Conn, payload []byte) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return call(ctx, conn, zapwire.OpStart, payload, new(types.StatusResponse))
}

// cpuTime is what this process has used so far, in the kernel too.
func cpuTime() (time.Duration, error) {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0, fmt.Errorf("getrusage: %w", err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()), nil
}
