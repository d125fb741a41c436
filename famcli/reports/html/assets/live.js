"use strict";
// Asks for the page anew and puts in the parts that have changed. What the reader set, opened, selected and looks at
// stays as it is.
(() => {
  const PARTS = "header, main > section:not(#samples), #samples-note, #data";
  const at = (id) => document.getElementById(id);
  const parts = (page) => new Map([...page.querySelectorAll(PARTS)].map((part) => [part.id, part]));
  const script = (page) => page.querySelector("script:not([type])").textContent;
  const served = new Map([...parts(document)].map(([id, part]) => [id, part.outerHTML]));
  let tag = null;
  let looking = false;

  // A part with selected words waits until they are let go: somebody is copying them.
  function isHeld(part) {
    const selection = getSelection();
    const within = part.id === "data" || part.id === "samples-note" ? at("samples") : part;
    return !selection.isCollapsed && within.contains(selection.anchorNode);
  }

  // Where things stand in the window, the nearest to its top first.
  function places() {
    if (scrollY === 0) return [];
    const named = [...document.querySelectorAll("main > section, main details, .sample")];
    const found = named.map((element) => [element.id, element.getBoundingClientRect().top]);
    return found.sort((one, other) => Math.abs(one[1]) - Math.abs(other[1]));
  }

  function goBack(before) {
    const [id, top] = before.find(([id]) => at(id)) || [];
    if (id) scrollBy({ top: at(id).getBoundingClientRect().top - top, behavior: "instant" });
  }

  function swap(old, fresh) {
    const focusable = (part) => [...part.querySelectorAll("a, summary, [tabindex]")];
    const wide = (part) => [...part.querySelectorAll(".wide, .panel")];
    const focused = focusable(old).indexOf(document.activeElement);
    const across = wide(old).map((element) => element.scrollLeft);
    const open = new Set([...old.querySelectorAll("details[open]")].map((fold) => fold.id));
    for (const fold of fresh.querySelectorAll("details")) fold.open = open.has(fold.id);
    old.replaceWith(fresh);
    wide(fresh).forEach((element, i) => { element.scrollLeft = across[i] || 0; });
    if (focused >= 0) focusable(fresh)[focused]?.focus({ preventScroll: true });
  }

  // Whether all that is new is shown.
  function show(page) {
    if (script(page) !== script(document)) {
      location.reload();
      return false;
    }
    const [before, fresh, main] = [places(), parts(page), document.querySelector("main")];
    let waits = false;
    let next = main.firstChild;
    for (const [id, part] of fresh) {
      const [old, html] = [at(id), part.outerHTML];
      const isNew = html !== served.get(id);
      if (isNew && old && isHeld(old)) waits = true;
      else if (isNew) {
        if (old) swap(old, part);
        else main.insertBefore(part, next);
        served.set(id, html);
        if (id === "data") document.dispatchEvent(new Event("fresh"));
      }
      if (at(id).parentNode === main) next = at(id).nextSibling;
    }
    for (const id of [...served.keys()].filter((id) => !fresh.has(id))) {
      at(id).remove();
      served.delete(id);
    }
    document.title = page.title;
    goBack(before);
    return !waits;
  }

  // The page and its tag where it has changed.
  async function news() {
    const headers = tag ? { "If-None-Match": tag } : {};
    const answer = await fetch(location.pathname, { cache: "no-store", headers, signal: AbortSignal.timeout(60000) });
    if (answer.status === 304) return null;
    if (answer.status !== 200) throw new Error(answer.statusText);
    return [answer.headers.get("ETag"), await answer.text()];
  }

  function tell(isGone) {
    if (isGone && at("gone").hidden) at("gone").querySelector("time").textContent = new Date().toLocaleTimeString();
    at("gone").hidden = !isGone;
  }

  async function look() {
    if (looking || document.hidden) return;
    looking = true;
    let found = null;
    let isGone = false;
    try {
      found = await news();
    } catch {
      isGone = true;
    }
    looking = false;
    tell(isGone);
    if (found && show(new DOMParser().parseFromString(found[1], "text/html"))) tag = found[0];
  }

  document.documentElement.style.overflowAnchor = "none";
  setInterval(look, 1000 * Number(document.body.dataset.every));
  document.addEventListener("visibilitychange", look);
})();
