/**
 * One stream of Server-Sent Events, read with fetch: an EventSource can't send a token, and a
 * browser has six connections for a host, so that one stream must do.
 */

const LONGEST = 64 * 1024 * 1024;
const SILENCE = 40_000; // the gateway breaks every silence after 15 s
const FIRST_DELAY = 1_000;
const LONGEST_DELAY = 10_000;

/** Cuts text into events, in whatever pieces it comes. */
export class SseParser {
    #line = [];
    #size = 0;
    #afterReturn = false;
    #type = "";
    #data = [];
    #dispatch;
    #longest;

    /** The last id that came; a reader that comes again says it. */
    lastId = "";

    /**
     * @param dispatch is called with each event: `{type, data, id}`
     * @param longest characters of one event; more is an error
     */
    constructor(dispatch, longest = LONGEST) {
        this.#dispatch = dispatch;
        this.#longest = longest;
    }

    push(text) {
        if (!text) return;
        let from = this.#afterReturn && text[0] === "\n" ? 1 : 0;
        this.#afterReturn = text.endsWith("\r");
        const ends = /\r\n|\n|\r/g;
        ends.lastIndex = from;
        for (let end = ends.exec(text); end; end = ends.exec(text)) {
            this.#take(text.slice(from, end.index));
            from = ends.lastIndex;
            const line = this.#line.join("");
            this.#line = [];
            this.#read(line);
        }
        if (from < text.length) this.#take(text.slice(from));
    }

    #take(piece) {
        this.#size += piece.length;
        if (this.#size > this.#longest) throw new Error("an event of the stream is too large");
        this.#line.push(piece);
    }

    #read(line) {
        if (!line) {
            this.#end();
            return;
        }
        const colon = line.indexOf(":");
        if (colon === 0) {
            this.#size -= line.length;
            return;
        }
        const name = colon < 0 ? line : line.slice(0, colon);
        const value = colon < 0 ? "" : line.slice(colon + (line[colon + 1] === " " ? 2 : 1));
        if (name === "event") this.#type = value;
        else if (name === "data") this.#data.push(value);
        else if (name === "id" && !value.includes("\0")) this.lastId = value;
    }

    #end() {
        const event = {
            type: this.#type || "message",
            data: this.#data.join("\n"),
            id: this.lastId,
        };
        const told = this.#data.length > 0;
        this.#type = "";
        this.#data = [];
        this.#size = 0;
        if (told) this.#dispatch(event);
    }
}

/** Milliseconds to wait before another attempt: doubling, and not all pages at the same moment. */
export function delayAfter(failures) {
    const delay = Math.min(FIRST_DELAY * 2 ** failures, LONGEST_DELAY);
    return delay * (0.75 + Math.random() / 4);
}

/**
 * Read a stream for ever, again and again.
 *
 * @param open `(lastId, signal)`: the response, whose status may be anything
 * @param on `opened()`, `event({type, data, id})`, and `lost({problem, error, delay})`, which may
 *   give a promise to wait for instead of the delay (milliseconds)
 */
export async function follow(open, on) {
    let lastId = "";
    for (let failures = 0; ; failures += 1) {
        const lost = { problem: null, error: null, status: 0 };
        const parser = new SseParser((event) => {
            failures = 0;
            if (event.type === "end") lost.problem = JSON.parse(event.data);
            else on.event({ ...event, data: JSON.parse(event.data), text: event.data });
        });
        parser.lastId = lastId;
        try {
            await read(open, on, parser, lost);
        } catch (error) {
            lost.error = error;
        }
        lastId = parser.lastId;
        lost.delay = delayAfter(failures);
        await (on.lost(lost) ?? new Promise((resolve) => setTimeout(resolve, lost.delay)));
    }
}

async function read(open, on, parser, lost) {
    const abort = new AbortController();
    const response = await open(parser.lastId, abort.signal);
    lost.status = response.status;
    if (!response.ok || !isStream(response)) {
        lost.problem = await response.json().catch(() => null);
        return;
    }
    on.opened();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    try {
        for (;;) {
            const { done, value } = await patient(reader.read(), abort);
            if (done) return;
            parser.push(value);
        }
    } finally {
        abort.abort();
        await reader.cancel().catch(() => undefined);
    }
}

const isStream = (response) =>
    /^text\/event-stream\b/.test(response.headers.get("content-type") ?? "");

async function patient(promise, abort) {
    const silent = new Error(`nothing came for ${SILENCE / 1000} s`);
    const timer = setTimeout(() => abort.abort(silent), SILENCE);
    try {
        return await promise;
    } finally {
        clearTimeout(timer);
    }
}
