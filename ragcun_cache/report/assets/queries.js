// Query by query: where a head wins and loses, and the passages that it found instead.

// The same query lies at the same place every time.
function jitter(index) {
  const value = Math.sin((index + 1) * 12.9898) * 43758.5453;
  return value - Math.floor(value) - 0.5;
}

function queriesSection(data) {
  if (!data.queries.length) return null;
  const state = { column: 0, system: 0, order: "loss", words: "", open: null };
  const place = h("div", { class: "queries" });
  const tools = h("div", { class: "tools" });
  const detail = h("div", { class: "detail", "aria-live": "polite", tabindex: -1 });
  const current = () => data.queries[state.column];
  const system = () => current().systems[state.system];

  const open = (index, focus) => {
    state.open = index;
    detail.replaceChildren(queryDetail(current(), system(), index));
    for (const button of place.querySelectorAll(".list button")) button.setAttribute("aria-current", String(button.dataset.query === String(index)));
    if (focus) { detail.focus({ preventScroll: true }); detail.scrollIntoView({ block: "nearest" }); }
  };

  const draw = () => {
    const found = current();
    const { label, scores } = system();
    const deltas = scores.map((score, index) => score - found.raw[index]);
    const kind = (delta) => (delta > 1e-9 ? "win" : delta < -1e-9 ? "loss" : "tie");
    const counts = { win: 0, tie: 0, loss: 0 };
    for (const delta of deltas) counts[kind(delta)] += 1;
    // Along the diagonal, so that every point stays on its side of it.
    const spread = (value, index) => value + jitter(index) * 0.035;
    const marks = deltas.map((delta, index) => ({
      x: spread(found.raw[index], index), y: spread(scores[index], index), series: ["loss", "tie", "win"].indexOf(kind(delta)), r: 4, opacity: 0.6, name: String(index),
      shape: { win: "triangle", tie: "circle", loss: "square" }[kind(delta)], colour: `var(--${kind(delta)})`,
      tip: `${found.texts[index] || found.ids[index]}\nraw ${number(found.raw[index], 3)}, head ${number(scores[index], 3)} (${signed(delta, 3)})`,
      open: () => open(index, true),
    }));
    const scatter = chartCard({
      title: `${found.metric.toUpperCase()} of each query`, note: "Above the line the head is better. Points are spread a little along it. A click or Enter opens a query.",
      xLabel: "raw encoder", square: true, x: [-0.04, 1.04], y: [-0.04, 1.04], diagonal: true, marks,
      corners: [{ text: `▲ ${counts.win} won`, colour: "var(--win)" }, { text: `■ ${counts.loss} lost`, colour: "var(--loss)", right: true, bottom: true }],
    });
    const words = state.words.toLowerCase().split(/\s+/).filter(Boolean);
    const text = (index) => found.texts[index] || found.ids[index];
    let order = deltas.map((delta, index) => index).filter((index) => words.every((word) => `${found.ids[index]} ${text(index)}`.toLowerCase().includes(word)));
    const signs = { loss: 1, win: -1 };
    if (signs[state.order]) order.sort((a, b) => signs[state.order] * (deltas[a] - deltas[b]) || a - b);
    const matching = order.length;
    order = order.slice(0, 400);
    const list = h("div", {},
      h("div", { class: "tools", css: { marginTop: 0 } },
        h("label", {}, "Find", h("input", { type: "search", id: "find-query", value: state.words, placeholder: "words of a query", oninput: (event) => { state.words = event.target.value; draw(); place.querySelector("#find-query").focus(); } })),
        choose("order", [["loss", "greatest loss first"], ["win", "greatest win first"], ["file", "as judged"]], state.order, (value) => { state.order = value; draw(); }),
        h("span", { class: "small soft", role: "status" }, `${count(matching)} queries${matching > order.length ? `, the first ${order.length} shown` : ""}`)),
      h("div", { class: "list", role: "group", "aria-label": "Queries" }, order.map((index) =>
        h("button", { type: "button", "data-query": String(index), "aria-current": String(index === state.open), onclick: () => open(index, false) },
          h("b", { class: kind(deltas[index]) }, signed(deltas[index], 3)), h("span", {}, text(index))))));
    place.replaceChildren(scatter, list);
    tools.replaceChildren(
      data.queries.length > 1 ? choose("collection", data.queries.map((one, index) => [String(index), one.title]), String(state.column), (value) => { state.column = Number(value); state.system = 0; state.open = null; draw(); }) : "",
      choose("head", found.systems.map((one, index) => [String(index), one.label]), String(state.system), (value) => { state.system = Number(value); draw(); }));
    const first = deltas.map((delta, index) => index).filter((index) => found.detail[index]).sort((a, b) => deltas[a] - deltas[b])[0];
    if (state.open === null && first !== undefined) state.open = first;
    if (state.open !== null) open(state.open, false);
    else detail.replaceChildren();
    place.dataset.head = label;
  };
  draw();
  return h("section", { id: "queries" }, h("h2", {}, "Queries"), h("p", { class: "soft" }, data.queries_note), tools, place, detail);
}

