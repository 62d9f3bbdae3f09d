package types

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"testing"

	"github.com/luxfi/api/zap"
)

type message interface {
	Encoder
	Decoder
}

type vector struct {
	Name, RPC, Kind string
	Fields          json.RawMessage
	Body            string
}

func (v *vector) String() string { return v.Kind + " " + v.Name }

func goldenMessages(t testing.TB) []vector {
	t.Helper()
	encoded, err := os.ReadFile("../../../../../vectors/messages.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct{ Messages []vector }
	if err := json.Unmarshal(encoded, &vectors); err != nil {
		t.Fatal(err)
	}
	if len(vectors.Messages) == 0 {
		t.Fatal("no vectors")
	}
	return vectors.Messages
}

// newMessage returns nil for a request that is empty.
func newMessage(rpc, kind string) message {
	made := map[string]message{
		"ping response":                  new(PingResponse),
		"rpc_version response":           new(RPCVersionResponse),
		"health response":                new(HealthResponse),
		"wait_for_healthy response":      new(WaitForHealthyResponse),
		"uris response":                  new(URIsResponse),
		"status response":                new(StatusResponse),
		"stop response":                  new(StopResponse),
		"add_node request":               new(AddNodeRequest),
		"add_node response":              new(AddNodeResponse),
		"remove_node request":            new(RemoveNodeRequest),
		"remove_node response":           new(RemoveNodeResponse),
		"restart_node request":           new(RestartNodeRequest),
		"restart_node response":          new(RestartNodeResponse),
		"pause_node request":             new(PauseNodeRequest),
		"pause_node response":            new(PauseNodeResponse),
		"resume_node request":            new(ResumeNodeRequest),
		"resume_node response":           new(ResumeNodeResponse),
		"attach_peer request":            new(AttachPeerRequest),
		"attach_peer response":           new(AttachPeerResponse),
		"send_outbound_message request":  new(SendOutboundMessageRequest),
		"send_outbound_message response": new(SendOutboundMessageResponse),
	}
	return made[rpc+" "+kind]
}

func TestGoldenMessages(t *testing.T) {
	for _, v := range goldenMessages(t) {
		want, got, again := newMessage(v.RPC, v.Kind), newMessage(v.RPC, v.Kind), newMessage(v.RPC, v.Kind)
		if want == nil {
			if v.Body != "" {
				t.Errorf("%v: unknown", &v)
			}
			continue
		}
		if err := json.Unmarshal(bytesInBase64(t, v.Fields), want); err != nil {
			t.Fatalf("%v: %v", &v, err)
		}
		body, err := hex.DecodeString(v.Body)
		if err != nil {
			t.Fatal(err)
		}
		if err := decodeWhole(body, got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%v: decoded %+v, not %+v (%v)", &v, got, want, err)
		}
		// Maps are written in any order: what comes out is compared once it is read again.
		b := zap.NewBuffer(0)
		want.Encode(b)
		if err := decodeWhole(b.Bytes(), again); err != nil || b.Len() != len(body) || !reflect.DeepEqual(again, want) {
			t.Errorf("%v: encoded %x, not %x (%v)", &v, b.Bytes(), body, err)
		}
	}
}

func decodeWhole(body []byte, m Decoder) error {
	r := zap.NewReader(body)
	if err := m.Decode(r); err != nil {
		return err
	}
	if r.Remaining() != 0 {
		return fmt.Errorf("%d bytes left", r.Remaining())
	}
	return nil
}

// bytesInBase64 changes the vectors' hex into what encoding/json takes for []byte.
func bytesInBase64(t *testing.T, fields []byte) []byte {
	t.Helper()
	var tree any
	decoder := json.NewDecoder(bytes.NewReader(fields))
	decoder.UseNumber()
	if err := decoder.Decode(&tree); err != nil {
		t.Fatal(err)
	}
	changed, err := json.Marshal(inBase64(t, tree))
	if err != nil {
		t.Fatal(err)
	}
	return changed
}

func inBase64(t *testing.T, tree any) any {
	t.Helper()
	object, isObject := tree.(map[string]any)
	if !isObject {
		return tree
	}
	for name, value := range object {
		text, isText := value.(string)
		if isText && (name == "Config" || name == "Genesis" || name == "MsgBody") {
			raw, err := hex.DecodeString(text)
			if err != nil {
				t.Fatal(err)
			}
			value = base64.StdEncoding.EncodeToString(raw)
		}
		object[name] = inBase64(t, value)
	}
	return object
}

func TestMessagesCutAnywhere(t *testing.T) {
	for _, v := range goldenMessages(t) {
		body, err := hex.DecodeString(v.Body)
		if err != nil {
			t.Fatal(err)
		}
		for cut := range body {
			if m := newMessage(v.RPC, v.Kind); !errors.Is(decodeWhole(body[:cut], m), io.ErrUnexpectedEOF) {
				t.Fatalf("%v, cut at %d: %v", &v, cut, decodeWhole(body[:cut], m))
			}
		}
	}
}

func TestBytesOfANewerPeerAreIgnored(t *testing.T) {
	var m PingResponse
	if err := m.Decode(zap.NewReader([]byte{0, 0, 0, 9, 'n', 'e', 'w'})); err != nil || m.PID != 9 {
		t.Errorf("%+v, %v", m, err)
	}
}
