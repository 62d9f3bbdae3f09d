/** The console: what the stream says, shown; what is pressed, done. */

import { call, openStream, token } from "./api.js";
import { $, announce, ask, cut, fill, onPress, put, say } from "./dom.js";
import { showEvent } from "./events.js";
import { explainNoNodes, showChains, showNodes } from "./nodes.js";
import { operate, tickOperations } from "./operations.js";
import { explainNoSnapshots, readSnapshots, startSnapshots } from "./snapshots.js";
import { follow } from "./stream.js";

const STALE_AFTER = 3_000; // three intervals of the stream
const LONGEST_EXPLANATION = 2_500;

/** All that the page knows. `running` is null until it is known whether there is a cluster. */
const known = {
    link: "connecting",
    linkProblem: null,
    retryAt: 0,
    upstream: null,
    cluster: null,
    running: null,
    heardAt: null,
};
let lastText = "";

// What it means.

/** The one thing to say: `[sign, headline, explanation]`. */
function health() {
    const { link, upstream, cluster } = known;
    if (link === "token")
        return ["token", "Token needed", "The gateway lets in only who shows a token."];
    if (link === "refused")
        return ["gone", "Refused by the gateway", `${sentence(known.linkProblem)} ${again()}`];
    if (link === "gone")
        return ["gone", "Gateway gone", `${sentence(known.linkProblem)} ${again()}`];
    if (upstream) return ofUpstream(upstream);
    if (known.heardAt === null)
        return ["none", "Connecting", "Waiting for the gateway's first word."];
    if (age() > STALE_AFTER)
        return [
            "stale",
            "Stale",
            `Last heard ${seconds(age())} ago. What is shown may have changed since.`,
        ];
    if (!cluster) return ["none", "No cluster", "netrunner is there and runs no cluster."];
    return cluster.healthy
        ? ["healthy", "Healthy", "Every node that is not paused is healthy."]
        : ["unhealthy", "Unhealthy", "Not every node that should run is healthy."];
}

function ofUpstream(problem) {
    const gone = problem.code === "upstream_unavailable";
    return ["gone", gone ? "Netrunner gone" : "Trouble with netrunner", sentence(problem)];
}

const sentence = ({ title, detail }) => `${title}: ${detail}.`.replace(/\.\.$/, ".");
const age = () => performance.now() - known.heardAt;
const seconds = (milliseconds) => `${Math.max(0, Math.round(milliseconds / 1000))} s`;
const again = () =>
    known.retryAt > performance.now()
        ? `Trying again in ${seconds(known.retryAt - performance.now())}.`
        : "Trying again.";

// Showing it.

let saidHeadline = "";

function showHealth() {
    const [sign, headline, explanation] = health();
    $("cluster").dataset.health = sign;
    say($("headline"), headline);
    say($("explanation"), cut(explanation, LONGEST_EXPLANATION));
    say($("link-text"), linkText());
    $("link").dataset.state = known.link;
    document.body.dataset.current = String(
        sign === "healthy" || sign === "unhealthy" || headline === "No cluster",
    );
    if (headline === saidHeadline) return;
    saidHeadline = headline;
    document.title = `${headline} – zap-gateway`;
    announce(`${headline}. ${explanation}`);
}

function linkText() {
    if (known.link !== "live") return known.link === "connecting" ? "Connecting" : "Not connected";
    if (known.heardAt === null) return "Connected";
    return age() > STALE_AFTER ? `Last heard ${seconds(age())} ago` : "Connected";
}

function showCluster() {
    const { cluster } = known;
    const nodes = nodesOf(cluster);
    const chains = new Map(Object.entries(cluster?.customChains ?? {}));
    showNodes(nodes);
    const none = known.running === null ? "Nothing is known yet." : "There are none.";
    showChains(chains, cluster ? "No chains were created on this cluster." : none);
    const paused = [...nodes.values()].filter((node) => node.paused).length;
    say($("fact-nodes"), cluster ? `${nodes.size}${paused ? `, ${paused} paused` : ""}` : "–");
    say($("fact-chains"), cluster ? String(chains.size) : "–");
    say($("fact-network"), cluster ? String(cluster.networkId) : "–");
    say($("fact-pid"), cluster ? String(cluster.pid) : "–");
    put($("fact-root"), cluster?.rootDataDir || "–");
    explainNoNodes(known.running === null ? none : `${none} Start a cluster, or load a snapshot.`);
    offer($("start"), known.running === false, $("stop"));
    offer($("stop"), known.running === true, $("start"));
    showHealth();
}

