/** The table of nodes, and that of chains. */

import { inPath } from "./api.js";
import {
    $,
    Keyed,
    announce,
    ask,
    cut,
    el,
    enable,
    onPress,
    put,
    say,
    unseen,
    webLink,
} from "./dom.js";
import { isBusy, operate } from "./operations.js";

const collator = new Intl.Collator(undefined, { numeric: true });
const FACTS = [
    ["name", "Name"],
    ["id", "Node id"],
    ["uri", "URI"],
    ["execPath", "Binary"],
    ["logDir", "Logs"],
    ["dbDir", "Database"],
    ["pluginDir", "Plugins"],
    ["whitelistedSubnets", "Tracks"],
    ["config", "Configuration"],
];
const VERBS = {
    pause: ["Pause", "Pausing", "Paused"],
    resume: ["Resume", "Resuming", "Resumed"],
    restart: ["Restart", "Restarting", "Restarted"],
    remove: ["Remove", "Removing", "Removed"],
};

const NO_FIT = "No node fits the filter.";

const sorting = { by: "name", descending: false };
let nodes = new Map();
let rowsMade = 0;

class NodeRow {
    #cells = {};
    #shown = null;
    #facts = new Map();
    #details = el("dl", { class: "details" });
    #buttons = {};

    constructor(name) {
        this.name = name;
        rowsMade += 1;
        const id = `node-${rowsMade}`;
        this.more = el(
            "tr",
            { role: "row", class: "more", id, hidden: true },
            el("td", { role: "cell", colspan: 5 }, this.#details),
        );
        this.element = el("tbody", { role: "rowgroup" }, this.#row(id), this.more);
    }

    #row(id) {
        const label = cut(this.name, 100);
        this.toggle = el("button", {
            type: "button",
            class: "disclose",
            "aria-expanded": "false",
            "aria-controls": id,
            "aria-label": `Details of ${label}`,
        });
        onPress(this.toggle, () => this.#open());
        const name = el(
            "th",
            { role: "rowheader", scope: "row", class: "c-name" },
            this.toggle,
            el("bdi", {}, label),
            ...unseen(this.name),
        );
        const cell = (key, title, ...inside) => {
            this.#cells[key] = el(
                "td",
                { role: "cell", class: `c-${key}`, "data-label": title },
                ...inside,
            );
            return this.#cells[key];
        };
        this.state = el("span", { class: "badge" });
        const actions = ["pause", "resume", "restart", "remove"].map((verb) =>
            this.#button(verb, label),
        );
        return el(
            "tr",
            { role: "row" },
            name,
            cell("state", "State", this.state),
            cell("uri", "URI"),
            cell("id", "Node id"),
            el(
                "td",
                { role: "cell", class: "c-actions" },
                el("div", { class: "actions" }, ...actions),
            ),
        );
    }

    #button(verb, label) {
        const key = `node ${this.name}`;
        const text = VERBS[verb][0];
        const button = el(
            "button",
            {
                type: "button",
                "data-key": key,
                "data-verb": verb,
                "aria-label": `${text} ${label}`,
            },
            text,
        );
        enable(button, !isBusy(key));
        onPress(button, () => act(verb, this.name));
        this.#buttons[verb] = button;
        return button;
    }

    #open() {
        const open = this.more.hidden;
        this.more.hidden = !open;
        this.toggle.setAttribute("aria-expanded", String(open));
        if (open) this.#describe();
    }

    /** Values stay the same elements, so that a long one stays open. */
    #describe() {
        for (const [key, title] of FACTS) {
            let fact = this.#facts.get(key);
            if (!fact) {
                const value = el("dd");
                fact = { value, element: el("div", {}, el("dt", {}, title), value) };
                this.#facts.set(key, fact);
                this.#details.append(fact.element);
            }
            const text = this.#fact(key);
            put(fact.value, text);
            fact.element.hidden = !text;
        }
    }

    #fact(key) {
        if (key === "name") return this.name;
        const value = String(this.#shown[key] ?? "");
        return key === "config" ? decoded(value) : value;
    }

    update(info) {
        const before = this.#shown;
        if (JSON.stringify(before) === JSON.stringify(info)) return;
        this.#shown = info;
        const { uri = "", id = "" } = info;
        if (before?.uri !== uri) this.#cells.uri.replaceChildren(webLink(uri));
        if (before?.id !== id) this.#cells.id.replaceChildren(el("bdi", {}, cut(id)));
        this.#showState(Boolean(info.paused));
        if (!this.more.hidden) this.#describe();
    }

    #showState(paused) {
        say(this.state, paused ? "Paused" : "Running");
        this.state.dataset.state = paused ? "paused" : "running";
        const [shown, hidden] = paused ? ["resume", "pause"] : ["pause", "resume"];
        const moved = document.activeElement === this.#buttons[hidden];
        this.#buttons[shown].hidden = false;
        if (moved) this.#buttons[shown].focus({ preventScroll: true });
        this.#buttons[hidden].hidden = true;
    }
}

