// Building elements. Text only ever enters the page as text nodes, never as markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "css") Object.assign(node.style, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

const MINUS = "\u2212";
const number = (value, digits) => (value === null || value === undefined ? "–" : value.toFixed(digits).replace("-", MINUS));
const signed = (value, digits) => (value > 0 ? "+" : "") + number(value, digits);
const pText = (p) => (p === null || p === undefined ? "–" : p < 0.001 ? "<0.001" : p.toFixed(3));
const count = (value) => value.toLocaleString("en-US");

// A short number for an axis or a tooltip: about three digits.
function brief(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6) return number(value / 1e6, size >= 1e7 ? 0 : 1) + "M";
  if (size >= 1e4) return number(value / 1e3, 0) + "K";
  if (size >= 100) return number(value, 0);
  if (size < 0.001) return value.toExponential(0).replace("-", MINUS);
  return String(Number(value.toPrecision(3))).replace("-", MINUS);
}

// Labels read "name, setting=value, setting=value": the name is what people look for.
function splitLabel(label) {
  const comma = label.indexOf(", ");
  return comma < 0 ? [label, ""] : [label.slice(0, comma), label.slice(comma + 2)];
}

function labelled(label) {
  const [name, settings] = splitLabel(label);
  return [name, settings ? h("span", { class: "settings" }, settings) : null];
}

const tip = {
  node: document.getElementById("tip"),
  show(text, x, y) {
    this.node.textContent = text;
    this.node.hidden = false;
    const box = this.node.getBoundingClientRect();
    const left = x + 14 + box.width > innerWidth ? x - 14 - box.width : x + 14;
    this.node.style.left = `${Math.max(4, left)}px`;
    this.node.style.top = `${Math.max(4, Math.min(y + 14, innerHeight - box.height - 4))}px`;
  },
  hide() { this.node.hidden = true; },
};

function choose(label, options, value, onchange) {
  const select = h("select", { onchange: (event) => onchange(event.target.value) },
    options.map(([key, text]) => h("option", { value: key, selected: key === value }, text)));
  return h("label", {}, label, select);
}