/** Show a button or not; the focus goes to the other one rather than nowhere. */
function offer(button, offered, other) {
    const focused = button === document.activeElement;
    button.hidden = !offered;
    if (!offered && focused) {
        other.hidden = false;
        other.focus({ preventScroll: true });
    }
}

function nodesOf(cluster) {
    const nodes = new Map((cluster?.nodeNames ?? []).map((name) => [name, {}]));
    for (const [name, info] of Object.entries(cluster?.nodeInfos ?? {})) nodes.set(name, info);
    return nodes;
}

// What comes.

function onState(event) {
    known.heardAt = performance.now();
    known.upstream = null;
    if (event.text === lastText) return;
    lastText = event.text;
    known.cluster = event.data.clusterInfo;
    setRunning(known.cluster !== null);
    showCluster();
}

function onError(problem) {
    known.heardAt = performance.now();
    lastText = "";
    known.upstream = problem;
    showHealth();
}

const REACTIONS = {
    "cluster.started": () => readSnapshots(),
    "server.restarted": () => readVersion(),
    "upstream.back": () => readVersion(),
    "upstream.lost": (event) => {
        known.upstream ??= {
            title: "netrunner can't be reached",
            detail: event.detail,
            code: "upstream_unavailable",
        };
    },
};

function onEvent(event) {
    showEvent(event);
    if (Object.hasOwn(REACTIONS, event.type)) REACTIONS[event.type](event);
}

function onRestart({ of }) {
    if (of === "gateway") showEvent({ type: "gateway.restarted", time: new Date().toISOString() });
}

function onMessage({ type, data, text }) {
    if (type === "status") onState({ data, text });
    else if (type === "error") onError(data);
    else if (type === "restart") onRestart(data);
    else onEvent(data);
    showHealth();
}

function setRunning(running) {
    if (known.running === running) return;
    known.running = running;
    if (running) readSnapshots();
    else explainNoSnapshots();
}

async function readVersion() {
    const { body } = await call("GET", "/v1/version");
    if (body) say($("fact-version"), String(body.version));
}

// The stream.

const on = {
    opened() {
        known.link = "live";
        known.linkProblem = null;
        if (known.heardAt !== null) known.heardAt = performance.now();
        lastText = "";
        $("enter-token").hidden = true;
        $("forget-token").hidden = !token.value;
        readVersion();
        showHealth();
    },
    event: onMessage,
    lost({ problem, error, status, delay }) {
        known.retryAt = performance.now() + delay;
        const wait = status === 401 ? onNoToken() : undefined;
        const fromGateway = typeof problem?.title === "string";
        if (status !== 401)
            known.link = fromGateway && problem.code !== "shutting_down" ? "refused" : "gone";
        const why =
            error?.message ?? (status && status !== 200 ? `status ${status}` : "the stream ended");
        known.linkProblem = fromGateway ? problem : { title: "It does not answer", detail: why };
        showHealth();
        return wait;
    },
};

function onNoToken() {
    known.link = "token";
    $("enter-token").hidden = false;
    $("forget-token").hidden = !token.value;
    return token.changed();
}

// What is pressed.

onPress($("stop"), async () => {
    const question = {
        title: "Stop the cluster?",
        subject: known.cluster?.rootDataDir ?? "",
        text: "Every node stops. What no snapshot holds is lost.",
        action: "Stop cluster",
    };
    if (!(await ask(question))) return;
    const what = { doing: "Stopping the cluster", done: "Stopped the cluster" };
    await operate(what, "cluster", { method: "DELETE", path: () => "/v1/cluster" });
});

async function post(dialog, key, path, what) {
    const request = await fill($(dialog));
    if (!request) return;
    const worked = await operate({ ...what, subject: String(request.name ?? "") }, key, {
        method: "POST",
        path: () => path,
        body: request,
    });
    if (worked && !$(dialog).open) $(dialog).querySelector("form").reset();
}

onPress($("start"), () =>
    post("start-dialog", "cluster", "/v1/cluster", {
        doing: "Starting a cluster",
        done: "Started a cluster",
    }),
);
onPress($("add"), () =>
    post("add-dialog", "add-node", "/v1/nodes", { doing: "Adding", done: "Added" }),
);
onPress($("enter-token"), () => token.ask("It lets in only who shows one."));
onPress($("forget-token"), () => {
    token.forget();
    location.reload(); // what it let us see goes too
});

startSnapshots(() => known.running === true);
setInterval(() => {
    showHealth();
    tickOperations();
}, 1_000);
showCluster();
follow(openStream, on);
