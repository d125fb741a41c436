"use strict";
// Shows one page of the samples that fit the filters. Texts of models and data only ever become text nodes.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const [TASK, MODEL, CELL, ID, TAIL, REFERENCE, OUTPUT, KIND, SCORES, OPTIONS] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
  const KINDS = ["wrong", "right", "", ""];
  const SIZE = 25;
  const at = (id) => document.getElementById(id);
  const filters = { task: at("by-task"), model: at("by-model"), cell: at("by-cell"), score: at("by-score"), text: at("by-text") };
  let found = [];
  let page = 0;
  let differing = null;

  function element(tag, text, name) {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (name) made.className = name;
    return made;
  }

  function fill(select, names) {
    const all = element("option", "all");
    all.value = "";
    const options = names.map((name, i) => [name, i]).filter(([name]) => name !== "").map(([name, i]) => {
      const option = element("option", name);
      option.value = String(i);
      return option;
    });
    select.replaceChildren(all, ...options);
  }

  const question = (sample) => sample[TASK] + " " + sample[ID];

  // The questions that not all models have the same first score on, worked out when they are first asked for.
  function differs() {
    if (differing === null) {
      const first = new Map();
      differing = new Set();
      for (const sample of data.samples) {
        const key = question(sample);
        const score = sample[SCORES][0];
        if (!first.has(key)) first.set(key, score);
        else if (first.get(key) !== score) differing.add(key);
      }
    }
    return differing;
  }

  function fits(sample, words) {
    const { task, model, cell, score } = filters;
    if (task.value !== "" && sample[TASK] !== Number(task.value)) return false;
    if (model.value !== "" && sample[MODEL] !== Number(model.value)) return false;
    if (cell.value !== "" && sample[CELL] !== Number(cell.value)) return false;
    if (score.value === "models" ? !differs().has(question(sample)) : score.value !== "" && sample[KIND] !== Number(score.value)) return false;
    if (words === "") return true;
    const texts = [sample[ID], sample[OUTPUT], data.texts[sample[REFERENCE]], data.texts[sample[TAIL]], ...(sample[OPTIONS] || [])];
    return texts.some((text) => text.toLowerCase().includes(words));
  }

  function described(list, term, text, name) {
    if (text === "") return;
    list.append(element("dt", term), element("dd", text, name));
  }

  function shown(sample) {
    const made = element("article", undefined, "sample");
    const head = element("div", undefined, "head");
    const task = data.tasks[sample[TASK]];
    head.append(element("b", sample[ID]));
    head.append(element("span", data.models[sample[MODEL]]));
    head.append(element("small", [task.name, data.cells[sample[CELL]]].filter((text) => text !== "").join(", ")));
    task.metrics.forEach((metric, i) => {
      const line = element(i ? "small" : "span", metric + " " + sample[SCORES][i], i ? "" : "score " + KINDS[sample[KIND]]);
      head.append(line);
    });
    const list = element("dl");
    const tail = data.texts[sample[TAIL]];
    described(list, "prompt", tail && !tail.startsWith("…") ? "…" + tail : tail, "prompt");
    described(list, "reference", data.texts[sample[REFERENCE]]);
    described(list, "output", sample[OUTPUT]);
    described(list, "options", (sample[OPTIONS] || []).join("\n"));
    made.append(head, list);
    return made;
  }

  function show() {
    const pages = Math.max(1, Math.ceil(found.length / SIZE));
    page = Math.min(Math.max(page, 0), pages - 1);
    at("list").replaceChildren(...found.slice(page * SIZE, (page + 1) * SIZE).map(shown));
    at("count").textContent = found.length.toLocaleString("en") + " of " + data.samples.length.toLocaleString("en") + " answers";
    at("page").textContent = "page " + (page + 1) + " of " + pages;
    at("previous").disabled = page === 0;
    at("next").disabled = page === pages - 1;
    at("pages").hidden = pages === 1;
  }

  function filter() {
    const words = filters.text.value.trim().toLowerCase();
    found = data.samples.filter((sample) => fits(sample, words));
    page = 0;
    show();
  }

  function turn(by) {
    page += by;
    show();
    at("count").scrollIntoView();
  }

  fill(filters.task, data.tasks.map((task) => task.name));
  fill(filters.model, data.models);
  fill(filters.cell, data.cells);
  let waiting = 0;
  at("by-text").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(filter, 150);
  });
  for (const select of [filters.task, filters.model, filters.cell, filters.score]) select.addEventListener("change", filter);
  const form = at("filters");
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter));
  at("previous").addEventListener("click", () => turn(-1));
  at("next").addEventListener("click", () => turn(1));
  form.hidden = false;
  filter();
})();
