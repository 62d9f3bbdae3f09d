package main

import (
	"context"
	"slices"
	"testing"

	"github.com/luxfi/netrunner/zapwire/types"
)

func clusterOf(t *testing.T, s *scripted) *types.ClusterInfo {
	t.Helper()
	answer, err := s.Status(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return answer.ClusterInfo
}

func TestTheScriptedCluster(t *testing.T) {
	cluster := clusterOf(t, newScripted(42))
	if cluster.PID != 42 || !cluster.Healthy || cluster.NetworkID != 1337 || len(cluster.NodeInfos) != 5 {
		t.Errorf("%+v", cluster)
	}
	node := cluster.NodeInfos["node5"]
	if node.URI != "http://127.0.0.1:9638" || string(node.Config) != "{\"node\":\"node5\"}\x00\xff\xfe" {
		t.Errorf("%+v", node)
	}
	if chain := cluster.CustomChains["chain-1"]; string(chain.Genesis) != "{\"x\":\"ü\"}\x80" {
		t.Errorf("%+v", chain)
	}
}

func TestNodesComeChangeAndGo(t *testing.T) {
	s, ctx := newScripted(1), context.Background()
	before := clusterOf(t, s)
	steps := []func() error{
		func() error {
			_, err := s.AddNode(ctx, &types.AddNodeRequest{Name: "a", ExecPath: "/x", NodeConfig: "{}", PluginDir: "/p"})
			return err
		},
		func() error {
			_, err := s.RestartNode(ctx, &types.RestartNodeRequest{Name: "a", WhitelistedChains: "c", WhitelistedChainsSet: true})
			return err
		},
		func() error { _, err := s.PauseNode(ctx, &types.PauseNodeRequest{Name: "a"}); return err },
		func() error { _, err := s.RemoveNode(ctx, &types.RemoveNodeRequest{Name: "node1"}); return err },
	}
	for i, step := range steps {
		if err := step(); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}
	after := clusterOf(t, s)
	if want := []string{"a", "node2", "node3", "node4", "node5"}; !slices.Equal(after.NodeNames, want) || after.Healthy {
		t.Errorf("%+v", after)
	}
	node := *after.NodeInfos["a"]
	if node.ExecPath != "/x" || node.PluginDir != "" || node.WhitelistedSubnets != "c" || node.URI != "http://127.0.0.1:9640" {
		t.Errorf("%+v", node)
	}
	if len(before.NodeInfos) != 5 || before.NodeInfos["a"] != nil {
		t.Error("what was answered has changed")
	}
	if _, err := s.ResumeNode(ctx, &types.ResumeNodeRequest{Name: "a"}); err != nil || !clusterOf(t, s).Healthy || !node.Paused {
		t.Errorf("resumed: %v", err)
	}
}

func TestErrorTexts(t *testing.T) {
	s, ctx := newScripted(1), context.Background()
	add := func() error { _, err := s.AddNode(ctx, &types.AddNodeRequest{Name: "node1"}); return err }
	pause := func() error { _, err := s.PauseNode(ctx, &types.PauseNodeRequest{Name: "x"}); return err }
	attach := func(name string) func() error {
		return func() error { _, err := s.AttachPeer(ctx, &types.AttachPeerRequest{NodeName: name}); return err }
	}
	fails(t, add, "node already exists")
	fails(t, pause, `node "x" not found`)
	fails(t, attach("text:any: thing"), "any: thing")
	for _, name := range []string{"size:", "size:-1", "size:99999999999", "sleep:", "sleep:1", "sleep:x:y", "sleep:3600001:y"} {
		if attach(name)() == nil {
			t.Errorf("%s: no error", name)
		}
	}
	last, err := s.Stop(ctx)
	if err != nil || len(last.ClusterInfo.NodeNames) != 5 || clusterOf(t, s) != nil {
		t.Errorf("stop: %+v, %v", last, err)
	}
	fails(t, add, "not bootstrapped")
	fails(t, pause, "not bootstrapped")
}

func fails(t *testing.T, call func() error, want string) {
	t.Helper()
	if err := call(); err == nil || err.Error() != want {
		t.Errorf("%v, not %s", err, want)
	}
}

func TestPeers(t *testing.T) {
	s, ctx := newScripted(1), context.Background()
	for name, want := range map[string]string{
		"node1": "peer-of-node1", "": "peer-of-", "size:3": "aaa", "size:0": "", "sleep:0:a:b": "a:b", "sleep:0:": "",
	} {
		answer, err := s.AttachPeer(ctx, &types.AttachPeerRequest{NodeName: name})
		if err != nil || answer.AttachedPeerInfo.ID != want {
			t.Errorf("%s: %+v, %v", name, answer, err)
		}
	}
	if answer, err := s.AttachPeer(ctx, &types.AttachPeerRequest{NodeName: "none"}); err != nil || *answer != (types.AttachPeerResponse{}) {
		t.Errorf("none: %+v, %v", answer, err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.AttachPeer(ended, &types.AttachPeerRequest{NodeName: "sleep:3600000:late"}); err != context.Canceled {
		t.Errorf("a sleep that is cut short: %v", err)
	}
}
