package zapwire

import (
	"bytes"
	"context"
	"reflect"
	"slices"
	"testing"

	"github.com/luxfi/api/zap"
	"github.com/luxfi/netrunner/zapwire/types"
)

func withinTime(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	t.Cleanup(cancel)
	return ctx
}

func dialled(t *testing.T, addr string) *Client {
	t.Helper()
	client, err := Dial(withinTime(t), addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func TestCallsWithoutARequest(t *testing.T) {
	cluster := &types.ClusterInfo{
		NodeNames: []string{"n"}, NodeInfos: map[string]*types.NodeInfo{"n": {Name: "n", Config: []byte{}}},
		CustomChains: map[string]*types.ChainInfo{}, Subnets: []string{}, NetworkID: 3,
	}
	for _, answer := range []any{
		&types.PingResponse{PID: -1},
		&types.RPCVersionResponse{Version: ProtocolVersion},
		&types.HealthResponse{ClusterInfo: cluster},
		&types.WaitForHealthyResponse{ClusterInfo: cluster},
		&types.StatusResponse{ClusterInfo: cluster},
		&types.StopResponse{},
	} {
		client := dialled(t, serving(t, &canned{answer: answer}))
		var got any
		var err error
		switch answer.(type) {
		case *types.PingResponse:
			got, err = client.Ping(withinTime(t))
		case *types.RPCVersionResponse:
			got, err = client.RPCVersion(withinTime(t))
		case *types.HealthResponse:
			got, err = client.Health(withinTime(t))
		case *types.WaitForHealthyResponse:
			got, err = client.WaitForHealthy(withinTime(t))
		case *types.StatusResponse:
			got, err = client.Status(withinTime(t))
		case *types.StopResponse:
			got, err = client.Stop(withinTime(t))
		}
		if err != nil || !reflect.DeepEqual(got, answer) {
			t.Errorf("%T: %+v, %v", answer, got, err)
		}
	}
	client := dialled(t, serving(t, &canned{answer: &types.URIsResponse{URIs: []string{"a", ""}}}))
	if got, err := client.URIs(withinTime(t)); err != nil || !slices.Equal(got, []string{"a", ""}) {
		t.Errorf("URIs: %q, %v", got, err)
	}
}

func TestCallsWithARequest(t *testing.T) {
	config := map[string]string{"C": "{}", "X": ""}
	arrives(t, (*Client).AddNode, &types.AddNodeResponse{}, &types.AddNodeRequest{
		Name: "n", NodeConfigSet: true, ChainConfigs: config, UpgradeConfigs: map[string]string{},
		ChainConfigFiles: config, PluginDir: "/p",
	})
	arrives(t, (*Client).RestartNode, &types.RestartNodeResponse{}, &types.RestartNodeRequest{
		Name: "n", WhitelistedChains: "c", WhitelistedChainsSet: true, ChainConfigs: config,
		UpgradeConfigs: config, ChainConfigFiles: map[string]string{},
	})
	arrives(t, (*Client).RemoveNode, &types.RemoveNodeResponse{}, &types.RemoveNodeRequest{Name: "n"})
	arrives(t, (*Client).PauseNode, &types.PauseNodeResponse{}, &types.PauseNodeRequest{Name: ""})
	arrives(t, (*Client).ResumeNode, &types.ResumeNodeResponse{}, &types.ResumeNodeRequest{Name: "ü"})
	arrives(t, (*Client).AttachPeer, &types.AttachPeerResponse{}, &types.AttachPeerRequest{NodeName: "n"})
	arrives(t, (*Client).SendOutboundMessage, &types.SendOutboundMessageResponse{Sent: true}, &types.SendOutboundMessageRequest{
		NodeName: "n", PeerID: "p", Op: 1 << 31, MsgBody: bytes.Repeat([]byte{0xff}, 1<<20),
	})
}

func arrives[R, A any](t *testing.T, method func(*Client, context.Context, *R) (*A, error), answer *A, request *R) {
	t.Helper()
	requests := make(chan any, 1)
	client := dialled(t, serving(t, &canned{answer: answer, requests: requests}))
	got, err := method(client, withinTime(t), request)
	if err != nil || !reflect.DeepEqual(got, answer) {
		t.Fatalf("%T: answered %+v, %v", request, got, err)
	}
	if came := <-requests; !reflect.DeepEqual(came, request) {
		t.Errorf("%+v came, not %+v", came, request)
	}
}

func TestAnAnswerThatCannotBeDecoded(t *testing.T) {
	listener, err := zap.Listen("127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	server := zap.NewServer(listener, zap.HandlerFunc(
		func(_ context.Context, kind zap.MessageType, _ []byte) (zap.MessageType, []byte, error) {
			return kind, []byte{1, 0xff}, nil
		}))
	served := make(chan error, 1)
	go func() { served <- server.Serve(context.Background()) }()
	client := dialled(t, listener.Addr().String())
	for range 2 { // the connection is not to blame
		if got, err := client.Status(withinTime(t)); err == nil || got != nil {
			t.Errorf("%+v, %v", got, err)
		}
	}
	server.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
}
