// The sections of the page. data picks what a section shows, null if nothing; build makes elements of it.
import { h, s, table, number, count, rate, percent, bytes, duration, ago, bar, pill } from "/ui/dom.js";

const trends = { appends: [], bytes: [] };

function trend(values) {
  const top = Math.max(...values, 1), n = values.length;
  if (n < 2) return null;
  const points = values.map((v, i) => `${n > 1 ? (100 * i) / (n - 1) : 0},${(19 - (18 * v) / top).toFixed(2)}`);
  return s("svg", { class: "trend", viewBox: "0 0 100 20", preserveAspectRatio: "none", "aria-hidden": "true" },
    s("polygon", { points: `0,20 ${points.join(" ")} 100,20` }), s("polyline", { points: points.join(" ") }));
}

const remember = (list, value) => { list.push(value); if (list.length > 60) list.shift(); return [...list]; };

export const figures = {
  data: (m) => ({ epoch: m.epoch, going: m.epoch_in_progress, phase: m.phase, tail: m.tail, appends: remember(trends.appends, m.appends_per_second),
    bytes: remember(trends.bytes, m.bytes_per_second), open: m.deficit_open, older: m.deficit_older }),
  build: (d) => {
    const figure = (name, value, more, cls) => h("div", {}, h("dt", {}, name), h("dd", { class: cls }, value), more ?? null);
    const lacking = d.open + d.older;
    return [
      figure("Appends per second", rate(d.appends.at(-1)), trend(d.appends)),
      figure("To and from flash", `${bytes(d.bytes.at(-1))}/s`, trend(d.bytes)),
      figure("Tail", number(d.tail)),
      figure("Epoch", d.going ? [`${d.epoch}`, ` → ${d.going} (${d.phase})`].join("") : number(d.epoch)),
      figure("Replicas lacking", lacking ? number(lacking) : "none", d.older ? h("p", {}, d.open ? `${d.older} of them of older positions` : "of older positions") : null, lacking ? "lacking" : null),
    ];
  },
};

// mark says whether a member is as it should be.
function mark(m, x) {
  if (x.state === "unreachable") return "bad";
  if (x.silent_ms > 0) return "warn";
  if (x.role === "serves") return x.state === "open" && x.epoch === m.epoch ? "good" : "warn";
  return "";
}

function state(m, x) {
  if (x.state === "unreachable") return "unreachable";
  if (x.silent_ms > 0) return `silent for ${duration(x.silent_ms)}`;
  if (x.role !== "serves" && x.state === "closed") return "stands by";
  return x.role === "serves" && x.epoch !== m.epoch ? `${x.state}, epoch ${x.epoch}` : x.state;
}

function unitData(m, u, place) {
  const room = u.used_bytes + u.free_bytes;
  return { id: u.id, place, mark: mark(m, u), state: state(m, u), error: u.error, writes: rate(u.pages_per_second), cold: rate(u.cold_reads_per_second),
    used: room ? u.used_bytes / room : null, usedText: `${bytes(u.used_bytes)} of ${bytes(room)}`, sessions: u.sessions, control: u.control,
    corrupt: u.corrupt, lost: u.lost, tampered: u.tampered, full: u.full, serves: u.role === "serves" };
}

function unit(u) {
  const lines = [];
  if (u.error) lines.push(h("p", { class: "alarm" }, u.error));
  if (u.serves && !u.error) lines.push(h("p", {}, `${u.writes} writes/s, ${u.cold} cold reads/s`));
  if (u.corrupt) lines.push(h("p", { class: "alarm" }, count(u.corrupt, "corrupt page") + (u.lost ? `, ${u.lost} of them lost` : "")));
  if (u.tampered) lines.push(h("p", { class: "alarm" }, `${count(u.tampered, "word")} tampered with`));
  if (u.full) lines.push(h("p", { class: "alarm" }, "no room for more pages"));
  if (u.used !== null) {
    const warn = u.used >= 0.9;
    lines.push(bar(u.used, `${percent(u.used)} of its room used`, warn), h("p", {}, u.usedText));
  }
  lines.push(h("p", {}, u.serves ? `${u.control} · ${count(u.sessions, "session")}` : u.control));
  return h("li", { class: `unit ${u.mark} ${u.next ? "next" : ""}`, "data-unit": u.id },
    h("div", { class: "top" }, h("span", {}, `Unit ${u.id} `, u.place ? h("small", {}, u.place) : null), pill(u.state, u.mark)), ...lines);
}

export const chains = {
  data: (m) => {
    const units = new Map(m.units.map((u) => [u.id, u]));
    const open = m.segments.at(-1)?.chains ?? [];
    return open.map((c) => ({ name: c.units.join("-"), lacks: c.lacks, wanted: c.lacks + c.units.length,
      units: c.units.filter((id) => units.has(id)).map((id, i) => ({ ...unitData(m, units.get(id), place(i, c.units.length)), next: i > 0 })) }));
  },
  build: (list) => list.map((c) => h("li", { class: c.lacks ? "short" : null },
    h("h3", {}, `Chain ${c.name}`, h("span", { class: c.lacks ? "lacking" : null }, c.lacks ? `${c.wanted - c.lacks} of ${c.wanted} units` : `${c.wanted} units`)),
    h("ol", { class: "units" }, ...c.units.map(unit), ...Array.from({ length: c.lacks }, () => h("li", { class: "unit next absent" }, "a unit is lacking"))))),
};

