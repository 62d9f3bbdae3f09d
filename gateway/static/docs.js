/** Starts Swagger UI on the gateway's OpenAPI document. */

const page = document.getElementById("docs");

// Swagger UI makes its elements from text. It may: the page's policy lets no script in a text run.
// Texts that would be scripts, or addresses of some, stay refused, as this policy makes none.
window.trustedTypes?.createPolicy("default", {createHTML: (text) => text});

// Swagger UI has dark colours, and shows them where it is told to.
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const followColours = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", followColours);
followColours();

const STREAM = ["x-zap", "streaming"];
const HINT = `

**This answer has no end**, so it can't be tried here. The [console](${page.dataset.console}) follows
it, and \`curl --no-buffer\` prints it.`;

const isStream = (operation) => STREAM.reduce((part, name) => part?.[name], operation);

function withHints(openapi) {
    for (const operations of Object.values(openapi.paths ?? {})) {
        for (const operation of Object.values(operations).filter(isStream)) {
            operation.description = (operation.description ?? "") + HINT;
        }
    }
    return openapi;
}

// Swagger UI shows an answer when it is whole: it would wait for that of a stream for ever, and keep
// all that came so far.
const streamsAreNotTried = {
    statePlugins: {
        spec: {
            wrapActions: {updateJsonSpec: (update) => (openapi) => update(withHints(openapi))},
            wrapSelectors: {
                allowTryItOutFor: () => (state, path, method) =>
                    !state.getIn(["json", "paths", path, method, ...STREAM]),
            },
        },
    },
};

// These inputs take tokens, which browsers are to keep in no history of forms, nor have checked
// elsewhere for their spelling.
const tokensAreNotKept = {
    wrapComponents: {
        Input: (Input, {React}) => (given) =>
            React.createElement(Input, {...given, autoComplete: "off", spellCheck: false}),
    },
};

SwaggerUIBundle({
    domNode: page,
    url: page.dataset.document,
    deepLinking: true,
    persistAuthorization: false, // else the token would be kept in localStorage
    validatorUrl: null, // it is on another machine
    plugins: [streamsAreNotTried, tokensAreNotKept],
});
