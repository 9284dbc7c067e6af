// Asks /api/status again and again and shows it. Text goes into the page as text, never as markup.
import { figures, chains, spares, copies, sequencers, servers, history, segments, clients } from "/ui/parts.js";
import { h, duration } from "/ui/dom.js";

const every = 2000, patience = 8000;
const shown = new Map();
let last = 0; // when the last answer came, by this machine's clock

// part shows a section if there is something to show, and leaves it alone if nothing changed: a selection in it stays.
function part(id, data, build, slot) {
  const section = document.getElementById(id);
  section.hidden = data === null;
  const key = JSON.stringify(data);
  if (shown.get(id) === key) return;
  shown.set(id, key);
  (slot ? section.querySelector(slot) : section).replaceChildren(...(data === null ? [] : build(data)));
}

function verdict(word, problems) {
  const names = { healthy: "Healthy", degraded: "Degraded", down: "Down", stale: "No answer" };
  const marks = { healthy: "✓", degraded: "!", down: "✕", stale: "✕" };
  const section = document.getElementById("verdict");
  const key = JSON.stringify([word, problems]);
  if (shown.get("verdict") === key) return;
  shown.set("verdict", key);
  section.dataset.verdict = word;
  section.replaceChildren(...[
    h("p", { class: "word" }, h("span", { "aria-hidden": "true" }, marks[word] + " "), names[word]),
    problems.length === 0 ? null : h("ul", {}, ...problems.map((p) => h("li", {}, sentence(p.what),
      h("p", { class: "todo" }, ...(p.todo ? [h("b", {}, "To do: "), p.todo + "."] : []))))),
  ].filter(Boolean));
  document.title = (word === "healthy" ? "" : names[word] + " – ") + "corfu";
}

const sentence = (s) => s.charAt(0).toUpperCase() + s.slice(1) + ".";

function show(m) {
  verdict(m.verdict, m.problems);
  document.getElementById("identity").textContent = m.log ? `log ${m.log} · durability ${m.durability}` : "";
  const known = m.epoch > 0;
  part("figures", known ? figures.data(m) : null, figures.build);
  part("chains", known ? chains.data(m) : null, chains.build, "ul");
  part("spares", spares.data(m), spares.build, "ul");
  part("copies", copies.data(m), copies.build, "ul");
  part("sequencers", sequencers.data(m), sequencers.build, ".scroll");
  part("servers", servers.data(m), servers.build, ".scroll");
  part("history", history.data(m), history.build, ".scroll");
  document.querySelector("#history .hint").textContent = m.leads_since_ms
    ? `The leader has led for ${duration(m.at_ms - m.leads_since_ms)}. Of what was before it, the layout records tell only what changed.` : "";
  part("segments", segments.data(m), segments.build, ".scroll");
  part("clients", clients.data(m), clients.build, ".scroll");
}

async function refresh() {
  try {
    const answer = await fetch("/api/status", { cache: "no-store", signal: AbortSignal.timeout(patience) });
    show(await answer.json());
    last = Date.now();
  } catch {
    if (last === 0 || Date.now() - last > 2 * every) {
      verdict("stale", [{ what: "this layout server does not answer the page; what stands below is old", todo: "" }]);
    }
  }
  document.getElementById("freshness").textContent = last ? `as of ${new Date(last).toLocaleTimeString()}` : "";
  setTimeout(refresh, every);
}

refresh();