function decoded(base64) {
    try {
        return new TextDecoder().decode(
            Uint8Array.from(atob(base64), (each) => each.charCodeAt(0)),
        );
    } catch {
        return base64;
    }
}

async function act(verb, name) {
    const [word, doing, done] = VERBS[verb];
    const question = {
        title: "Remove this node?",
        subject: name,
        text: "It is stopped and taken out of the cluster. This can't be undone.",
        action: word,
    };
    if (verb === "remove" && !(await ask(question))) return;
    const request =
        verb === "remove"
            ? { method: "DELETE", path: () => `/v1/nodes/${inPath(name)}` }
            : { method: "POST", path: () => `/v1/nodes/${inPath(name)}/${verb}` };
    await operate({ doing, done, subject: name }, `node ${name}`, request);
}

const table = $("nodes-table");
const rows = new Keyed(
    table,
    (name) => new NodeRow(name),
    $("nodes"),
    () => table.tBodies[0] ?? null,
);

/** Show nodes: a Map of NodeInfo by name. */
export function showNodes(given) {
    nodes = given;
    rows.show(new Map(sorted([...nodes])));
    filter();
}

function sorted(entries) {
    const { by, descending } = sorting;
    const of = {
        name: ([name]) => name,
        state: ([, info]) => String(Boolean(info.paused)),
        uri: ([, info]) => info.uri ?? "",
        id: ([, info]) => info.id ?? "",
    }[by];
    const order = (a, b) =>
        collator.compare(of(a), of(b)) || collator.compare(a[0], b[0]) || (a[0] < b[0] ? -1 : 1);
    return entries.sort((a, b) => (descending ? order(b, a) : order(a, b)));
}

function filter() {
    const wanted = $("nodes-filter").value.trim().toLowerCase();
    let count = 0;
    for (const [name, info] of nodes) {
        const texts = [name, info.id ?? "", info.uri ?? ""];
        const fits = texts.some((text) => text.toLowerCase().includes(wanted));
        rows.rows.get(name).element.hidden = !fits;
        count += fits ? 1 : 0;
    }
    say($("nodes-count"), nodes.size ? `${count} of ${nodes.size}` : "");
    const none = count === 0;
    $("nodes-region").hidden = none && nodes.size === 0;
    $("nodes-empty").hidden = !none;
    return count;
}

/** What to say where there are no nodes. */
export function explainNoNodes(text) {
    say($("nodes-empty"), nodes.size ? NO_FIT : text);
}

let saying = 0;
$("nodes-filter").addEventListener("input", () => {
    const count = filter();
    if (nodes.size) say($("nodes-empty"), NO_FIT);
    clearTimeout(saying);
    saying = setTimeout(() => announce(`${count} of ${nodes.size} nodes`), 600);
});

for (const button of table.querySelectorAll("[data-sort]")) {
    button.addEventListener("click", () => {
        const by = button.dataset.sort;
        sorting.descending = sorting.by === by && !sorting.descending;
        sorting.by = by;
        for (const each of table.querySelectorAll("[data-sort]")) {
            const direction = sorting.descending ? "descending" : "ascending";
            each.closest("th").setAttribute("aria-sort", each === button ? direction : "none");
        }
        showNodes(nodes);
    });
}

const CHAIN_COLUMNS = ["Name", "VM", "Chain id", "Validator set"];

class ChainRow {
    constructor() {
        this.texts = CHAIN_COLUMNS.map(() => el("div"));
        const cells = this.texts.map((text, at) =>
            el("td", { role: "cell", "data-label": CHAIN_COLUMNS[at] }, text),
        );
        this.element = el("tr", { role: "row" }, ...cells);
    }

    update(chain) {
        const texts = [chain.chainName, chain.vmName || chain.vmId, chain.chainId, chain.subnetId];
        texts.forEach((text, at) => put(this.texts[at], String(text ?? "")));
    }
}

const chainRows = new Keyed($("chains-rows"), () => new ChainRow(), $("chains-region"));

/** Show chains: a Map of ChainInfo by chain id, or what to say where there are none. */
export function showChains(chains, otherwise) {
    const order = (a, b) =>
        collator.compare(String(a[1].chainName), String(b[1].chainName)) || (a[0] < b[0] ? -1 : 1);
    chainRows.show(new Map([...chains].sort(order)));
    say($("chains-count"), chains.size ? String(chains.size) : "");
    $("chains-region").hidden = chains.size === 0;
    $("chains-empty").hidden = chains.size > 0;
    say($("chains-empty"), otherwise);
}
