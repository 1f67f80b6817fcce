import { deedOf, detailsOf, nameOf, tier, TIERS, tokensToday } from "../people.js";
import { chart, legend } from "../shared/chart.js";
import { ask, field, notice } from "../shared/dialog.js";
import { el, say, show } from "../shared/dom.js";
import { dayOf, number, plural, timeOf } from "../shared/format.js";
import { table } from "../shared/table.js";

const USE = [
  { name: "Answered", key: "requests" },
  { name: "Refused by a limit", key: "refused", tone: "warn" },
];

export async function open({ api, heading, body, id }) {
  const address = `/users/${encodeURIComponent(id)}`;
  const facts = el("dl", { class: "facts" });
  const plan = el("dl", { class: "facts" });
  const deeds = el("div", {});
  const use = chart({ label: "Requests of the last 30 days", time: dayOf });
  let person = null;

  draw(await api.get(address));
  heading.before(el("a", { class: "crumbs", href: "#/users" }, "← All users"));
  document.title = `${nameOf(person)} · Memory Layer`;
  body.removeAttribute("aria-busy");
  show(
    body,
    el(
      "div",
      { class: "columns" },
      el(
        "div",
        { class: "stack span-8" },
        el("section", { class: "card chart-card" }, el("header", {}, el("h2", {}, "Requests by day"), el("span", { class: "muted small" }, "last 30 days, UTC")), el("div", { class: "body" }, use.element, legend(USE))),
        el("section", { class: "card" }, el("header", {}, el("h2", {}, "What operators did")), deeds),
      ),
      el(
        "div",
        { class: "stack span-4" },
        el("section", { class: "card" }, el("header", {}, el("h2", {}, "Account")), el("div", { class: "body" }, facts)),
        el("section", { class: "card" }, el("header", {}, el("h2", {}, "Plan"), button("Change plan", changePlan, "compact")), el("div", { class: "body" }, plan)),
        el("section", { class: "card" }, el("header", {}, el("h2", {}, "Actions")), el("div", { class: "body" }, actions())),
      ),
    ),
  );
  return { every: 15_000, refresh };

  async function refresh() {
    draw(await api.get(address));
  }

  function draw(seen) {
    person = seen.person;
    say(heading, nameOf(person));
    show(facts, factsOf(person));
    show(plan, planOf(person));
    show(deeds, deedTable(seen.deeds));
    use.update({
      times: seen.days.map((one) => one.day),
      series: USE.map((one) => ({ ...one, values: seen.days.map((day) => day[one.key]) })),
    });
  }

  function actions() {
    return [
      action("Rebuild the search cache", "Every replica reads it anew with the next search.", button("Rebuild", rebuild)),
      action("Export the memories", "All texts, in a zip. That you took it goes on record.", el("a", { class: "button", href: `/admin/api${address}/export`, download: "" }, "Export")),
      action("Delete the account", "Memories, tokens, sessions and the account itself, for ever.", button("Delete…", erase, "danger")),
    ];
  }

  async function changePlan() {
    const choice = el("select", { class: "input", name: "tier" }, [["", "Default of this server"], ...Object.entries(TIERS)].map(([value, text]) => el("option", { value, selected: value === (person.tier_is_default ? "" : person.tier) }, text)));
    const minute = limitInput("per_minute", person.override_per_minute);
    const day = limitInput("per_day", person.override_per_day);
    const done = await ask({
      title: `Plan of ${nameOf(person)}`,
      action: "Save",
      body: [field("Tier", choice), field("Requests a minute", minute, "Empty: as the tier says."), field("Requests a day", day, "Empty: as the tier says.")],
      act: async (form) => {
        const limitOf = (name) => (form.get(name) === "" ? null : Number(form.get(name)));
        const answer = await api.call("PUT", `${address}/plan`, { body: { tier: form.get("tier") || null, per_minute: limitOf("per_minute"), per_day: limitOf("per_day") } });
        const unmirrored = answer.mirrored === false ? " The Supabase project does not show it: it could not be asked." : "";
        notice(`Saved; it holds on every server within 5 seconds.${unmirrored}`);
      },
    });
    if (done) await refresh();
  }

  async function rebuild() {
    try {
      await api.post(`${address}/rebuild-cache`);
      notice("The next search of this user reads everything anew.");
      await refresh();
    } catch (error) {
      notice(error.message, { bad: true });
    }
  }

  async function erase() {
    const erased = await ask({
      title: "Delete this account for ever?",
      danger: true,
      action: "Delete account",
      typed: person.email || person.id,
      body: [el("p", {}, `${plural(person.memories, "memory", "memories")} and everything else of ${nameOf(person)} will be erased on every server. Nothing brings it back.`)],
      act: async (form) => {
        const receipt = await api.post(`${address}/erase`, { typed: form.get("typed").trim() });
        const rows = Object.values(receipt.erased).reduce((sum, count) => sum + count, 0);
        const pending = receipt.sign_in === "pending" ? " Its sign-in at Supabase will be deleted as soon as the project answers." : "";
        const kept = receipt.sign_in === "kept" ? " Its sign-in at Supabase is still there: delete it in the project." : "";
        notice(`The account is erased: ${plural(rows, "row")}.${pending}${kept}`);
      },
    });
    if (erased) location.hash = "#/users";
  }
}

function factsOf(person) {
  return [
    fact("E-mail", person.email ?? "unknown"),
    person.name && fact("Name", person.name),
    fact("Id", el("span", { class: "mono" }, person.id)),
    fact("Created", timeOf(person.created_at)),
    fact("Last seen", person.last_seen ? dayOf(person.last_seen) : "never"),
    fact("Memories", number(person.memories)),
  ];
}

function planOf(person) {
  const own = (value) => (value === null ? null : el("span", { class: "badge warn" }, "own"));
  return [
    fact("Tier", el("span", { class: "row" }, tier(person, false), person.tier_is_default && el("span", { class: "muted small" }, "by default"))),
    fact("A minute", el("span", { class: "row" }, number(person.per_minute), own(person.override_per_minute))),
    fact("A day", el("span", { class: "row" }, number(person.per_day), own(person.override_per_day))),
    fact("Used today", `${number(person.requests_today)} of ${number(person.per_day)}`),
    fact("Refused today", number(person.refused_today)),
    fact("Model tokens today", tokensToday(person)),
  ];
}

function deedTable(deeds) {
  return table({
    caption: "What operators did about this user",
    empty: "No operator has done anything here.",
    rows: deeds,
    columns: [
      { label: "What", cell: deedOf },
      { label: "Details", wide: true, cell: detailsOf },
      { label: "Who", cell: (deed) => el("span", { class: "mono" }, deed.actor) },
      { label: "When", end: true, wide: true, cell: (deed) => timeOf(deed.at) },
    ],
  });
}

const fact = (name, value) => [el("dt", {}, name), el("dd", {}, value)];
const button = (text, click, tone = "") => el("button", { class: `button ${tone}`, type: "button", on: { click } }, text);
const action = (name, text, press) => el("div", { class: "action" }, el("div", {}, el("strong", {}, name), el("p", { class: "muted small" }, text)), press);
const limitInput = (name, value) => el("input", { class: "input", name, type: "number", min: 0, max: 1_000_000_000, step: 1, inputmode: "numeric", value: value ?? "" });
