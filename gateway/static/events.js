/** The log of events: the newest first, and only so many. */

import { $, cut, el, put, say } from "./dom.js";

const KEPT = 200;
const FIELDS = {
    subnetId: "validator set",
    uri: "URI",
    id: "id",
    whitelistedSubnets: "tracked chains",
};
const kept = [];

const time = new Intl.DateTimeFormat(undefined, {
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
    hourCycle: "h23",
});

/** Which of the filter's kinds an event is; a gap is of all. */
function kindOf(type) {
    if (type === "gap") return "";
    const first = type.split(".")[0];
    return first === "node" || first === "chain" || first === "cluster" ? first : "server";
}

const counted = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;

const SENTENCES = {
    "node.added": ({ after }) => (after?.uri ? `Added, at ${cut(after.uri)}` : "Added"),
    "node.removed": () => "Removed",
    "node.paused": () => "Paused",
    "node.resumed": () => "Runs again",
    "node.changed": changes,
    "chain.added": ({ chain, after }) =>
        `Created, of ${cut(after?.vmName || "an unnamed VM")}: ${cut(chain ?? "")}`,
    "chain.removed": ({ chain }) => `Gone: ${cut(chain ?? "")}`,
    "chain.changed": changes,
    "cluster.started": ({ after }) =>
        after ? `Started: ${counted(after.nodes, "node")}, network ${after.networkId}` : "Started",
    "cluster.stopped": () => "Stopped",
    "cluster.healthy": ({ after }) =>
        after ? `Healthy: ${counted(after.nodes, "node")}` : "Healthy",
    "cluster.unhealthy": () => "Not healthy",
    "server.restarted": ({ before, after }) =>
        `Another process answers: ${before?.pid ?? "?"} before, ${after?.pid ?? "?"} now`,
    "upstream.lost": ({ detail }) => `Gone: ${cut(detail ?? "", 500)}`,
    "upstream.back": () => "Back",
    gap: ({ detail }) => `Some events are missing here: ${cut(detail ?? "", 500)}`,
    "gateway.restarted": () => "Another gateway process answers",
};

/** Which fields differ, and how where that is short. */
function changes({ before, after }) {
    const names = new Set([...Object.keys(before ?? {}), ...Object.keys(after ?? {})]);
    const told = [];
    for (const name of names) {
        const [old, now] = [before?.[name], after?.[name]];
        if (JSON.stringify(old) === JSON.stringify(now)) continue;
        const label = FIELDS[name] ?? name.replace(/[A-Z]/g, (each) => ` ${each.toLowerCase()}`);
        const short = name !== "config" && name !== "genesis";
        told.push(short ? `${label} from ${value(old)} to ${value(now)}` : label);
    }
    return told.length ? `Changed: ${told.join("; ")}` : "Changed";
}

const value = (given) =>
    given === "" || given === undefined || given === null ? "nothing" : cut(String(given), 60);

function subjectOf(event) {
    if (event.node) return event.node;
    if (event.chain) return (event.after ?? event.before)?.chainName || event.chain;
    const first = event.type.split(".")[0];
    return { cluster: "cluster", gateway: "gateway", gap: "events" }[first] ?? "netrunner";
}

function elementOf(event) {
    const at = new Date(event.time);
    const known = !Number.isNaN(at.getTime());
    const subject = el("span", { class: "subject" });
    put(subject, subjectOf(event));
    const sentence = el("span", { class: "sentence" });
    put(sentence, (SENTENCES[event.type] ?? (() => event.detail ?? ""))(event));
    const attributes = {
        class: "event",
        "data-type": cut(event.type, 40),
        "data-kind": kindOf(event.type),
    };
    return el(
        "div",
        attributes,
        el("time", { datetime: known ? at.toISOString() : null }, known ? time.format(at) : ""),
        el("span", { class: "type" }, cut(event.type, 40)),
        subject,
        sentence,
    );
}

/** Show an event; one that came before is not shown again. */
export function showEvent(event) {
    if (event.id && kept.some((each) => each.id === event.id)) return;
    const element = elementOf(event);
    hide(element);
    kept.unshift({ id: event.id, element });
    $("events-log").prepend(element);
    for (const old of kept.splice(KEPT)) old.element.remove();
    count();
}

function hide(element) {
    const wanted = $("events-kind").value;
    const kind = element.dataset.kind;
    element.hidden = Boolean(wanted && kind && kind !== wanted);
}

function count() {
    const shown = kept.filter(({ element }) => !element.hidden).length;
    say($("events-count"), kept.length ? `${shown} of ${kept.length}` : "");
    $("events-log").tabIndex = shown ? 0 : -1; // nothing to scroll
    $("events-empty").hidden = shown > 0;
    say(
        $("events-empty"),
        kept.length ? "None of this kind." : "Nothing has changed since this page was opened.",
    );
}

$("events-kind").addEventListener("change", () => {
    for (const { element } of kept) hide(element);
    count();
});
$("events-clear").addEventListener("click", () => {
    for (const { element } of kept.splice(0)) element.remove();
    count();
});
$("events-aloud").addEventListener("change", ({ target }) => {
    $("events-log").setAttribute("aria-live", target.checked ? "polite" : "off");
});
count();
