/** The snapshots. Their list is read when there is a reason to: the stream does not tell of them. */

import { call, inPath } from "./api.js";
import { $, Keyed, ask, el, enable, onPress, put, say } from "./dom.js";
import { isBusy, operate } from "./operations.js";

const collator = new Intl.Collator(undefined, { numeric: true });
let isRunning = () => false;
let reading = 0;
let names = new Set();

class SnapshotRow {
    constructor(name) {
        const text = el("span", { class: "name" });
        put(text, name);
        const short = name.slice(0, 100);
        const load = this.#button(name, "Load", `Load ${short}`, () => loadSnapshot(name));
        const remove = this.#button(name, "Remove", `Remove ${short}`, () => removeSnapshot(name));
        this.element = el("li", {}, text, el("div", { class: "actions" }, load, remove));
    }

    #button(name, text, label, press) {
        const key = `snapshot ${name}`;
        const button = el("button", { type: "button", "data-key": key, "aria-label": label }, text);
        enable(button, !isBusy(key));
        onPress(button, press);
        return button;
    }

    update() {
        // A name is all there is.
    }
}

const rows = new Keyed($("snapshots-list"), (name) => new SnapshotRow(name), $("snapshots"));

function showNames(given) {
    names = new Set(given);
    const sorted = [...names].sort((a, b) => collator.compare(a, b) || (a < b ? -1 : 1));
    rows.show(new Map(sorted.map((name) => [name, null])));
    say($("snapshots-count"), sorted.length ? String(sorted.length) : "");
    $("snapshots-region").hidden = sorted.length === 0;
}

/** Read the list again. An answer that another reading overtook is not shown. */
export async function readSnapshots() {
    reading += 1;
    const mine = reading;
    const { body, problem } = await call("GET", "/v1/snapshots");
    if (mine !== reading) return;
    if (body) showNames(body.snapshotNames);
    if (problem?.code === "not_bootstrapped") explainNoSnapshots();
    else
        explain(problem ? `The list can't be read: ${problem.title}. ${problem.detail ?? ""}` : "");
}

/** Say why the list is not read while there is no cluster. */
export function explainNoSnapshots() {
    const known = names.size ? "These were there when it last did. " : "";
    explain(
        `netrunner tells its snapshots only while a cluster runs. ${known}` +
            "Any can be loaded by its name.",
    );
}

function explain(text) {
    say($("snapshots-note"), text || "There are none.");
    $("snapshots-note").hidden = !text && names.size > 0;
}

/** Read the list after a change that worked, which is already known to have worked. */
async function changed(...now) {
    reading += 1;
    showNames(now);
    if (isRunning()) await readSnapshots();
}

async function save(name) {
    const question = {
        title: "Save and stop the cluster?",
        subject: name,
        text: "Every node stops. Loading the snapshot starts the cluster again.",
        action: "Save and stop",
    };
    return (
        (await ask(question)) && saveAt("/v1/snapshots", name, "Saved, and stopped the cluster:")
    );
}

const saveHot = (name) => saveAt("/v1/snapshots/hot", name, "Saved");

async function saveAt(path, name, done) {
    const request = { method: "POST", path: () => path, body: { snapshotName: name } };
    const worked = await operate({ doing: "Saving", done, subject: name }, "save", request);
    if (worked) await changed(...names, name);
    return worked;
}

async function loadSnapshot(name, key = `snapshot ${name}`) {
    const question = {
        title: "Load while a cluster runs?",
        subject: name,
        text: "What runs now is not saved, and netrunner may refuse while it runs.",
        action: "Load",
    };
    if (isRunning() && !(await ask(question))) return false;
    const request = { method: "POST", path: () => `/v1/snapshots/${inPath(name)}/load`, body: {} };
    return operate({ doing: "Loading", done: "Loaded", subject: name }, key, request);
}

async function removeSnapshot(name) {
    const question = {
        title: "Remove this snapshot?",
        subject: name,
        text: "What it saved is lost. This can't be undone.",
        action: "Remove",
    };
    if (!(await ask(question))) return;
    const request = { method: "DELETE", path: () => `/v1/snapshots/${inPath(name)}` };
    const what = { doing: "Removing snapshot", done: "Removed snapshot", subject: name };
    const worked = await operate(what, `snapshot ${name}`, request);
    if (worked) await changed(...[...names].filter((each) => each !== name));
}

/** Let the forms work. `running` tells whether a cluster runs. */
export function startSnapshots(running) {
    isRunning = running;
    const input = $("snapshot-name");
    const act = {
        hot: saveHot,
        save,
        load: (name) => loadSnapshot(name, "load"),
    };
    $("snapshot-form").addEventListener("submit", async (event) => {
        event.preventDefault();
        const button = event.submitter;
        if (button.getAttribute("aria-disabled") === "true") return;
        const name = input.value;
        if (!(await act[button.value](name))) return;
        if (input.value === name) input.value = "";
    });
    onPress($("snapshots-refresh"), readSnapshots);
}
