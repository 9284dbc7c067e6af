// Small tools: elements, and numbers as people read them.

// h makes an element; children are elements or text, null is left out.
export function h(name, attributes, ...children) {
  return fill(document.createElement(name), attributes, children);
}

// s makes an SVG element.
export function s(name, attributes, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((c) => c !== null && c !== undefined));
  return element;
}

// table makes a table of rows of cells; a column is {name, num}.
export function table(columns, rows) {
  return h("table", {},
    h("thead", {}, h("tr", {}, ...columns.map((c) => h("th", { scope: "col", class: c.num ? "num" : null }, c.name)))),
    h("tbody", {}, ...rows.map((row) => h("tr", {}, ...row.map((cell, i) => h("td", { class: columns[i].num ? "num" : null }, ...[cell].flat()))))));
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });

export const number = (n) => whole.format(n);
export const count = (n, what) => `${whole.format(n)} ${what}${n === 1 ? "" : "s"}`;
export const rate = (n) => (n > 0 && n < 9.95 ? tenth : whole).format(n);
export const percent = (part) => whole.format(100 * part) + " %";

export function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let i = 0;
  while (n >= 999.5 && i + 1 < units.length) { n /= 1024; i++; }
  return (i === 0 || n >= 99.95 ? whole : tenth).format(n) + " " + units[i];
}

export function duration(ms) {
  if (ms < 1000) return `${whole.format(ms)} ms`;
  if (ms < 120e3) return `${(ms < 10e3 ? tenth : whole).format(ms / 1000)} s`;
  if (ms < 7200e3) return `${whole.format(ms / 60e3)} min`;
  return ms < 172800e3 ? `${whole.format(ms / 3600e3)} h` : `${whole.format(ms / 86400e3)} days`;
}

export const ago = (ms) => `${duration(Math.max(0, ms))} ago`;

// bar is a part of a whole, 0 to 1, drawn; label says it to those who do not see it.
export function bar(part, label, warn) {
  return s("svg", { class: "bar" + (warn ? " warn" : ""), role: "img", "aria-label": label, viewBox: "0 0 100 1", preserveAspectRatio: "none" },
    s("rect", { width: Math.max(0, Math.min(100, 100 * part)), height: 1 }));
}

// pill is a state; its class says whether that is as it should be.
export function pill(text, mark) { return h("span", { class: "pill " + mark }, text); }
