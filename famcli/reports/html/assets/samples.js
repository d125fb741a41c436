"use strict";
// Shows one page of the samples that fit the filters. Texts of models and data only ever become text nodes.
// What the reader set and opened stands in the address: it outlives a reload, and a link takes it along.
(() => {
  const [TASK, MODEL, CELL, ID, TAIL, REFERENCE, OUTPUT, KIND, SCORES, OPTIONS] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
  const KINDS = ["wrong", "right", "", ""];
  const SIZE = 25;
  const at = (id) => document.getElementById(id);
  const filters = { task: at("by-task"), model: at("by-model"), cell: at("by-cell"), score: at("by-score"), text: at("by-text") };
  let data = null;
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

  const said = (field) => (field.value === "" ? "" : field.selectedOptions?.[0].textContent || field.value);
  const folds = () => [...document.querySelectorAll("main details")];
  const written = () => (location.hash.includes("=") ? location.hash.slice(1) : "");

  // What is set and open, in words: numbers of tasks and models change with the runs.
  function asked() {
    const told = new URLSearchParams();
    for (const [name, field] of Object.entries(filters)) if (said(field) !== "") told.set(name, said(field));
    if (page > 0) told.set("page", String(page + 1));
    for (const fold of folds()) if (fold.open) told.append("open", fold.id);
    return told;
  }

  function choose(told) {
    for (const [name, field] of Object.entries(filters)) {
      const words = told.get(name) || "";
      field.value = field.options ? [...field.options].find((option) => option.textContent === words)?.value || "" : words;
    }
    page = (Number(told.get("page")) || 1) - 1;
    for (const fold of folds()) fold.open = told.getAll("open").includes(fold.id);
  }

  function remember() {
    const told = asked().toString();
    if (told === written()) return;
    try {
      history.replaceState(null, "", told ? "#" + told : location.pathname + location.search);
    } catch {
      // A page within another page may not have an address of its own.
    }
  }

  const question = (sample) => sample[TASK] + " " + sample[ID];

  const name = (sample) => ["sample", data.tasks[sample[TASK]].name, sample[ID], data.models[sample[MODEL]]].join(" ");

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
    made.id = name(sample);
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

  function find() {
    const words = filters.text.value.trim().toLowerCase();
    found = data.samples.filter((sample) => fits(sample, words));
  }

  function filter() {
    find();
    page = 0;
    show();
    remember();
  }

  function turn(by) {
    page += by;
    show();
    remember();
    at("count").scrollIntoView();
  }

  function read() {
    data = JSON.parse(at("data").textContent);
    differing = null;
    fill(filters.task, data.tasks.map((task) => task.name));
    fill(filters.model, data.models);
    fill(filters.cell, data.cells);
  }

  // The page turns to where the sample now stands that was the first one in sight.
  function readAgain() {
    const told = asked();
    const seen = [...at("list").children].find((sample) => sample.getBoundingClientRect().bottom > 0)?.id;
    const atStart = seen === at("list").firstElementChild?.id;
    read();
    choose(told);
    find();
    const place = found.findIndex((sample) => name(sample) === seen);
    if (place >= 0 && !(atStart && page === 0)) page = Math.floor(place / SIZE);
    show();
    remember();
  }

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
  document.addEventListener("toggle", remember, true);
  document.addEventListener("fresh", readAgain);
  addEventListener("hashchange", () => {
    if (!written()) return remember();
    choose(new URLSearchParams(written()));
    find();
    show();
  });
  form.hidden = false;
  read();
  choose(new URLSearchParams(written()));
  find();
  show();
})();
