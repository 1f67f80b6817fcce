import { copyButton, snippet } from "../../shared/copy.js";
import { notice } from "../../shared/dialog.js";
import { el, show as put } from "../../shared/dom.js";
import { body, button, card } from "../parts.js";
import { makeToken } from "../tokens.js";

const PLACEHOLDER = "ml_YOUR_TOKEN";
const ORIGIN = location.origin;
// The bridge speaks plain http to this machine alone, unless it is told otherwise.
const IN_THE_CLEAR = location.protocol === "http:" && !["127.0.0.1", "localhost"].includes(location.hostname);

export function show({ root, api, address, session }) {
  put(
    root,
    el("p", { class: "muted" }, "Three ways for your chats to come here by themselves, and for your memories to go where you write. The past comes by ", el("a", { href: address("import") }, "import"), "."),
    extension(),
    withToken(api, session, "Your assistants, by MCP", "they search your memories and save to them", "Assistants (MCP)", ["read", "write"], assistants()),
    withToken(api, session, "Programs that speak OpenAI's or Anthropic's protocol", "memories come in by themselves", "OpenAI and Anthropic clients", ["read", "write", "chat"], clients()),
  );
}

function extension() {
  return card(
    "Chrome extension",
    "saves what you say to ChatGPT, Claude, Gemini and Grok, as it happens",
    body(
      el(
        "ol",
        { class: "steps" },
        el("li", {}, "In the folder of Memory Layer, build it:", snippet("the command that builds it", "make extension").element),
        el("li", {}, "Open ", copied("chrome://extensions"), ", switch on the developer mode, press ", el("em", {}, "Load unpacked"), " and choose ", copied("extension/dist/chrome"), "."),
        el("li", {}, "A page opens and asks where your server is. It is here:", snippet("the address of this server", ORIGIN).element),
        el("li", {}, "Sign in there as you did here, choose what may be saved, and agree. Until then nothing is."),
      ),
    ),
  );
}

/** Snippets that name a token, and a button that makes one and puts it into all of them. */
function withToken(api, session, title, note, name, scopes, blocks) {
  const draw = (token) => blocks.forEach(({ block, write }) => block.write(write(token)));
  const told = el("p", { class: "muted small" }, `Its scopes: ${scopes.join(", ")}. It can be revoked under Tokens.`);
  const make = button("Make a token for these", async () => {
    make.disabled = true;
    try {
      draw(await makeToken(api, name, scopes));
      put(told, "The token stands in the lines below, this once: copy what you need now.");
      told.className = "callout";
    } catch (error) {
      notice(error.message, { bad: true });
      make.disabled = false;
    }
  });
  draw(PLACEHOLDER);
  return card(
    title,
    note,
    body(
      session.kind === "session" ? el("div", { class: "row" }, make, told) : el("p", { class: "muted small" }, "Sign in with your account to have a token made here."),
      blocks.map(({ title: heading, where, block }) => el("section", { class: "how" }, el("h3", {}, heading), el("p", { class: "muted small" }, where), block.element)),
    ),
  );
}

function assistants() {
  const server = (token) => ({ url: `${ORIGIN}/mcp`, headers: { Authorization: `Bearer ${token}` } });
  const bridge = (token) => ({ command: "npx", args: ["-y", "mcp-remote", `${ORIGIN}/mcp`, "--header", "Authorization:${AUTH}", ...(IN_THE_CLEAR ? ["--allow-http"] : [])], env: { AUTH: `Bearer ${token}` } });
  const config = (entry) => JSON.stringify({ mcpServers: { "memory-layer": entry } }, null, 2);
  return [
    how("Claude Code", "Run it in a terminal.", (token) => `claude mcp add --transport http memory-layer ${ORIGIN}/mcp --header "Authorization: Bearer ${token}"`),
    how("Claude Desktop", "Settings, Developer, Edit Config: claude_desktop_config.json. The bridge needs Node.", (token) => config(bridge(token))),
    how("Cursor", "In ~/.cursor/mcp.json", (token) => config(server(token))),
  ];
}

function clients() {
  return [
    how("OpenAI's clients", "As environment variables; others call them base URL and API key.", (token) => `OPENAI_BASE_URL=${ORIGIN}/v1\nOPENAI_API_KEY=${token}`),
    how("Anthropic's clients", "The base URL has no /v1.", (token) => `ANTHROPIC_BASE_URL=${ORIGIN}\nANTHROPIC_API_KEY=${token}`),
    how("By hand", "What was said is kept, and what fits of your memories is shown to the model.", (token) => `curl -s ${ORIGIN}/v1/chat/completions -H "Authorization: Bearer ${token}" \\\n  -H 'Content-Type: application/json' \\\n  -d '{"model": "gpt-5.4-mini", "messages": [{"role": "user", "content": "Sort it as I like."}]}'`),
  ];
}

const how = (title, where, write) => ({ title, where, write, block: snippet(`the lines for ${title}`) });
const copied = (text) => el("span", { class: "inline-copy" }, el("code", {}, text), copyButton(() => text, text));
