// Colours that are remembered where a browser lets a page remember, and tables that sort. A page is whole without this.
"use strict";
const root = document.documentElement;
const dark = matchMedia("(prefers-color-scheme: dark)");

function remembered() {
  try { return localStorage.getItem("pdstudy-theme"); } catch { return null; }
}

function remember(theme) {
  try { localStorage.setItem("pdstudy-theme", theme); } catch { /* a browser that forgets: this page only */ }
}

function isDark() {
  return root.dataset.theme ? root.dataset.theme === "dark" : dark.matches;
}

function offerTheme(button) {
  const tell = () => button.setAttribute("aria-pressed", String(isDark()));
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    remember(root.dataset.theme);
    tell();
  });
  dark.addEventListener("change", tell);
  tell();
  button.hidden = false;
}

const NUMBER = /^[+-]?\d[\d,]*(\.\d+)?(e[+-]?\d+)?(?=$|[\s%])/;

function number(text) {
  const found = text.match(NUMBER);
  return found ? Number(found[0].replaceAll(",", "")) : NaN;
}

// What is no value stays last, whichever way the others go.
function order(rows, column, sign) {
  const texts = new Map(rows.map((row) => [row, row.cells[column].textContent.trim()]));
  const numeric = rows.some((row) => !isNaN(number(texts.get(row))));
  const empty = (text) => (numeric ? isNaN(number(text)) : text === "" || text === "-");
  return [...rows].sort((a, b) => {
    const [x, y] = [texts.get(a), texts.get(b)];
    if (empty(x) || empty(y)) return empty(x) - empty(y);
    return sign * (numeric ? number(x) - number(y) : x.localeCompare(y, "en", { numeric: true }));
  });
}

function makeSortable(table) {
  const [body, heads] = [table.tBodies[0], [...(table.tHead?.rows ?? [])]];
  const rows = [...(body?.rows ?? [])];
  if (rows.length < 2 || heads.length === 0 || table.querySelector("[rowspan], [colspan]")) return;
  const named = [];
  for (let column = 0; column < rows[0].cells.length; column++) {
    const head = heads.map((row) => row.cells[column]).findLast((cell) => cell?.tagName === "TH");
    if (!head) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.replaceChildren(button);
    named.push(head);
    button.addEventListener("click", () => {
      const next = { ascending: "descending", descending: null }[head.ariaSort];
      for (const other of named) other.removeAttribute("aria-sort");
      if (next !== null) head.setAttribute("aria-sort", next ?? "ascending");
      body.append(...(next === null ? rows : order(rows, column, next ? -1 : 1)));
    });
  }
}

// A link into a folded section opens it.
function reveal() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let box = target?.closest("details"); box; box = box.parentElement.closest("details")) box.open = true;
  target?.scrollIntoView();
}

if (["light", "dark"].includes(remembered())) root.dataset.theme = remembered();
document.addEventListener("DOMContentLoaded", () => {
  offerTheme(document.getElementById("theme"));
  document.querySelectorAll("table:not(.texts, .confusion)").forEach(makeSortable);
  reveal();
  addEventListener("hashchange", reveal);
});
