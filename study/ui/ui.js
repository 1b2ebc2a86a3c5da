"use strict";
// Replace the parts of the page that have changed, and keep what the reader has opened, scrolled to or focused.
// On a study's page, page.js is loaded before and draws in the colours of the reader's theme.
const connection = document.getElementById("connection");
let source = null;

function replacePart(part, html) {
  const open = new Set([...part.querySelectorAll("details[open]")].map((details) => details.dataset.key));
  const scrolled = [...part.querySelectorAll(".scroll")].map((box) => box.scrollLeft);
  const focused = part.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  const drawn = [...part.querySelectorAll(".js-plotly-plot")];
  part.innerHTML = html;
  for (const details of part.querySelectorAll("details")) details.open = open.has(details.dataset.key);
  part.querySelectorAll(".scroll").forEach((box, index) => (box.scrollLeft = scrolled[index] ?? 0));
  if (focused) part.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  for (const plot of drawn) findPlot(plot.dataset.figure)?.replaceWith(plot);
}

function findPlot(key) {
  return document.querySelector(`.plot[data-figure="${CSS.escape(key)}"]`);
}

async function drawFigure(key, figure) {
  const plot = findPlot(key);
  if (!plot) return;
  const { data, layout } = JSON.parse(figure);
  await Plotly.react(plot, data, layout, CONFIG);
  await Plotly.relayout(plot, fit(plot, layout.height));
  plots.splice(0, plots.length, ...document.querySelectorAll(".js-plotly-plot"));
}

function show(message) {
  connection.textContent = message;
  connection.hidden = !message;
}

function connect() {
  source = new EventSource(document.body.dataset.events);
  source.onopen = () => show("");
  source.onmessage = async (event) => {
    const { parts, figures } = JSON.parse(event.data);
    for (const [name, html] of Object.entries(parts)) replacePart(document.getElementById(name), html);
    for (const [key, figure] of Object.entries(figures)) await drawFigure(key, figure);
  };
  source.onerror = () =>
    show(
      source.readyState === EventSource.CLOSED
        ? "This page is no longer served: open the address that `kdstudy ui` printed last."
        : "The connection to `kdstudy ui` is lost. The page shows what was known until then, and tries again.",
    );
}

// A hidden page is not kept up to date: browsers allow six connections to a host, and reading costs the study time.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) source?.close();
  else connect();
});
if (!document.hidden) connect();

document.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (!confirm(event.target.dataset.ask)) return;
  const button = event.target.querySelector("button");
  button.disabled = true;
  const problem = await press(event.target.action);
  if (!problem) return; // the page's next update replaces the button
  button.disabled = false;
  alert(problem);
});

async function press(address) {
  try {
    const answer = await fetch(address, { method: "POST", redirect: "manual" });
    return answer.type === "opaqueredirect" || answer.ok ? "" : await answer.text();
  } catch {
    return "`kdstudy ui` does not answer: this button may have had no effect.";
  }
}