function queryDetail(found, system, index) {
  const detail = found.detail[index];
  const head = h("div", {}, h("div", { class: "soft small" }, `query ${found.ids[index]}`), h("h3", { css: { fontSize: "1.15rem" } }, found.texts[index] || found.ids[index]),
    h("p", {}, `${found.metric.toUpperCase()}: raw ${number(found.raw[index], 4)}, ${splitLabel(system.label)[0]} ${number(system.scores[index], 4)} `,
      h("b", { class: system.scores[index] >= found.raw[index] ? "win" : "loss" }, `(${signed(system.scores[index] - found.raw[index], 4)})`)));
  if (!detail) return h("div", { class: "card" }, head, h("p", { class: "soft" }, "Its passages were left out, to keep this page small."));
  const [grades, tops] = [detail.gold, detail.top];
  const shown = tops[system.key];
  const side = (title, note, ranked, other) => h("div", {}, h("h3", {}, title), h("div", { class: "soft small" }, note),
    h("ol", {}, ranked.map(([passage, score], position) => passageItem(found, passage, score, position + 1, grades[passage], other))));
  const ranks = (key) => new Map((tops[key] || []).map(([passage], position) => [passage, position + 1]));
  const sides = h("div", { class: "sides" }, side("Raw encoder", "cosine", tops.raw, null),
    shown ? side(labelled(system.label), system.note, shown, ranks("raw")) : h("div", {}, h("h3", {}, splitLabel(system.label)[0]), h("p", { class: "soft" }, system.note)));
  const gold = h("div", { class: "gold-table" }, h("h3", {}, "Relevant passages"),
    h("table", {}, h("thead", {}, h("tr", {}, ["passage", "grade", "rank, raw", "rank, head"].map((title) => h("th", { scope: "col" }, title)))),
      h("tbody", {}, detail.ranks.map((row) => h("tr", {}, h("td", {}, passageTitle(found, row.passage)), h("td", {}, String(row.grade)),
        h("td", {}, rankText(row.raw, found.depth)), h("td", {}, shown ? rankText(row[system.key], found.depth) : "–"))))),
    detail.more_relevant ? h("p", { class: "small soft" }, `and ${detail.more_relevant} more`) : null);
  return h("div", { class: "card" }, head, sides, gold);
}

const rankText = (rank, depth) => (rank ? String(rank) : `beyond ${depth}`);

function passageTitle(found, passage) {
  const [id, title, text] = found.passages[passage];
  return title || (text ? text.slice(0, 90) + (text.length > 90 ? "…" : "") : id);
}

function passageItem(found, passage, score, rank, grade, others) {
  const [id, title, text] = found.passages[passage];
  let move = null;
  if (others) {
    const before = others.get(passage);
    move = h("span", { class: "tag move" }, before === undefined ? "new" : before === rank ? "same" : before > rank ? `↑ ${before - rank}` : `↓ ${rank - before}`);
  }
  return h("li", {}, h("span", { class: "rank" }, String(rank)), h("div", { class: "passage" },
    h("b", {}, title || id), grade > 0 ? h("span", { class: "tag gold" }, grade > 1 ? `relevant, grade ${grade}` : "relevant") : null, move,
    h("span", { class: "small soft", css: { marginLeft: ".5rem", whiteSpace: "nowrap" } }, `${number(score, 4)} · ${id}`), h("p", {}, text)));
}
