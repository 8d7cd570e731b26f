// One kind of chart: marks and lines on two axes, in SVG. Colours are CSS variables, so themes need no redrawing.
//
// spec: { title, note, xLabel, yLabel, xLog, yLog, x: [min, max], y: [min, max], height, integerX, square,
//         lines: [{ label, series, points: [{ x, y, low, high, tip }], area }],
//         marks: [{ x, y, low, high, series, shape, colour, tip, open }],
//         references: [{ y, label }], diagonal, corners: [{ text, colour, right, bottom }] }
// yLog may be "wide": logarithmic where the values span more than a decade or so.

const DASHES = ["", "7 3", "2 3", "9 3 2 3", "4 2", "1 2", "12 3", "6 2 1 2"];
const SHAPES = ["circle", "square", "triangle", "diamond", "cross"];

const colourOf = (series) => (series < 0 ? "var(--ink)" : `var(--s${series % 8})`);
const dashOf = (series) => (series < 0 ? "6 3" : DASHES[series % DASHES.length]);
const shapeOf = (series) => (series < 0 ? "diamond" : SHAPES[series % SHAPES.length]);

function shape(kind, x, y, r, attributes) {
  const at = (points) => points.map(([dx, dy]) => `${(x + dx * r).toFixed(2)},${(y + dy * r).toFixed(2)}`).join(" ");
  if (kind === "square") return svg("polygon", { points: at([[-.9, -.9], [.9, -.9], [.9, .9], [-.9, .9]]), ...attributes });
  if (kind === "triangle") return svg("polygon", { points: at([[0, -1.2], [1.1, .8], [-1.1, .8]]), ...attributes });
  if (kind === "diamond") return svg("polygon", { points: at([[0, -1.3], [1.3, 0], [0, 1.3], [-1.3, 0]]), ...attributes });
  if (kind === "cross") {
    const arm = [[-.4, -1.2], [.4, -1.2], [.4, -.4], [1.2, -.4], [1.2, .4], [.4, .4], [.4, 1.2], [-.4, 1.2], [-.4, .4], [-1.2, .4], [-1.2, -.4], [-.4, -.4]];
    return svg("polygon", { points: at(arm), ...attributes });
  }
  return svg("circle", { cx: x.toFixed(2), cy: y.toFixed(2), r, ...attributes });
}

function ticksBetween(min, max, wanted, integer) {
  const rough = (max - min) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  let step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= rough) || power * 10;
  if (integer) step = Math.max(1, Math.round(step));
  const first = Math.ceil(min / step - 1e-9);
  const ticks = [];
  for (let index = first; index * step <= max + step * 1e-6; index += 1) ticks.push(Number((index * step).toPrecision(12)));
  return ticks;
}

function logTicks(min, max) {
  const ticks = [];
  const first = Math.floor(Math.log10(min));
  const last = Math.ceil(Math.log10(max));
  const factors = last - first <= 1 ? [1, 2, 5] : last - first <= 3 ? [1, 3] : [1];
  for (let power = first; power <= last; power += 1) {
    for (const factor of factors) {
      const value = factor * 10 ** power;
      if (value >= min * 0.999 && value <= max * 1.001) ticks.push(value);
    }
  }
  if (ticks.length > 7) return ticks.filter((tick, index) => index % 2 === 0);
  return ticks.length > 2 ? ticks : ticksBetween(min, max, 4);
}

function axis(values, fixed, log, padding) {
  const usable = values.filter((value) => Number.isFinite(value) && (!log || value > 0));
  let [min, max] = fixed || [Math.min(...usable), Math.max(...usable)];
  if (!usable.length && !fixed) [min, max] = log ? [1, 10] : [0, 1];
  if (!fixed) {
    if (log) {
      const grow = (max / min) ** padding || 1;
      [min, max] = min === max ? [min / 2, max * 2] : [min / grow, max * grow];
    } else {
      const grow = (max - min) * padding || Math.abs(max) * 0.05 || 1;
      [min, max] = [min - grow, max + grow];
    }
  }
  const place = log ? (value) => Math.log(value / min) / Math.log(max / min) : (value) => (value - min) / (max - min);
  return { min, max, place };
}

