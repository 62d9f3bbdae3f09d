package zapwire

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"reflect"
	"testing"
	"time"

	"github.com/luxfi/api/zap"
	"github.com/luxfi/netrunner/zapwire/types"
)

const (
	hang       = 20 * time.Second // after which a test is taken to hang
	headerSize = 9                // length, type and request id
)

// octets are bytes that the golden vectors have in hex.
type octets []byte

func (o *octets) UnmarshalText(text []byte) (err error) {
	*o, err = hex.DecodeString(string(text))
	return err
}

type goldenVectors struct {
	Messages []struct {
		Name, RPC, Kind string
		Body            octets
		Frame           octets
	}
	Errors []struct {
		Name, Message string
		Request       octets `json:"request_frame"`
		Response      octets `json:"response_frame"`
		ClientError   string `json:"client_error"`
	}
}

func golden(t *testing.T) *goldenVectors {
	t.Helper()
	encoded, err := os.ReadFile("../../../../vectors/messages.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors goldenVectors
	if err := json.Unmarshal(encoded, &vectors); err != nil {
		t.Fatal(err)
	}
	return &vectors
}

// serving runs a server until the test ends, and returns its address.
func serving(t *testing.T, be Backend) string {
	t.Helper()
	server, err := NewServer("127.0.0.1:0", be)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return server.Addr()
}

// exchange sends a frame to a server and returns as many bytes as are wanted.
func exchange(t *testing.T, be Backend, request []byte, wanted int) []byte {
	t.Helper()
	conn, err := net.Dial("tcp", serving(t, be))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(hang))
	if _, err := conn.Write(request); err != nil {
		t.Fatal(err)
	}
	response := make([]byte, wanted)
	if _, err := io.ReadFull(conn, response); err != nil {
		t.Fatal(err)
	}
	return response
}

func TestGoldenCalls(t *testing.T) {
	vectors := golden(t)
	for i := 0; i+1 < len(vectors.Messages); i += 2 { // a request, then its response
		request, response := vectors.Messages[i], vectors.Messages[i+1]
		t.Run(request.Name, func(t *testing.T) {
			answer, again := newResponse(t, request.RPC), newResponse(t, request.RPC)
			if err := answer.Decode(zap.NewReader(response.Body)); err != nil {
				t.Fatal(err)
			}
			got := exchange(t, &canned{answer: answer}, request.Frame, len(response.Frame))
			if string(got[:headerSize]) != string(response.Frame[:headerSize]) {
				t.Errorf("header %x, not %x", got[:headerSize], response.Frame[:headerSize])
			}
			// Maps come in any order: what came is compared once it is read again.
			if err := again.Decode(zap.NewReader(got[headerSize:])); err != nil || !reflect.DeepEqual(again, answer) {
				t.Errorf("%+v, not %+v (%v)", again, answer, err)
			}
		})
	}
}

type message interface {
	types.Encoder
	types.Decoder
}

func newResponse(t *testing.T, rpc string) message {
	t.Helper()
	made, known := map[string]message{
		"ping":                  new(types.PingResponse),
		"rpc_version":           new(types.RPCVersionResponse),
		"health":                new(types.HealthResponse),
		"wait_for_healthy":      new(types.WaitForHealthyResponse),
		"uris":                  new(types.URIsResponse),
		"status":                new(types.StatusResponse),
		"stop":                  new(types.StopResponse),
		"add_node":              new(types.AddNodeResponse),
		"remove_node":           new(types.RemoveNodeResponse),
		"restart_node":          new(types.RestartNodeResponse),
		"pause_node":            new(types.PauseNodeResponse),
		"resume_node":           new(types.ResumeNodeResponse),
		"attach_peer":           new(types.AttachPeerResponse),
		"send_outbound_message": new(types.SendOutboundMessageResponse),
	}[rpc]
	if !known {
		t.Fatalf("unknown rpc %q", rpc)
	}
	return made
}

func TestGoldenErrors(t *testing.T) {
	for _, v := range golden(t).Errors {
		t.Run(v.Name, func(t *testing.T) {
			be := &canned{err: errors.New(v.Message)}
			if v.Name == "handler_panic" {
				be = &canned{panics: "boom"}
			}
			if got := exchange(t, be, v.Request, len(v.Response)); string(got) != string(v.Response) {
				t.Errorf("%q, not %q", got, v.Response)
			}
		})
	}
}

func TestGoldenClientErrors(t *testing.T) {
	for _, v := range golden(t).Errors {
		client := dialled(t, serving(t, &canned{err: errors.New(v.Message)}))
		if _, err := client.Status(withinTime(t)); err == nil || err.Error() != v.ClientError {
			t.Errorf("%s: %v, not %s", v.Name, err, v.ClientError)
		}
	}
}
