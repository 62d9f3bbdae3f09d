// Drives a cluster with the types generated for TypeScript.
//
// A line of JSON in says what to do, ["pause", "node1"]; one line out says what the client was told,
// or which problem. test_drive.py runs this as a program of its own.

import { createInterface } from "node:readline";

import createClient from "openapi-fetch";

import type { components, operations, paths } from "./gateway.js";

type Schemas = components["schemas"];
type EventLine =
  operations["streamEvents"]["responses"][200]["content"]["application/x-ndjson"];

/** The gateway answered with a problem. */
class Refused extends Error {
  constructor(readonly problem: Schemas["Problem"]) {
    super(problem.detail);
  }
}

/** The answer of a call that went well. */
function good<T>({ data, error }: { data?: T; error?: Schemas["Problem"] }): T {
  if (error !== undefined) throw new Refused(error);
  if (data === undefined) throw new Error("an answer that the document does not know");
  return data;
}

/** Whether each node is paused, by name. */
function nodes(cluster: Schemas["ClusterInfo"] | null): Record<string, boolean> {
  if (cluster === null) throw new Error("there is no cluster to tell of");
  const infos = Object.entries(cluster.nodeInfos);
  return Object.fromEntries(infos.map(([name, node]) => [name, node.paused]));
}

const token = process.env["GATEWAY_TOKEN"];
const client = createClient<paths>({
  baseUrl: process.env["GATEWAY_URL"] ?? "",
  headers: token ? { Authorization: `Bearer ${token}` } : {},
});

const named = (name: string) => ({ params: { path: { name } } });

async function pause(name: string) {
  return nodes(good(await client.POST("/v1/nodes/{name}/pause", named(name))).clusterInfo);
}

/** A stream has no end: it is taken as it comes. */
async function* eventLines(signal: AbortSignal): AsyncGenerator<EventLine> {
  const answer = await client.GET("/v1/events/stream", {
    params: { query: { status: true, interval: "100ms" } },
    headers: { Accept: "application/x-ndjson" },
    parseAs: "stream",
    signal,
  });
  const body = good(answer);
  if (body === null) throw new Error("an answer without a body");
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of body) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) yield JSON.parse(line) as EventLine;
  }
}

async function watchPause(name: string) {
  const stop = new AbortController();
  const lines = eventLines(stop.signal);
  await lines.next(); // The first state: what changes from here on is an event.
  await pause(name);
  for await (const line of lines) {
    if ("type" in line && line.type === "node.paused") {
      return { type: line.type, node: line.node, year: new Date(line.time).getFullYear() };
    }
  }
  throw new Error("the stream ended");
}

const steps: Record<string, (...words: [string, string, string]) => Promise<unknown>> = {
  status: async () => nodes(good(await client.GET("/v1/status")).clusterInfo),
  wait: async () => {
    const query = { timeout: "10s" };
    return good(await client.GET("/v1/health/wait", { params: { query } })).clusterInfo?.healthy;
  },
  start: async (size, vmName) => {
    const body = { numNodes: Number(size), blockchainSpecs: [{ vmName }] };
    const answer = good(await client.POST("/v1/cluster", { body }));
    return { nodes: nodes(answer.clusterInfo), chains: answer.chainIds };
  },
  stop: async () => nodes(good(await client.DELETE("/v1/cluster")).clusterInfo),
  add: async (name, execPath) =>
    nodes(good(await client.POST("/v1/nodes", { body: { name, execPath } })).clusterInfo),
  get: async (name) => {
    const node = good(await client.GET("/v1/nodes/{name}", named(name)));
    return { name: node.name, execPath: node.execPath, paused: node.paused };
  },
  pause,
  resume: async (name) =>
    nodes(good(await client.POST("/v1/nodes/{name}/resume", named(name))).clusterInfo),
  restart: async (name, execPath) => {
    const options = { ...named(name), body: { execPath } };
    return nodes(good(await client.POST("/v1/nodes/{name}/restart", options)).clusterInfo);
  },
  remove: async (name) =>
    nodes(good(await client.DELETE("/v1/nodes/{name}", named(name))).clusterInfo),
  attach: async (name) =>
    good(await client.POST("/v1/nodes/{name}/peers", named(name))).attachedPeerInfo?.id,
  send: async (name, peerId, text) => {
    const path = { name, peerId };
    const body = { op: 7, bytes: Buffer.from(text).toString("base64") };
    const options = { params: { path }, body };
    return good(await client.POST("/v1/nodes/{name}/peers/{peerId}/messages", options)).sent;
  },
  blockchain: async (vmName, ...participants) => {
    const body = { blockchainSpecs: [{ vmName, chainSpec: { participants } }] };
    return good(await client.POST("/v1/blockchains", { body })).chainIds;
  },
  chain: async (...participants) =>
    good(await client.POST("/v1/chains", { body: { chainSpecs: [{ participants }] } })).chainIds,
  save: async (snapshotName) =>
    good(await client.POST("/v1/snapshots", { body: { snapshotName } })).snapshotPath,
  saveHot: async (snapshotName) =>
    good(await client.POST("/v1/snapshots/hot", { body: { snapshotName } })).snapshotPath,
  load: async (name) =>
    nodes(good(await client.POST("/v1/snapshots/{name}/load", named(name))).clusterInfo),
  forget: async (name) => good(await client.DELETE("/v1/snapshots/{name}", named(name))),
  snapshots: async () => good(await client.GET("/v1/snapshots")).snapshotNames,
  watchPause,
};

/** A problem's parts, each under its own type. */
function toldOf({ status, code, detail, rpc, requestId, errors }: Schemas["Problem"]) {
  const fields = (errors ?? []).map((each) => each.field);
  return { status, code, detail, rpc: rpc ?? null, requestId, errors: fields };
}

for await (const line of createInterface({ input: process.stdin })) {
  const [step, ...words] = JSON.parse(line) as [string, string, string, string];
  try {
    console.log(JSON.stringify({ told: await steps[step]?.(...words) }));
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    console.log(JSON.stringify({ problem: toldOf(error.problem) }));
  }
}
