"use strict";
// Draw each figure from its data block, in the colours of the reader's theme, and of the light theme in print.
const THEMES = {
  light: { text: "#1b1f24", grid: "#e4e7eb", axis: "#a8b0b9", panel: "#ffffff" },
  dark: { text: "#d6dbe1", grid: "#2a303a", axis: "#57606a", panel: "#1c2027" },
};
const CONFIG = { responsive: true, displaylogo: false, displayModeBar: false, doubleClick: false };
const MARKS_SHARE = 0.65; // of a figure's height, at least
const PAPER_WIDTH = { wide: 680, small: 320 };
const dark = matchMedia("(prefers-color-scheme: dark)");
const plots = [];

function colours(layout, theme) {
  const patch = {
    "font.color": theme.text,
    "hoverlabel.bgcolor": theme.panel,
    "hoverlabel.bordercolor": theme.axis,
    "hoverlabel.font.color": theme.text,
  };
  for (const name of Object.keys(layout).filter((key) => /^[xy]axis\d*$/.test(key))) {
    patch[`${name}.gridcolor`] = theme.grid;
    patch[`${name}.linecolor`] = theme.axis;
  }
  return patch;
}

const current = () => (dark.matches ? THEMES.dark : THEMES.light);

// Lines of the legend beyond the first ones make a figure taller: they would take the room of its marks.
function fit(plot, height) {
  const { h } = plot._fullLayout._size; // of the marks alone
  return { ...colours(plot.layout, current()), height: height + Math.max(0, MARKS_SHARE * height - h) };
}

function restyle(theme, width) {
  for (const plot of plots) {
    const size = width ? { width: width(plot) } : { width: null, autosize: true };
    Plotly.relayout(plot, { ...colours(plot.layout, theme), ...size });
  }
}

function draw(block) {
  const plot = block.previousElementSibling;
  const { data, layout } = JSON.parse(block.textContent);
  plots.push(plot);
  return Plotly.newPlot(plot, data, layout, CONFIG).then(() => Plotly.relayout(plot, fit(plot, layout.height)));
}

// Draw from top to bottom with a pause after each, so that a page of fifty figures can be read meanwhile.
(async () => {
  for (const block of document.querySelectorAll("script.data")) {
    try {
      await draw(block);
    } catch (error) {
      console.error(error); // the figures that follow are drawn all the same
    }
    await new Promise((done) => setTimeout(done));
  }
})();

dark.addEventListener("change", () => restyle(current()));
addEventListener("beforeprint", () =>
  restyle(THEMES.light, (plot) => (plot.closest(".grid") ? PAPER_WIDTH.small : PAPER_WIDTH.wide)),
);
addEventListener("afterprint", () => restyle(current()));
