/** What was asked for, how long it takes, and what came of it. */

import { call } from "./api.js";
import { $, announce, cut, el, enable, put, say } from "./dom.js";

const KEPT = 50;
const FADES_AFTER = 20_000;
const UNKNOWN = {
    outcome_unknown: "Whether it took effect is unknown. Look at the cluster before you repeat it.",
    deadline_exceeded: "It may still take effect. Look at the cluster before you repeat it.",
    no_answer: "Whether it took effect is unknown. Look at the cluster before you repeat it.",
    not_the_gateway: "Whether it took effect is unknown. Look at the cluster before you repeat it.",
};

const busy = new Set();
const operations = [];

/**
 * Do something, once at a time, and show how it goes.
 *
 * @param what `doing`, `done` ("Pausing", "Paused") and the `subject`'s name
 * @param key nothing else with this key is done meanwhile, and its buttons are disabled
 * @param request `{method, path(), body}`
 * @return whether it worked
 */
export async function operate(what, key, request) {
    if (busy.has(key)) return false;
    const operation = new Operation(what);
    hold(key, true);
    try {
        operation.end((await sent(request)).problem ?? null);
    } finally {
        hold(key, false);
    }
    return operation.worked;
}

async function sent({ method, path, body }) {
    try {
        return await call(method, path(), body);
    } catch (error) {
        return { problem: { title: "This was not sent", detail: error.message } };
    }
}

function hold(key, held) {
    if (held) busy.add(key);
    else busy.delete(key);
    for (const button of document.querySelectorAll("button[data-key]")) {
        if (button.dataset.key === key) enable(button, !held);
    }
}

/** Whether something is under way with a key. */
export const isBusy = (key) => busy.has(key);

class Operation {
    #began = performance.now();
    #time = el("span", { class: "time" });
    #text;
    worked = false;
    failed = false;

    constructor({ doing, done, subject = "" }) {
        this.doing = doing;
        this.done = done;
        this.subject = subject;
        this.#text = el("span", { class: "what" });
        this.head = el(
            "div",
            { class: "head" },
            el("span", { class: "mark" }),
            this.#text,
            this.#time,
        );
        this.element = el("li", { class: "operation", "data-state": "running" }, this.head);
        this.#say(`${doing} `, "…");
        this.tick();
        operations.unshift(this);
        $("operations-list").prepend(this.element);
        trim();
    }

    #say(before, after) {
        const subject = el("span", { class: "subject" });
        if (this.subject) put(subject, this.subject);
        this.#text.replaceChildren(before, subject, after);
    }

    get running() {
        return !this.worked && !this.failed;
    }

    tick() {
        say(this.#time, `${Math.floor((performance.now() - this.#began) / 1000)} s`);
    }

    end(problem) {
        this.tick();
        if (problem) this.#fail(problem);
        else this.#finish();
        trim();
    }

    #finish() {
        this.worked = true;
        this.element.dataset.state = "done";
        this.#say(`${this.done} `, "");
        announce(`${this.done} ${this.subject}`);
        setTimeout(() => this.dismiss(), FADES_AFTER);
    }

    #fail(problem) {
        this.failed = true;
        this.element.dataset.state = "failed";
        this.#say(`${this.doing} `, " failed");
        this.element.append(told(problem));
        const label = `Dismiss: ${this.doing} ${cut(this.subject, 60)} failed`;
        const dismiss = el(
            "button",
            { type: "button", class: "plain", "aria-label": label },
            "Dismiss",
        );
        dismiss.addEventListener("click", () => {
            this.dismiss();
            $("operations").focus({ preventScroll: true });
        });
        this.head.append(dismiss);
        const why = `${problem.title}. ${problem.detail ?? ""}`;
        announce(`${this.doing} ${cut(this.subject, 60)} failed: ${why}`);
    }

    dismiss() {
        const at = operations.indexOf(this);
        if (at < 0) return;
        operations.splice(at, 1);
        this.element.remove();
        trim();
    }
}

/** A problem document for people. */
export function told(problem) {
    const detail = el("p", { class: "detail" });
    put(detail, String(problem.detail ?? ""));
    const items = (problem.errors ?? []).map((each) =>
        el("li", {}, el("code", {}, cut(String(each.field))), ` ${cut(String(each.message))}`),
    );
    const codes = [
        problem.status,
        problem.code,
        problem.requestId && `request ${problem.requestId}`,
    ];
    const unknown = UNKNOWN[problem.code];
    return el(
        "div",
        { class: "problem" },
        unknown ? el("p", { class: "unknown" }, unknown) : null,
        el("p", {}, String(problem.title)),
        detail,
        items.length ? el("ul", {}, ...items) : null,
        el("p", { class: "codes" }, codes.filter(Boolean).map(String).join(" · ")),
    );
}

function trim() {
    const over = operations.filter((each) => !each.running);
    for (const each of over.slice(KEPT)) each.dismiss();
    const running = operations.filter((each) => each.running).length;
    say($("operations-count"), running ? `${running} under way` : "");
    const empty = operations.length === 0;
    $("operations").dataset.empty = String(empty);
    $("operations-region").hidden = empty;
    $("operations-empty").hidden = !empty;
    const clear = $("operations-clear");
    const nothing = !operations.some((each) => each.worked);
    if (nothing && clear === document.activeElement) $("operations").focus({ preventScroll: true });
    clear.hidden = nothing;
}

/** Once a second: how long things have been under way. */
export function tickOperations() {
    for (const each of operations) if (each.running) each.tick();
}

$("operations-clear").addEventListener("click", () => {
    for (const each of [...operations]) if (each.worked) each.dismiss();
});
trim();
