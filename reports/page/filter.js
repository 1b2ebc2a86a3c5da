"use strict";
// Filter the rows of large tables by the words of a column and by text. The page holds the rows as deflated JSON, because
// thousands of them as elements would take seconds to lay out; the first that match are shown, more on request.
const STEP = matchMedia("(max-width: 40rem)").matches ? 20 : 100; // on a phone a hundred rows are thirty screens

async function read(block) {
  const bytes = Uint8Array.from(atob(block.querySelector("script").textContent), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).json();
}

async function connect(block) {
  const { columns, align, kinds } = await read(block);
  const [menus, search] = [block.querySelectorAll("select"), block.querySelector("input")];
  const [body, count, more] = ["tbody", "output", "button"].map((name) => block.querySelector(name));
  const cell = ({ words, places }, row) => words[places ? places[row] : row];
  const texts = kinds.map((_, row) => columns.map((column) => cell(column, row)).join("\n").toLowerCase());
  let [matching, limit] = [[], STEP];

  function append(row) {
    const line = body.insertRow();
    line.className = kinds[row];
    columns.forEach((column, at) => {
      const place = line.insertCell();
      place.className = align[at];
      place.textContent = cell(column, row);
    });
  }

  function show() {
    for (const row of matching.slice(body.rows.length, limit)) append(row);
    const hidden = matching.length - body.rows.length;
    count.textContent = `${matching.length.toLocaleString("en")} of ${kinds.length.toLocaleString("en")} trials match`;
    more.textContent = `show ${Math.min(STEP, hidden)} of ${hidden.toLocaleString("en")} more`;
    more.hidden = !hidden;
  }

  function filter() {
    const words = search.value.toLowerCase().split(/\s+/);
    const chosen = [...menus].filter((menu) => menu.value).map((menu) => [columns[menu.dataset.column], menu.value]);
    matching = [...texts.keys()].filter(
      (row) =>
        chosen.every(([column, value]) => cell(column, row) === value) &&
        words.every((word) => texts[row].includes(word)),
    );
    limit = STEP;
    body.replaceChildren();
    show();
  }

  for (const menu of menus) menu.addEventListener("change", filter);
  search.addEventListener("input", filter);
  more.addEventListener("click", () => {
    limit += STEP;
    show();
  });
  block.hidden = false;
  filter();
}

document.querySelectorAll(".filtered").forEach(connect);
