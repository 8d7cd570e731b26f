// What a head does to the space: spectra of its outputs, and how far relevant pairs stand out from random ones.

function histogram(system) {
  const { edges, relevant, random } = system.histogram;
  const steps = (counts) => {
    const total = counts.reduce((sum, value) => sum + value, 0) || 1;
    return counts.map((value, index) => ({ x: (edges[index] + edges[index + 1]) / 2, y: value / total,
      tip: `${brief(edges[index])} to ${brief(edges[index + 1])}\n${(100 * value / total).toFixed(1)} % of the pairs` }));
  };
  return chartCard({
    title: splitLabel(system.label)[0], note: [splitLabel(system.label)[1], `${system.similarity}; relevant pairs lie ${number(system.separation, 2)} sd above random ones`].filter(Boolean).join("; "),
    xLabel: system.similarity, height: 200,
    lines: [{ label: "random", series: 1, colour: "var(--tie)", area: true, points: steps(random) }, { label: "relevant", series: 0, colour: "var(--win)", area: true, points: steps(relevant) }],
  });
}

function geometrySection(data) {
  if (!data.geometry.length) return null;
  const state = { column: data.geometry[0].title, hidden: new Set() };
  const place = h("div", {});
  const draw = () => {
    const found = data.geometry.find((one) => one.title === state.column);
    const shown = found.systems.filter((system) => !state.hidden.has(system.label));
    const spectrum = chartCard({
      title: "Spectrum of the passages", note: "singular values of the centred vectors, the largest set to 1; a steep fall means few directions in use",
      xLabel: "rank", xLog: true, yLog: true, width: 560, height: 300,
      lines: shown.map((system) => ({ label: system.label, series: system.series, points: system.spectrum.map(([x, y]) => ({ x, y, tip: `${system.label}\nrank ${x}: ${brief(y)}` })) })),
    });
    const table = h("figure", { class: "card" }, h("figcaption", {}, h("b", {}, "In figures"), h("span", {}, `${count(found.passages)} passages, ${count(found.relevant)} relevant pairs, ${count(found.random)} random ones`)),
      h("table", {}, h("thead", {}, h("tr", {}, ["head", "dims", "effective rank", "mean cosine", "separation, sd"].map((title) => h("th", { scope: "col" }, title)))),
        h("tbody", {}, found.systems.map((system) => h("tr", {}, h("th", { scope: "row" }, h("span", { class: "swatch", css: { color: colourOf(system.series) } }), labelled(system.label)),
          h("td", {}, String(system.dim)), h("td", {}, number(system.effective_rank, 0)), h("td", {}, number(system.mean_cosine, 3)), h("td", {}, number(system.separation, 2)))))),
      h("p", { class: "small soft" }, "Effective rank: the exponential of the entropy of the singular values (RankMe)."));
    const key = h("p", { class: "small" }, h("span", { class: "swatch win" }), "query with its relevant passage  ",
      h("span", { class: "swatch", css: { color: "var(--tie)", marginLeft: "1rem" } }), "query with a random passage");
    place.replaceChildren(legend(found.systems, state.hidden, draw), h("div", { class: "charts wide" }, spectrum, table),
      h("h3", { css: { marginTop: "1.3rem" } }, "Similarity of queries and passages"), key, h("div", { class: "charts" }, shown.map(histogram)));
  };
  const picker = data.geometry.length > 1 ? h("div", { class: "tools" }, choose("collection", data.geometry.map((one) => [one.title, one.title]), state.column, (value) => { state.column = value; draw(); })) : null;
  draw();
  return h("section", { id: "geometry" }, h("h2", {}, "Geometry"),
    h("p", { class: "soft" }, `The vectors of one seed each, beside those of the raw encoder. ${data.geometry_note}`), picker, place);
}
