// Command peer is the Go side of the interoperability tests: netrunner's own packages behind a command
// line. See the README one directory up.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

const usage = `usage:
  peer serve   [-listen ADDRESS] [-seed TEXT] [-client HEX]
  peer client  -address ADDRESS [-server HEX] [-seed TEXT] [-timeout 60s]
  peer gateway [-listen ADDRESS] -address ADDRESS -server HEX
  peer load    -address ADDRESS -server HEX -calls N -in-flight N`

// errUsage is about a command line that makes no sense.
var errUsage = errors.New("wrong usage")

// terminal is what a mode reads and prints: JSON lines, on stdout for programs.
type terminal struct {
	in  io.Reader
	out *lines
	err io.Writer
}

type mode func(ctx context.Context, args []string, t terminal) error

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal kills
	t := terminal{os.Stdin, &lines{out: os.Stdout}, os.Stderr}
	os.Exit(status(run(ctx, os.Args[1:], t), os.Stderr))
}

func run(ctx context.Context, args []string, t terminal) error {
	modes := map[string]mode{"serve": serve, "client": client, "gateway": gateway, "load": load}
	if len(args) == 0 || modes[args[0]] == nil {
		return errUsage
	}
	err := modes[args[0]](ctx, args[1:], t)
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return nil
	}
	return err
}

// status tells people what went wrong, and programs whether something did.
func status(err error, stderr io.Writer) int {
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		fmt.Fprintf(stderr, "peer: %v\n%s\n", err, usage)
		return 2
	default:
		fmt.Fprintf(stderr, "peer: %v\n", err)
		return 1
	}
}

// parse reads a mode's flags; those named in required must be given.
func parse(flags *flag.FlagSet, args []string, stderr io.Writer, required ...string) error {
	flags.SetOutput(io.Discard)
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(stderr, usage)
			return err
		}
		return fmt.Errorf("%w: %v", errUsage, err)
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%w: unexpected argument %q", errUsage, flags.Arg(0))
	}
	for _, name := range required {
		if flags.Lookup(name).Value.String() == "" {
			return fmt.Errorf("%w: -%s is needed", errUsage, name)
		}
	}
	return nil
}

// untilEOF returns a context that ends with ctx or with in, whichever ends first.
func untilEOF(ctx context.Context, in io.Reader) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		io.Copy(io.Discard, in) // how it ends doesn't matter
		cancel()
	}()
	return ctx, cancel
}
