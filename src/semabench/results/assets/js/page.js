// Start: theme, tip, figures, tables, print.

class Tip {
  constructor() {
    this.box = html("div", { id: "tip", role: "status", hidden: "" });
    document.body.append(this.box);
  }

  show(line, point, left, top) {
    const facts = point.facts.map(([name, text]) => html("div", {}, html("dt", {}, name), html("dd", {}, text)));
    this.box.replaceChildren(html("strong", {}, line.name), html("dl", {}, ...facts));
    this.box.hidden = false;
    const { width, height } = this.box.getBoundingClientRect();
    const room = document.documentElement.clientWidth - width - 8;
    const above = top - height - 12;
    this.box.style.left = `${Math.max(4, Math.min(left + 12, room)) + scrollX}px`;
    this.box.style.top = `${(above > 4 ? above : top + 16) + scrollY}px`;
  }

  hide() {
    this.box.hidden = true;
  }
}

function theme() {
  const button = document.getElementById("theme");
  const names = ["system", "light", "dark"];
  const set = (name) => {
    if (name === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    button.textContent = `Theme: ${name}`;
    button.dataset.now = name;
  };
  let kept = null;
  try {
    kept = localStorage.getItem("semabench-theme");
  } catch { /* a browser may keep nothing for a file */ }
  set(names.includes(kept) ? kept : "system");
  button.addEventListener("click", () => {
    const next = names[(names.indexOf(button.dataset.now) + 1) % names.length];
    set(next);
    try {
      localStorage.setItem("semabench-theme", next);
    } catch { /* as above */ }
  });
}

function printing(view) {
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details.numbers:not([open])")];
    for (const details of closed) details.open = true;
    view.printing = true;
    view.tip.hide();
    for (const figure of view.figures) figure.draw(460, 0.5);
  });
  addEventListener("afterprint", () => {
    for (const details of closed) details.open = false;
    view.printing = false;
    for (const figure of view.figures) figure.draw();
  });
}

theme();
const view = new View(new Tip());
const data = JSON.parse(document.getElementById("data").textContent);
for (const [id, figure] of Object.entries(data)) {
  view.figures.push(new Figure(document.getElementById(id), figure, view));
}
if (matchMedia("(max-width: 36rem)").matches) document.getElementById("filters").open = false;
view.apply();
document.querySelectorAll("table").forEach(sortable);
printing(view);
let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth !== width && !view.printing) view.figures.forEach((figure) => figure.draw());
  width = innerWidth;
});
