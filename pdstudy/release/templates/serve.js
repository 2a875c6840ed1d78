// Sends the texts of the form to the server of the page, and shows the label and the probability of every class.
"use strict";

function withText(name, text) {
  const element = document.createElement(name);
  element.textContent = text;
  return element;
}

function show(prediction) {
  if (prediction.label === null) return [withText("p", "There is no text to label.")];
  const answer = withText("p", prediction.label);
  answer.className = "answer";
  const table = document.createElement("table");
  table.append(withText("caption", "Probability of each class"));
  const head = table.createTHead().insertRow();
  for (const name of ["class", "%"]) head.append(Object.assign(withText("th", name), { scope: "col" }));
  const body = table.createTBody();
  for (const [label, p] of Object.entries(prediction.probabilities).sort((a, b) => b[1] - a[1]).slice(0, 20)) {
    const row = body.insertRow();
    row.append(Object.assign(withText("th", label), { scope: "row" }));
    row.append(withText("td", (100 * p).toFixed(1)));
  }
  return [answer, table];
}

document.addEventListener("DOMContentLoaded", () => {
  const [form, answer] = [document.getElementById("try"), document.getElementById("answer")];
  document.getElementById("origin").textContent = location.origin;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const texts = [...form.querySelectorAll("textarea")].map((area) => area.value);
    const body = JSON.stringify({ text: texts.length === 1 ? texts[0] : texts });
    try {
      const response = await fetch(form.dataset.predict, { method: "POST", headers: { "Content-Type": "application/json" }, body });
      const result = await response.json();
      answer.replaceChildren(...(response.ok ? show(result.predictions[0]) : [withText("p", result.error)]));
    } catch {
      answer.replaceChildren(withText("p", "The server does not answer; was it stopped?"));
    }
  });
  form.hidden = false;
});
