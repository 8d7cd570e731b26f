// The tables: raw always first, sorted by any column, filtered by words and by what heads are.

const COLUMN_PARTS = [
  { key: "mean", title: (board) => board.metric.toUpperCase(), down: true, value: (cell) => cell.mean },
  { key: "difference", title: () => "Δ raw", down: true, value: (cell) => cell.difference },
  { key: "p", title: () => "p", down: false, value: (cell) => cell.p },
  { key: "wins", title: () => "W/T/L", down: true, value: (cell) => (cell.wins === null ? null : cell.wins - cell.losses) },
];

function deltaCell({ difference, p, low, high }, attributes) {
  if (difference === null) return h("td", attributes, "–");
  const kind = difference > 0 ? "win" : difference < 0 ? "loss" : "soft";
  const unsure = p !== null && p >= 0.05 ? " faint" : "";
  const interval = low === undefined ? null : `95 % interval of the difference: ${signed(low, 4)} to ${signed(high, 4)}`;
  return h("td", { ...attributes, title: interval }, h("span", { class: kind + unsure }, signed(difference, 4)));
}

function columnCells(cell) {
  if (!cell) return COLUMN_PARTS.map((part, index) => h("td", { class: index ? null : "group" }, "–"));
  const total = cell.wins + cell.ties + cell.losses;
  const share = (part) => h("i", { css: { width: `${(100 * part) / total}%` } });
  const pTitle = cell.p_uncorrected === undefined || cell.p_uncorrected === null ? null : `${pText(cell.p_uncorrected)} before the correction`;
  return [
    h("td", { class: "group" }, number(cell.mean, 4), cell.sd === null ? null : h("span", { class: "sd" }, `± ${number(cell.sd, 4)}`),
      cell.remarks.map((text) => h("span", { class: "settings" }, text))),
    deltaCell(cell, {}),
    h("td", { class: cell.p !== null && cell.p >= 0.05 ? "soft" : null, title: pTitle }, pText(cell.p)),
    h("td", {}, cell.wins === null ? "–" : [h("span", { class: "wtl", "aria-hidden": "true" }, share(cell.wins), share(cell.ties), share(cell.losses)),
      h("span", { class: "wtl-text" }, `${cell.wins}/${cell.ties}/${cell.losses}`)]),
  ];
}

function leaderboardTable(board, state) {
  const columns = board.columns.filter((column) => !state.hiddenColumns.has(column.title));
  const several = board.columns.length > 1;
  const sort = state.sort[board.id] || { key: "mean", column: several ? null : board.columns[0].title, down: true };
  const valueOf = (row) => {
    if (sort.key === "label") return row.label;
    if (sort.key === "seeds") return row.seeds;
    if (!sort.column) return sort.key === "difference" ? row.mean_difference : row.mean;
    const cell = row.cells[sort.column];
    return cell ? COLUMN_PARTS.find((part) => part.key === sort.key).value(cell) : null;
  };
  const words = state.words.toLowerCase().split(/\s+/).filter(Boolean);
  const passes = (row) => row.raw || (words.every((word) => `${row.label} ${row.trained_on}`.toLowerCase().includes(word))
    && (!state.arch || row.arch === state.arch) && (!state.trained || row.trained_on === state.trained));
  const rows = board.rows.filter(passes).sort((a, b) => {
    if (a.raw !== b.raw) return a.raw ? -1 : 1;
    const [left, right] = [valueOf(a), valueOf(b)];
    if (left === null || right === null) return (left === null) - (right === null);
    const order = typeof left === "string" ? left.localeCompare(right, "en", { numeric: true }) : left - right;
    return sort.down ? -order : order;
  });

  const header = (title, key, column, down, attributes) => {
    const active = sort.key === key && sort.column === column;
    const name = `${board.id}|${key}|${column || ""}`;
    return h("th", { scope: "col", "aria-sort": active ? (sort.down ? "descending" : "ascending") : "none", ...attributes },
      h("button", { type: "button", "data-sort": name, onclick: () => {
        state.sort[board.id] = { key, column, down: active ? !sort.down : down };
        state.draw(name);
      } }, title));
  };
  const head = h("thead", {},
    h("tr", {}, h("th", { colspan: 2 }),
      several ? h("th", { class: "group", colspan: 2, scope: "colgroup" }, "mean") : null,
      columns.map((column) => h("th", { class: "group", colspan: COLUMN_PARTS.length, scope: "colgroup" },
        `${column.title}${column.in_base_training ? " †" : ""} `, h("span", { class: "soft" }, `${count(column.queries)} queries`)))),
    h("tr", {}, header("head", "label", null, false, {}), header("seeds", "seeds", null, true, {}),
      several ? [header(board.metric.toUpperCase(), "mean", null, true, { class: "group" }), header("Δ raw", "difference", null, true, {})] : null,
      columns.map((column) => COLUMN_PARTS.map((part, index) => header(part.title(board), part.key, column.title, part.down, { class: index ? null : "group" })))));
  const body = h("tbody", {}, rows.map((row) => {
    return h("tr", { class: row.raw ? "raw" : null },
      h("th", { scope: "row" }, h("span", { class: "name" }, h("span", { class: "swatch", css: { color: colourOf(row.series) } }), splitLabel(row.label)[0]), labelled(row.label)[1]),
      h("td", {}, row.raw ? "–" : String(row.seeds)),
      several ? [h("td", { class: "group" }, number(row.mean, 4)), deltaCell({ difference: row.mean_difference, p: null }, {})] : null,
      columns.map((column) => columnCells(row.cells[column.title])));
  }));
  return { table: h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `Leaderboard of ${board.title}` }, h("table", {}, head, body)), shown: rows.length - 1 };
}