const place = (i, n) => (n === 1 ? "head and tail" : i === 0 ? "head" : i + 1 === n ? "tail" : "");

export const spares = {
  data: (m) => {
    const inChain = new Set((m.segments.at(-1)?.chains ?? []).flatMap((c) => c.units));
    const list = m.units.filter((u) => !inChain.has(u.id)).map((u) => unitData(m, u, u.role === "serves" ? "older positions" : ""));
    return list.length ? list : null;
  },
  build: (list) => list.map(unit),
};

export const copies = {
  data: (m) => {
    const list = m.copies.map((c) => ({ name: `Copy of older positions to unit ${c.unit}`, part: c.pages ? c.copied / c.pages : 1,
      text: `${number(c.copied)} of ${number(c.pages)} pages` + (c.copied >= c.pages ? ", joins next" : c.seconds_left >= 0 ? `, about ${duration(1000 * c.seconds_left)} left` : "") }));
    for (const u of m.units.filter((u) => u.scrubbing)) {
      list.push({ name: `Scrub of unit ${u.id}`, part: u.scrubbed, text: u.scrub_waiting ? `waits: ${u.scrub_waiting}` : "" });
    }
    return list.length ? list : null;
  },
  build: (list) => list.map((x) => h("li", {}, h("b", {}, x.name), ` ${percent(x.part)}${x.text ? ", " + x.text : ""}`, bar(x.part, `${percent(x.part)} done`))),
};

export const sequencers = {
  data: (m) => (m.sequencers.length ? m.sequencers.map((x) => ({ id: x.id, mark: mark(m, x), state: state(m, x), error: x.error, next: x.state === "open" ? number(x.next) : "–", sessions: x.sessions, control: x.control })) : null),
  build: (list) => [table([{ name: "Sequencer" }, { name: "State" }, { name: "Next", num: true }, { name: "Sessions", num: true }],
    list.map((x) => [[`${x.id}`, h("small", {}, x.control)], [pill(x.state, x.mark), x.error ? h("small", {}, x.error) : null], x.next, number(x.sessions)]))],
};

export const servers = {
  data: (m) => (m.layout_servers.length ? m.layout_servers.map((x) => ({ ...x, commit_index: 0, last_contact_ms: Math.ceil(x.last_contact_ms / 500) * 500 })) : null),
  build: (list) => [table([{ name: "Server" }, { name: "Role" }, { name: "Term", num: true }, { name: "Epoch", num: true }],
    list.map((x) => {
      const marks = { leader: "good", follower: "good", unreachable: "bad" };
      return [[x.id ? `${x.id}` : "?", h("small", {}, x.control)],
        [pill(x.role, marks[x.role] ?? "warn"), x.error ? h("small", {}, x.error) : x.last_contact_ms > 1000 ? h("small", {}, `heard of its leader ${ago(x.last_contact_ms)}`) : null],
        x.term ? number(x.term) : "–", x.epoch ? number(x.epoch) : "–"];
    }))],
};

export const history = {
  data: (m) => (m.reconfigurations.length ? m.reconfigurations.map((r) => ({ ...r, when: r.at_ms ? ago(m.at_ms - r.at_ms) : "under an earlier leader" })) : null),
  build: (list) => [table([{ name: "Epoch", num: true }, { name: "When" }, { name: "What changed" }, { name: "Took", num: true }],
    list.map((r) => {
      const what = r.result === "active" ? r.changes.join("; ") : `${r.result}: ${r.error}` + (r.attempts > 1 ? ` (${r.attempts} attempts)` : "");
      const phases = r.phases.map((p) => `${p.name} ${duration(p.took_ms)}`).join(", ");
      return [number(r.epoch), r.when, [what, h("small", {}, [r.reason, phases].filter(Boolean).join(" · "))], r.at_ms ? duration(r.took_ms) : "–"];
    }))],
};

export const segments = {
  data: (m) => (m.segments.length ? m.segments : null),
  build: (list) => [table([{ name: "From", num: true }, { name: "To", num: true }, { name: "Chains" }, { name: "Lacking", num: true }],
    [...list].reverse().map((x) => [number(x.start), x.end ? number(x.end - 1) : "the tail", x.chains.map((c) => c.units.join("-")).join(", "),
      number(x.chains.reduce((n, c) => n + c.lacks, 0))]))],
};

export const clients = {
  data: (m) => (m.clients.length ? m.clients : null),
  build: (list) => [table([{ name: "Client" }, { name: "Writes/s", num: true }, { name: "Cold reads/s", num: true }, { name: "Bytes", num: true }],
    list.map((c) => [[`${c.id}`, h("small", {}, `at ${count(c.sessions, "unit")}`)], rate(c.pages_per_second), rate(c.cold_reads_per_second), `${bytes(c.bytes_per_second)}/s`]))],
};
