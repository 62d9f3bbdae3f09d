/** Requests to the gateway, and the token that goes with them. */

import { $, show } from "./dom.js";

export const ROOT = document.documentElement.dataset.root;
const PATIENCE = 15_000;
const IN_STORAGE = `zap-gateway token ${ROOT}`;

/** The token: in this tab only, and never in an address. */
class Token {
    #value = "";
    #asking = null;
    #waiting = [];

    constructor() {
        try {
            this.#value = sessionStorage.getItem(IN_STORAGE) ?? "";
        } catch {
            // Where storage is blocked, the token lives as long as the page.
        }
    }

    get value() {
        return this.#value;
    }

    /** Ask for one, in one dialog whoever needs it; whether it was given. */
    ask(why) {
        this.#asking ??= this.#ask(why).finally(() => {
            this.#asking = null;
        });
        return this.#asking;
    }

    async #ask(why) {
        const input = $("token");
        $("token-why").textContent = why;
        input.value = "";
        const answer = await show($("token-dialog"));
        const given = input.value.trim();
        input.value = "";
        if (answer !== "yes" || !given) return false;
        this.#keep(given);
        return true;
    }

    #keep(value) {
        this.#value = value;
        try {
            if (value) sessionStorage.setItem(IN_STORAGE, value);
            else sessionStorage.removeItem(IN_STORAGE);
        } catch {
            // As above.
        }
        for (const resolve of this.#waiting.splice(0)) resolve();
    }

    forget() {
        this.#keep("");
    }

    /** Resolves when there is another one. */
    changed() {
        return new Promise((resolve) => this.#waiting.push(resolve));
    }
}

export const token = new Token();

/** Fetch with the token; a 401 asks for another one, until there is none to be had. */
export async function fetchWithToken(path, options = {}, patience = 0) {
    for (;;) {
        const used = token.value;
        const response = await attempt(path, options, used, patience);
        if (response.status !== 401) return response;
        const copy = response.clone();
        if (token.value === used && !(await token.ask(await whyNot(copy, used)))) return response;
    }
}

async function whyNot(response, used) {
    const problem = await response.json().catch(() => ({}));
    return used
        ? `That one was refused: ${problem.detail ?? "it is not valid"}.`
        : "It lets in only who shows one.";
}

async function attempt(path, options, used, patience) {
    const headers = new Headers(options.headers);
    if (used) {
        try {
            headers.set("authorization", `Bearer ${used}`);
        } catch {
            return new Response('{"detail":"it has characters that no token has"}', {
                status: 401,
            });
        }
    }
    const abort = new AbortController();
    const stop = () => abort.abort(options.signal.reason);
    options.signal?.addEventListener("abort", stop);
    const late = new Error(`no answer in ${patience / 1000} s`);
    const timer = patience && setTimeout(() => abort.abort(late), patience);
    const more = { headers, signal: abort.signal, cache: "no-store", redirect: "error" };
    try {
        return await fetch(ROOT + path, { ...options, ...more });
    } finally {
        clearTimeout(timer);
    }
}

/** The stream of events and states, from where another one ended. */
export function openStream(lastId, signal) {
    const headers = { accept: "text/event-stream" };
    if (lastId) headers["last-event-id"] = lastId;
    return fetchWithToken(
        "/v1/events/stream?status=true&interval=1s",
        { headers, signal },
        PATIENCE,
    );
}

/** Ask for something: `{body}`, or `{problem}` as the API told it or as the page has to say it. */
export async function call(method, path, request) {
    const options = { method };
    if (request !== undefined) {
        options.headers = { "content-type": "application/json" };
        options.body = JSON.stringify(request);
    }
    let response;
    try {
        response = await fetchWithToken(path, options);
    } catch (error) {
        return {
            problem: {
                title: "The gateway did not answer",
                detail: error.message,
                code: "no_answer",
            },
        };
    }
    const body = await response.json().catch(() => null);
    if (response.ok && body !== null) return { body };
    return { problem: problemOf(response, body) };
}

/** A problem document, or one in its place where something else than the gateway answered. */
export function problemOf(response, body) {
    if (typeof body?.title === "string") return body;
    return {
        title: "The answer is not the gateway's",
        detail: `status ${response.status}`,
        status: response.status,
        code: response.status < 400 ? "no_answer" : "not_the_gateway",
    };
}

/** A name as part of an address; an error where no browser can say it so. */
export function inPath(name) {
    if (name === "" || name === "." || name === "..") {
        throw new Error(
            `a browser can't ask for the name “${name}”: in an address it means another place`,
        );
    }
    return encodeURIComponent(name);
}