function leaderboardSection(data) {
  const state = { words: "", arch: "", trained: "", board: "", sort: {}, hiddenColumns: new Set(), draw: () => {} };
  const place = h("div", {});
  const shownText = h("span", { class: "soft small", role: "status" });
  state.draw = (focused) => {
    const boards = data.boards.filter((board) => !state.board || board.id === state.board);
    let [shown, all] = [0, 0];
    place.replaceChildren(...boards.map((board) => {
      const found = leaderboardTable(board, state);
      shown += found.shown;
      all += board.rows.length - 1;
      return h("div", { css: { marginBottom: "1.4rem" } },
        data.boards.length > 1 ? h("h3", { css: { margin: "0 0 .5rem" } }, board.title) : null,
        board.verdict ? h("p", {}, board.verdict) : null, found.table,
        h("ul", { class: "notes" }, board.notes.map((note) => h("li", {}, note))));
    }));
    shownText.textContent = `${shown} of ${all} rows beside raw`;
    if (focused) place.querySelector(`[data-sort="${CSS.escape(focused)}"]`).focus();
  };
  const values = (key) => [...new Set(data.boards.flatMap((board) => board.rows.filter((row) => !row.raw).map((row) => row[key])))].filter(Boolean).sort();
  const pick = (key, all) => [["", all], ...values(key).map((value) => [value, value])];
  const set = (name) => (value) => { state[name] = value; state.draw(); };
  const titles = [...new Set(data.boards.flatMap((board) => board.columns.map((column) => column.title)))];
  const tools = h("div", { class: "tools" },
    h("label", {}, "Filter", h("input", { type: "search", id: "filter", placeholder: "words of a head or setting", oninput: (event) => set("words")(event.target.value) })),
    choose("architecture", pick("arch", "all"), "", set("arch")),
    values("trained_on").length > 1 ? choose("trained on", pick("trained_on", "all"), "", set("trained")) : null,
    data.boards.length > 1 ? choose("table", [["", "all"], ...data.boards.map((board) => [board.id, board.title])], "", set("board")) : null,
    titles.length > 1 ? titles.map((title) => h("label", {}, h("input", { type: "checkbox", checked: true, onchange: (event) => {
      if (event.target.checked) state.hiddenColumns.delete(title); else state.hiddenColumns.add(title);
      state.draw();
    } }), title)) : null, shownText);
  state.draw();
  return h("section", { id: "leaderboard" }, h("h2", {}, "Leaderboard"), tools, place);
}
