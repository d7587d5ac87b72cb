// Which lines are shown: by mixer and model, and one by one through the legends.

class View {
  constructor(tip) {
    Object.assign(this, { tip, figures: [], off: new Set(), printing: false });
    this.boxes = [...document.querySelectorAll("#filters input")];
    this.rows = [...document.querySelectorAll("tbody tr")];
    for (const box of this.boxes) box.addEventListener("change", () => this.apply());
    for (const button of document.querySelectorAll("#filters [data-all]")) {
      button.addEventListener("click", () => {
        for (const box of button.parentElement.querySelectorAll("input")) {
          box.checked = button.dataset.all === "true";
        }
        this.apply();
      });
    }
    this.read();
  }

  read() {
    this.picked = { mixer: new Set(), model: new Set() };
    for (const box of this.boxes) {
      if (box.checked) this.picked[box.closest("[data-filter]").dataset.filter].add(box.value);
    }
  }

  chosen({ mixer, model }) {
    return this.printing || (this.picked.mixer.has(mixer) && this.picked.model.has(model));
  }

  shows(line) {
    return this.printing || (this.chosen(line) && !this.off.has(`${line.mixer}\n${line.name}`));
  }

  toggle(line) {
    const key = `${line.mixer}\n${line.name}`;
    if (!this.off.delete(key)) this.off.add(key);
    this.apply();
  }

  apply() {
    this.read();
    this.tip.hide();
    for (const row of this.rows) row.hidden = !this.chosen(row.dataset);
    const names = (lines) => new Set(lines.map((line) => `${line.mixer}\n${line.name}`)).size;
    const lines = this.figures.flatMap((figure) => figure.data.lines);
    const shown = names(lines.filter((line) => this.shows(line)));
    document.getElementById("shown").textContent = `${shown} of ${names(lines)} lines`;
    for (const figure of this.figures) figure.draw();
  }
}