function drawChart(spec) {
  const width = spec.square ? 440 : spec.width || 400;
  const height = spec.height || (spec.square ? 420 : 230);
  const box = { left: 48, right: 18, top: 10, bottom: 36 };
  const inner = { width: width - box.left - box.right, height: height - box.top - box.bottom };
  const lines = spec.lines || [];
  const marks = spec.marks || [];
  const yLog = spec.yLog === "wide" ? spansDecades(lines) : spec.yLog;
  const points = [...lines.flatMap((line) => line.points), ...marks];
  const xAxis = axis(points.map((point) => point.x), spec.x, spec.xLog, 0.04);
  const heights = points.flatMap((point) => [point.y, point.low ?? point.y, point.high ?? point.y]);
  const yAxis = axis([...heights, ...(spec.references || []).map((line) => line.y)], spec.y, yLog, 0.07);
  const px = (value) => box.left + xAxis.place(value) * inner.width;
  const py = (value) => box.top + (1 - yAxis.place(value)) * inner.height;

  const root = svg("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", tabindex: 0, "aria-label": `${spec.title}. Arrow keys read the points.` });
  const xTicks = spec.xLog ? logTicks(xAxis.min, xAxis.max) : ticksBetween(xAxis.min, xAxis.max, inner.width / 70, spec.integerX);
  const yTicks = yLog ? logTicks(yAxis.min, yAxis.max) : ticksBetween(yAxis.min, yAxis.max, inner.height / 42);
  for (const tick of yTicks) {
    root.append(svg("line", { class: "grid", x1: box.left, x2: width - box.right, y1: py(tick), y2: py(tick) }));
    root.append(svg("text", { x: box.left - 7, y: py(tick) + 4, "text-anchor": "end" }, brief(tick)));
  }
  for (const tick of xTicks) {
    root.append(svg("text", { x: px(tick), y: height - box.bottom + 15, "text-anchor": "middle" }, brief(tick)));
  }
  root.append(svg("line", { class: "axis", x1: box.left, x2: width - box.right, y1: height - box.bottom, y2: height - box.bottom }));
  root.append(svg("text", { x: box.left + inner.width / 2, y: height - 4, "text-anchor": "middle" }, spec.xLabel));
  if (spec.diagonal) {
    root.append(svg("line", { class: "axis", x1: px(xAxis.min), y1: py(yAxis.min), x2: px(xAxis.max), y2: py(yAxis.max) }));
  }
  for (const line of spec.references || []) {
    root.append(svg("line", { class: "reference", x1: box.left, x2: width - box.right, y1: py(line.y), y2: py(line.y) }));
    root.append(svg("text", { class: "strong", x: width - box.right - 2, y: py(line.y) - 4, "text-anchor": "end" }, line.label));
  }
  const targets = [];
  for (const line of lines) targets.push(...drawLine(root, line, px, py, yLog));
  for (const mark of marks) targets.push(drawMark(root, mark, px, py));
  for (const text of spec.corners || []) {
    root.append(svg("text", { x: text.right ? width - box.right - 4 : box.left + 8, y: text.bottom ? height - box.bottom - 8 : box.top + 14, "text-anchor": text.right ? "end" : "start", css: { fill: text.colour, fontWeight: 600 } }, text.text));
  }
  readable(root, targets, width, height);
  return root;
}

// Losses of different forms lie orders of magnitude apart: on one linear axis the smaller would all be zero.
function spansDecades(lines) {
  const values = lines.flatMap((line) => line.points.map((point) => point.y));
  return values.length > 0 && values.every((value) => value > 0) && Math.max(...values) / Math.min(...values) > 30;
}

function drawLine(root, line, px, py, yLog) {
  const shown = line.points.filter((point) => Number.isFinite(point.y) && (!yLog || point.y > 0));
  const colour = colourOf(line.series);
  const path = shown.map((point, index) => `${index ? "L" : "M"}${px(point.x).toFixed(1)},${py(point.y).toFixed(1)}`).join("");
  if (shown.some((point) => point.high > point.low)) {
    const upper = shown.map((point, index) => `${index ? "L" : "M"}${px(point.x).toFixed(1)},${py(point.high).toFixed(1)}`);
    const lower = [...shown].reverse().map((point) => `L${px(point.x).toFixed(1)},${py(point.low).toFixed(1)}`);
    root.append(svg("path", { d: `${upper.join("")}${lower.join("")}Z`, css: { fill: colour, opacity: 0.14 } }));
  }
  if (line.area && shown.length) {
    const floor = py(0).toFixed(1);
    root.append(svg("path", { d: `${path}L${px(shown.at(-1).x).toFixed(1)},${floor}L${px(shown[0].x).toFixed(1)},${floor}Z`, css: { fill: line.colour || colour, opacity: 0.22 } }));
  }
  root.append(svg("path", { d: path, fill: "none", "stroke-width": 1.8, "stroke-dasharray": line.area ? null : dashOf(line.series), css: { stroke: line.colour || colour } }));
  const dots = shown.length <= 30 && !line.area;
  return shown.map((point) => {
    if (dots) root.append(shape(shapeOf(line.series), px(point.x), py(point.y), 3, { css: { fill: colour } }));
    return { x: px(point.x), y: py(point.y), tip: point.tip, row: line.series };
  });
}

