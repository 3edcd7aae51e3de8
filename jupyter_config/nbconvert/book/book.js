// Search over BOOK_INDEX, which search-index.js defines. No server, no library: it has to work from
// a folder on a stick. All words must be found; the last may be the beginning of one.
"use strict";
(() => {
  const form = document.querySelector(".search");
  const box = document.getElementById("search");
  const panel = document.getElementById("results");
  const status = panel.querySelector("[role=status]");
  const list = panel.querySelector("ol");
  const root = document.documentElement.dataset.root;
  const MOST = 20;

  const fold = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
  const words = (text) => fold(text).match(/[\p{L}\p{N}_]+/gu) || [];

  // Sections with the weight of every term that fits: the word itself, or words that begin so.
  function found(word, beginning) {
    const weights = new Map();
    const fits = beginning
      ? Object.keys(BOOK_INDEX.terms).filter((term) => term.startsWith(word))
      : Object.hasOwn(BOOK_INDEX.terms, word) ? [word] : [];
    for (const term of fits) {
      const flat = BOOK_INDEX.terms[term];
      const share = term === word ? 1 : word.length / (2 * term.length);
      for (let i = 0; i < flat.length; i += 2) {
        weights.set(flat[i], Math.max(weights.get(flat[i]) || 0, flat[i + 1] * share));
      }
    }
    return weights;
  }

  function search(query) {
    const asked = words(query);
    if (!asked.length) return [];
    const each = asked.map((word, i) => found(word, i === asked.length - 1));
    const common = [...each[0].keys()].filter((section) => each.every((w) => w.has(section)));
    const weight = (section) => each.reduce((sum, w) => sum + w.get(section), 0);
    return common.map((section) => [section, weight(section)]).sort((a, b) => b[1] - a[1]);
  }

  function excerpt(text, asked) {
    const at = asked.map((word) => fold(text).indexOf(word)).filter((i) => i >= 0);
    const begin = Math.max(0, Math.min(...at, text.length) - 60);
    const start = at.length && begin ? text.indexOf(" ", begin - 1) + 1 : 0;
    return (start ? "… " : "") + text.slice(start, start + 180) + (text.length > start + 180 ? " …" : "");
  }

  function marked(text, asked) {
    const line = document.createElement("span");
    line.className = "excerpt";
    for (const piece of text.split(/([\p{L}\p{N}_]+)/u)) {
      const hit = asked.some((word) => fold(piece).startsWith(word));
      line.append(hit ? Object.assign(document.createElement("mark"), { textContent: piece }) : piece);
    }
    return line;
  }

  function show() {
    const asked = words(box.value);
    const hits = search(box.value);
    panel.hidden = !asked.length;
    list.replaceChildren(...hits.slice(0, MOST).map(([number]) => {
      const [url, page, heading, text] = BOOK_INDEX.sections[number];
      const link = document.createElement("a");
      link.href = root + url;
      link.textContent = heading === page ? page : `${page} › ${heading}`;
      const item = document.createElement("li");
      item.append(link, marked(excerpt(text, asked), asked));
      return item;
    }));
    const more = hits.length > MOST ? `, the best ${MOST} shown` : "";
    status.textContent = hits.length === 1 ? "1 section" : `${hits.length || "No"} sections${more}`;
  }

  form.hidden = false;
  box.addEventListener("input", show);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    list.querySelector("a")?.click();
  });
  document.addEventListener("keydown", (event) => {
    const writing = /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName);
    if (event.key === "/" && !writing) { event.preventDefault(); box.focus(); }
    if (event.key === "Escape" && !panel.hidden) { box.value = ""; show(); box.focus(); }
  });

  // On paper nothing can be unfolded.
  addEventListener("beforeprint", () => {
    for (const fold of document.querySelectorAll("details")) fold.open = true;
  });
})();
