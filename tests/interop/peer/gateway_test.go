package main

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"testing"
)

func get(t *testing.T, url string, want int) []byte {
	t.Helper()
	client := http.Client{Timeout: hang, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != want {
		t.Fatalf("%s: %s %s %v", url, response.Status, body, err)
	}
	return body
}

func TestGateway(t *testing.T) {
	noLeak(t)
	server, said := startServer(t, "-seed", "s")
	gateway := start(t, "gateway", "-address", said.Address, "-server", said.Identity)
	var at announcement
	gateway.next(&at)
	url := "http://" + at.Address + "/v1/"

	var ping struct{ PID int }
	if err := json.Unmarshal(get(t, url+"ping", 200), &ping); err != nil || ping.PID != os.Getpid() {
		t.Errorf("%+v, %v", ping, err)
	}
	checkNames(t, get(t, url+"status", 200))
	get(t, url+"nonsense", 404)

	if err := server.end(); err != nil {
		t.Fatal(err)
	}
	get(t, url+"ping", 503)
	restarted, _ := startServer(t, "-seed", "s", "-listen", said.Address)
	get(t, url+"ping", 200)
	if err := gateway.end(); err != nil {
		t.Error(err)
	}
	if err := restarted.end(); err != nil {
		t.Error(err)
	}
}

// checkNames compares the names in a status with those that the OpenAPI document gives.
func checkNames(t *testing.T, status []byte) {
	t.Helper()
	type object = map[string]json.RawMessage
	encoded, err := os.ReadFile("../../../openapi/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	var document struct {
		Components struct {
			Schemas map[string]struct{ Required []string }
		}
	}
	if err := json.Unmarshal(encoded, &document); err != nil {
		t.Fatal(err)
	}
	within := func(encoded []byte) (inner object) {
		if err := json.Unmarshal(encoded, &inner); err != nil {
			t.Fatal(err)
		}
		return inner
	}
	outer := within(status)
	cluster := within(outer["clusterInfo"])
	node := within(within(cluster["nodeInfos"])["node1"])
	chain := within(within(cluster["customChains"])["chain-1"])
	for schema, got := range map[string]object{
		"StatusResponse": outer, "ClusterInfo": cluster, "NodeInfo": node, "ChainInfo": chain,
	} {
		names, want := slices.Sorted(maps.Keys(got)), slices.Sorted(slices.Values(document.Components.Schemas[schema].Required))
		if !slices.Equal(names, want) {
			t.Errorf("%s: %q, not %q", schema, names, want)
		}
	}
	if len(within(cluster["nodeInfos"])) != 5 || string(chain["genesis"]) != `"eyJ4Ijoiw7wifYA="` {
		t.Errorf("%s", status)
	}
}

func TestLoad(t *testing.T) {
	noLeak(t)
	server, said := startServer(t)
	load := start(t, "load", "-address", said.Address, "-server", said.Identity, "-calls", "200", "-in-flight", "500")
	var result loadResult
	load.next(&result)
	if result.Calls != 200 || result.Errors != 0 || result.Seconds <= 0 || result.CPUSeconds < 0 {
		t.Errorf("%+v", result)
	}
	if err := load.result(); err != nil {
		t.Error(err)
	}
	if err := server.end(); err != nil {
		t.Error(err)
	}
	came := 0
	for range server.lines {
		came++
	}
	if came != 200 {
		t.Errorf("%d calls came", came)
	}
}
