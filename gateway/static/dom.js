/** What every part of the page uses: elements made of text, lists updated in place, questions. */

const SHORT = 120;
const WHOLE = 20_000;
const ANNOUNCED = 5;
// Characters that show as nothing, or change what stands around them. The joiner of emoji is fine.
const UNSEEN = /(?!\u200d)[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu;

export const $ = (id) => document.getElementById(id);

/** An element with attributes and children. Strings become text, and never anything else. */
export function el(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
        if (value === true) element.setAttribute(name, "");
        else if (value !== false && value !== null && value !== undefined) {
            element.setAttribute(name, value);
        }
    }
    element.append(...children.filter((child) => child !== null));
    return element;
}

/** The beginning of a text, with … where something is left out. */
export function cut(text, length = SHORT) {
    if (text.length <= length) return text;
    return `${text.slice(0, length).replace(/[\ud800-\udbff]$/, "")}…`;
}

/** Set an element's text, if it is another one. */
export function say(element, text) {
    if (element.textContent !== text) element.textContent = text;
}

const shown = new WeakMap();

/** Show a text that somebody else chose: apart from what is around it, and whole on demand. */
export function put(element, text) {
    if (shown.get(element) === text) return;
    shown.set(element, text);
    element.replaceChildren(
        text.length > SHORT ? long(text) : el("bdi", {}, text),
        ...unseen(text),
    );
}

function long(text) {
    const whole = el("bdi", { class: "whole" });
    const details = el(
        "details",
        { class: "long" },
        el("summary", {}, el("bdi", {}, cut(text, 80))),
        whole,
    );
    details.addEventListener("toggle", () => {
        if (!details.open || whole.textContent) return;
        const rest = text.length - WHOLE;
        whole.textContent = rest > 0 ? `${cut(text, WHOLE)} (${rest} more characters)` : text;
    });
    return details;
}

/** A note of the characters in a text that can't be seen. */
export function unseen(text) {
    const codes = new Set(text.slice(0, WHOLE).match(UNSEEN));
    if (!codes.size) return [];
    const names = [...codes]
        .slice(0, 4)
        .map((each) => `U+${each.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`);
    return [
        el(
            "span",
            { class: "unseen", title: "It holds characters that can't be seen" },
            names.join(" "),
        ),
    ];
}

/** A link to a node's own API, or just its text where it is no address of the web. */
export function webLink(text) {
    const short = cut(text);
    let url = null;
    try {
        url = new URL(text);
    } catch {
        return el("bdi", {}, short);
    }
    if (url.protocol !== "http:" && url.protocol !== "https:") return el("bdi", {}, short);
    const attributes = { href: url.href, target: "_blank", rel: "noopener noreferrer" };
    return el("a", attributes, el("bdi", {}, short));
}

/** A list of elements that stay the same ones while what they show changes. */
export class Keyed {
    #rows = new Map();
    #focus;
    #parent;
    #make;
    #first;

    /**
     * @param parent where the elements are
     * @param make gives for a key an object with `element` and `update(value)`
     * @param focus what to focus when the focused element goes
     * @param first the first child that is ours
     */
    constructor(parent, make, focus, first = () => parent.firstElementChild) {
        this.#parent = parent;
        this.#make = make;
        this.#focus = focus;
        this.#first = first;
    }

    get rows() {
        return this.#rows;
    }

    /** Show the values of a Map, in its order. */
    show(items) {
        const focused = this.#parent.contains(document.activeElement)
            ? document.activeElement
            : null;
        for (const [key, row] of this.#rows) {
            if (items.has(key)) continue;
            row.element.remove();
            this.#rows.delete(key);
        }
        let at = this.#first();
        for (const [key, value] of items) {
            let row = this.#rows.get(key);
            if (!row) this.#rows.set(key, (row = this.#make(key)));
            row.update(value);
            if (row.element === at) at = at.nextElementSibling;
            else this.#parent.insertBefore(row.element, at);
        }
        if (focused && document.activeElement !== focused) {
            (focused.isConnected ? focused : this.#focus).focus({ preventScroll: true });
        }
    }
}

/** Tell screen readers, once they have said what they are saying. */
export function announce(text) {
    const announcer = $("announcer");
    announcer.append(el("p", {}, cut(text, 300)));
    while (announcer.childElementCount > ANNOUNCED) announcer.firstElementChild.remove();
}

/** Let a button be pressed or not; unlike `disabled` it keeps the focus. */
export function enable(button, enabled) {
    if (enabled) button.removeAttribute("aria-disabled");
    else button.setAttribute("aria-disabled", "true");
}

/** Call `press` when a button is pressed that is not disabled. */
export function onPress(button, press) {
    button.addEventListener("click", () => {
        if (button.getAttribute("aria-disabled") !== "true") press();
    });
}

/** Show a modal dialog; the value of the button that closes it. */
export function show(dialog) {
    if (dialog.open) return Promise.resolve("");
    dialog.returnValue = "";
    const closed = new Promise((resolve) => {
        dialog.addEventListener("close", () => resolve(dialog.returnValue), { once: true });
    });
    dialog.showModal();
    return closed;
}

for (const button of document.querySelectorAll("dialog [data-close]")) {
    button.addEventListener("click", () => button.closest("dialog").close(""));
}

/** Ask before something that can't be undone; whether the answer is yes. */
export async function ask({ title, subject = "", text, action }) {
    $("question-title").textContent = title;
    put($("question-subject"), subject);
    $("question-subject").hidden = !subject;
    $("question-text").textContent = text;
    $("question-yes").textContent = action;
    return (await show($("question"))) === "yes";
}

/** Show a dialog with a form; the request that was filled in, or null. What was typed stays. */
export async function fill(dialog) {
    const form = dialog.querySelector("form");
    const wrong = dialog.querySelector(".wrong");
    wrong.textContent = "";
    let request = null;
    const check = (event) => {
        try {
            request = requestOf(form);
        } catch (error) {
            event.preventDefault();
            wrong.textContent = error.message;
            form.querySelector("[data-more]").focus();
        }
    };
    form.addEventListener("submit", check);
    const answer = await show(dialog);
    form.removeEventListener("submit", check);
    return answer === "yes" ? request : null;
}

function requestOf(form) {
    const request = {};
    for (const field of form.querySelectorAll("[name]")) {
        if (field.type === "checkbox") {
            if (field.checked) request[field.name] = true;
        } else if (field.value !== "") {
            request[field.name] = field.type === "number" ? Number(field.value) : field.value;
        }
    }
    return { ...request, ...moreOf(form.querySelector("[data-more]").value) };
}

function moreOf(text) {
    if (!text.trim()) return {};
    let more;
    try {
        more = JSON.parse(text);
    } catch (error) {
        throw new Error(`“More of the request” is not JSON: ${error.message}`);
    }
    if (typeof more !== "object" || more === null || Array.isArray(more)) {
        throw new Error("“More of the request” must be a JSON object: {…}");
    }
    return more;
}
