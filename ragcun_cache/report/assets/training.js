// How heads came to be: curves by epoch, and what NDCG costs.

function lineOf(run, measure) {
  const { epochs, mean, low, high } = run.measures[measure];
  return {
    label: run.label, series: run.series,
    points: epochs.map((x, index) => ({ x, y: mean[index], low: low[index], high: high[index],
      tip: `${run.label}\nepoch ${x}: ${brief(mean[index])}` + (run.seeds > 1 ? `\n${run.seeds} seeds: ${brief(low[index])} to ${brief(high[index])}` : "") })),
  };
}

function curves(chosen, hidden, charts) {
  const present = charts.filter((chart) => chosen.some((run) => run.measures[chart.measure]));
  // Two and four look best in twos, others in threes.
  const wide = present.length === 2 || present.length === 4;
  return h("div", { class: wide ? "charts wide" : "charts" }, present.map(({ measure, title, note, reference, log }) => {
    const runs = chosen.filter((run) => run.measures[measure] && !hidden.has(run.label));
    if (!runs.length) return null;
    return chartCard({ title, note, xLabel: "epoch", integerX: true, yLog: log, lines: runs.map((run) => lineOf(run, measure)), references: reference ? [reference] : [], width: wide ? 560 : 400 });
  }));
}

function alarmList(runs) {
  const lines = runs.flatMap((run) => run.alarms.map((alarm) => h("li", {},
    h("b", {}, `${run.label}: ${alarm.name}`), run.seeds > 1 ? ` in ${alarm.seeds} of ${run.seeds} seeds; one of them, epoch ${alarm.epoch}: ` : `, epoch ${alarm.epoch}: `, alarm.text)));
  return lines.length ? h("ul", { class: "alarms small" }, lines) : h("p", { class: "soft" }, "No head raises an alarm.");
}

function trainingSections(data) {
  const trained = data.training.runs;
  const places = [...new Set(trained.map((run) => run.trained_on))];
  if (!places.length) return [];
  const state = { place: places[0], hidden: new Set() };
  const learning = h("div", {});
  const collapse = h("div", {});
  const charts = data.training.measures;
  const draw = () => {
    const chosen = trained.filter((run) => run.trained_on === state.place);
    const marks = () => legend(chosen, state.hidden, draw);
    const losses = charts.filter((chart) => chart.group === "learning");
    const geometry = charts.filter((chart) => chart.group === "collapse");
    learning.replaceChildren(marks(), curves(chosen, state.hidden, losses));
    collapse.replaceChildren(alarmList(chosen), marks(), curves(chosen, state.hidden, geometry));
  };
  const picker = () => (places.length > 1 ? h("div", { class: "tools" }, choose("trained on", places.map((place) => [place, place]), state.place, (place) => { state.place = place; draw(); })) : null);
  draw();
  return [
    h("section", { id: "training" }, h("h2", {}, "Training"), h("p", { class: "soft" }, data.training.note), picker(), learning),
    h("section", { id: "collapse" }, h("h2", {}, "Residual and collapse"),
      h("p", { class: "soft" }, "A head that collapses gives every text nearly the same vector: its outputs shrink together and their mean cosine goes to 1."), collapse),
  ];
}

function costSection(data) {
  const boards = data.boards.filter((board) => board.rows.some((row) => row.seconds !== null || row.parameters !== null));
  if (!boards.length) return null;
  const state = { board: boards[0].id, column: "" };
  const place = h("div", { class: "charts wide" });
  const tools = h("div", { class: "tools" });
  const draw = () => {
    const board = boards.find((one) => one.id === state.board);
    const titles = board.columns.map((column) => column.title);
    if (state.column && !titles.includes(state.column)) state.column = "";
    const hasMean = board.rows.some((row) => row.raw && row.mean !== null) && titles.length > 1;
    if (!hasMean && !state.column) [state.column] = titles;
    const at = (row) => (state.column ? row.cells[state.column] : row.mean === null ? null : { mean: row.mean, sd: null });
    const raw = at(board.rows.find((row) => row.raw));
    const chart = (key, title, xLabel, note) => {
      const marks = board.rows.filter((row) => !row.raw && row[key] > 0 && at(row)).map((row) => {
        const cell = at(row);
        return { x: row[key], y: cell.mean, low: cell.mean - (cell.sd || 0), high: cell.mean + (cell.sd || 0), series: row.series, r: 5.5,
          tip: `${row.label}\n${board.metric} ${number(cell.mean, 4)}${cell.sd === null ? "" : ` ± ${number(cell.sd, 4)}`}\n${brief(row[key])} ${xLabel}` };
      });
      return marks.length ? chartCard({ title, note, xLabel, xLog: true, width: 560, height: 270, marks, references: raw ? [{ y: raw.mean, label: "raw encoder" }] : [] }) : null;
    };
    tools.replaceChildren(
      boards.length > 1 ? choose("table", boards.map((one) => [one.id, one.title]), state.board, (value) => { state.board = value; draw(); }) : "",
      choose(board.metric.toUpperCase(), [...(hasMean ? [["", "mean of collections"]] : []), ...titles.map((title) => [title, title])], state.column, (value) => { state.column = value; draw(); }));
    place.replaceChildren(...[
      chart("seconds", "Quality against time", "seconds to train or choose it", "Mean over seeds, ± sd where one collection is shown. Measured on the machines named below."),
      chart("parameters", "Quality against size", "parameters that retrieval needs", "A head that was never trained costs nothing, and has parameters all the same."),
    ].filter(Boolean));
    const names = board.rows.filter((row) => !row.raw).map((row) => ({ label: row.label, series: row.series }));
    tools.append(h("div", { class: "legend", css: { margin: 0 } }, names.map((name) => h("span", { class: "small soft" },
      svg("svg", { viewBox: "0 0 14 12", css: { width: "14px", height: "12px", marginRight: "4px" }, "aria-hidden": "true" }, shape(shapeOf(name.series), 7, 6, 4, { css: { fill: colourOf(name.series) } })), name.label))));
  };
  draw();
  return h("section", { id: "cost" }, h("h2", {}, "What quality costs"), tools, place);
}
