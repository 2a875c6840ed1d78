// Tables of texts that are sorted, searched and paged by DataTables, and chosen by a cell of a confusion table or from a list.
"use strict";

window.pdstudyTables = () => {
  const boxes = [...document.querySelectorAll(".texts-box")];
  for (const [number, box] of boxes.entries()) {
    if (box.dataset.ready) continue;
    box.dataset.ready = "true";
    const table = new window.DataTable(box.querySelector("table.texts"), {
      autoWidth: false,
      order: [],
      lengthMenu: [10, 25, 100],
      layout: { topStart: "search", topEnd: "pageLength" },
      language: { search: "Search", emptyTable: "No texts" },
    });
    const name = () => box.querySelector("nav")?.setAttribute("aria-label", `pages of table ${number + 1}`);
    table.on("draw", name);
    name();
    const list = box.querySelector("select.choose");
    const buttons = [];
    let chosen = "";
    table.search.fixed("chosen", (text, data, i) => !chosen || table.row(i).node().dataset.in.split(" ").includes(chosen));
    const choose = (name) => {
      chosen = name;
      table.draw();
      for (const button of buttons) button.setAttribute("aria-pressed", String(button.name === chosen));
      if (list) list.value = [...list.options].some((option) => option.value === chosen) ? chosen : "cell";
    };
    for (const cell of box.querySelectorAll("td[data-rows]")) {
      const button = document.createElement("button");
      button.type = "button";
      button.name = cell.dataset.rows;
      button.setAttribute("aria-pressed", "false");
      button.setAttribute("aria-label", cell.dataset.says);
      button.append(...cell.childNodes);
      cell.replaceChildren(button);
      button.addEventListener("click", () => choose(chosen === button.name ? "" : button.name));
      buttons.push(button);
    }
    if (!list) continue;
    list.addEventListener("change", () => choose(list.value));
    list.parentElement.hidden = false;
  }
};

document.addEventListener("DOMContentLoaded", window.pdstudyTables);
