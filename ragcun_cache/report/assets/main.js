// The page: what there is to say in one screen, then one section after another.

const NAMES = { leaderboard: "Leaderboard", training: "Training", collapse: "Collapse", cost: "Cost", geometry: "Geometry", queries: "Queries", provenance: "Provenance" };

function overview(data) {
  return h("div", {}, h("h1", {}, data.title), h("p", { class: "soft lead" }, data.subtitle),
    h("div", { class: "tiles" }, data.tiles.map(([value, text]) => h("div", { class: "tile" }, h("b", {}, value), h("span", {}, text)))),
    data.left_out.length ? h("details", {}, h("summary", {}, "What was left out of this page"), h("ul", { class: "notes" }, data.left_out.map((note) => h("li", {}, note)))) : null);
}

function provenanceSection(data) {
  const facts = data.provenance.facts.flatMap(([name, values]) => [h("dt", {}, name), h("dd", {}, values.map((value) => h("div", {}, value)))]);
  const table = h("div", { class: "scroll" }, h("table", {},
    h("thead", {}, h("tr", {}, data.provenance.columns.map((title) => h("th", { scope: "col" }, title)))),
    h("tbody", {}, data.provenance.results.map((row) => h("tr", {}, row.map((value, index) => (index ? h("td", {}, value) : h("th", { scope: "row" }, value))))))));
  return h("section", { id: "provenance" }, h("h2", {}, "Where these figures come from"), h("dl", { class: "facts" }, facts),
    h("h3", {}, "Commands"), h("pre", { tabindex: 0 }, data.provenance.commands.join("\n")),
    h("details", {}, h("summary", {}, `All ${count(data.provenance.results.length)} results, one by one`), h("div", { css: { marginTop: ".6rem" } }, table)));
}

function start() {
  const data = JSON.parse(document.getElementById("data").textContent);
  startTheme();
  const sections = [leaderboardSection(data), ...trainingSections(data), costSection(data), geometrySection(data), queriesSection(data), provenanceSection(data)].filter(Boolean);
  document.getElementById("main").replaceChildren(overview(data), ...sections);
  const links = sections.map((section) => h("a", { href: `#${section.id}` }, NAMES[section.id]));
  document.getElementById("sections").replaceChildren(...links);
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links) {
        if (link.hash === `#${entry.target.id}`) link.setAttribute("aria-current", "location");
        else link.removeAttribute("aria-current");
      }
    }
  }, { rootMargin: "-15% 0px -75% 0px" });
  for (const section of sections) seen.observe(section);
}

start();