function drawMark(root, mark, px, py) {
  const [x, y] = [px(mark.x), py(mark.y)];
  const colour = mark.colour || colourOf(mark.series);
  if (mark.high > mark.low) root.append(svg("line", { x1: x, x2: x, y1: py(mark.low), y2: py(mark.high), css: { stroke: colour }, "stroke-width": 1.5 }));
  const node = shape(mark.shape || shapeOf(mark.series), x, y, mark.r || 4.5, { css: { fill: colour, fillOpacity: mark.opacity ?? 0.9, stroke: "var(--surface)", strokeWidth: 0.7 }, class: mark.name ? "point" : null, "data-name": mark.name });
  root.append(node);
  return { x, y, tip: mark.tip, row: mark.series, open: mark.open, node };
}

// The pointer reads the nearest point; so do the arrow keys, and Enter opens it.
function readable(root, targets, width, height) {
  if (!targets.length) return;
  const ring = svg("circle", { r: 7, fill: "none", "stroke-width": 2, css: { stroke: "var(--ink)", display: "none" } });
  root.append(ring);
  let current = null;
  const scale = () => root.getBoundingClientRect().width / width;
  const show = (target) => {
    current = target;
    fill(ring, { cx: target.x, cy: target.y }, []);
    ring.style.display = "";
    const bounds = root.getBoundingClientRect();
    tip.show(target.tip, bounds.left + target.x * scale(), bounds.top + target.y * scale());
  };
  const clear = () => { current = null; ring.style.display = "none"; tip.hide(); };
  root.addEventListener("pointermove", (event) => {
    const bounds = root.getBoundingClientRect();
    const [x, y] = [(event.clientX - bounds.left) / scale(), (event.clientY - bounds.top) / scale()];
    let best = null;
    let least = 26 ** 2;
    for (const target of targets) {
      const distance = (target.x - x) ** 2 + (target.y - y) ** 2;
      if (distance < least) [best, least] = [target, distance];
    }
    if (best) show(best); else clear();
    root.style.cursor = best && best.open ? "pointer" : "";
  });
  root.addEventListener("pointerleave", clear);
  root.addEventListener("blur", clear);
  root.addEventListener("click", () => { if (current && current.open) current.open(); });
  const ordered = [...targets].sort((a, b) => a.row - b.row || a.x - b.x || b.y - a.y);
  root.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (step) {
      const next = current ? ordered.indexOf(current) + step : step > 0 ? 0 : ordered.length - 1;
      show(ordered[(next + ordered.length) % ordered.length]);
      event.preventDefault();
    } else if (event.key === "Enter" && current && current.open) {
      current.open();
      event.preventDefault();
    } else if (event.key === "Escape") clear();
  });
}

function chartCard(spec) {
  return h("figure", { class: "card" },
    h("figcaption", {}, h("b", {}, spec.title), spec.note ? h("span", {}, spec.note) : null), drawChart(spec));
}

function legend(entries, hidden, onchange) {
  return h("div", { class: "legend", role: "group", "aria-label": "Shown heads" }, entries.map(({ label, series }) =>
    h("button", { type: "button", "aria-pressed": hidden.has(label) ? "false" : "true", title: "Show or hide", onclick: () => { if (!hidden.delete(label)) hidden.add(label); onchange(); } },
      svg("svg", { viewBox: "0 0 26 12", "aria-hidden": "true" },
        svg("line", { x1: 0, x2: 26, y1: 6, y2: 6, "stroke-width": 1.8, "stroke-dasharray": dashOf(series), css: { stroke: colourOf(series) } }),
        shape(shapeOf(series), 13, 6, 3.4, { css: { fill: colourOf(series) } })),
      label)));
}
