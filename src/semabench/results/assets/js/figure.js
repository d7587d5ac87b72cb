// One figure: axes, lines, legend, and the point under the pointer or the arrow keys.

class Figure {
  constructor(host, data, view) {
    Object.assign(this, { data, view, log: data.y.log && data.y.either });
    this.plot = host.querySelector(".plot");
    this.legend = html("ul", { class: "legend" });
    if (data.y.either) {
      this.toggle = html("button", { type: "button" });
      this.toggle.addEventListener("click", () => {
        this.log = !this.log;
        this.draw();
      });
      host.querySelector(".head").append(this.toggle);
    }
    this.plot.after(this.legend);
    for (const line of data.lines) this.addToLegend(line);
  }

  addToLegend(line) {
    const button = html("button", { type: "button" }, swatch(line), html("span", {}, line.name));
    button.addEventListener("click", () => this.view.toggle(line));
    for (const kind of ["pointerenter", "focus"]) button.addEventListener(kind, () => this.light(line));
    for (const kind of ["pointerleave", "blur"]) button.addEventListener(kind, () => this.light(null));
    line.button = button;
    line.item = html("li", {}, button);
    this.legend.append(line.item);
  }

  draw(width = this.plot.clientWidth, shape = 0.6) {
    this.plot.querySelector(".chart")?.remove();
    const lines = this.data.lines.filter((line) => this.view.shows(line));
    for (const line of this.data.lines) {
      line.item.hidden = !this.view.chosen(line);
      line.button.setAttribute("aria-pressed", this.view.shows(line));
    }
    if (this.toggle) this.toggle.textContent = this.log ? "linear scale" : "logarithmic scale";
    this.points = [];
    this.focused = -1;
    const height = Math.round(Math.min(380, Math.max(230, width * shape)));
    const chart = svg("svg", { class: "chart", viewBox: `0 0 ${width} ${height}` });
    this.chart = chart;
    this.plot.append(chart);
    if (!lines.length) {
      chart.append(svg("text", { x: 8, y: 30 }, "No line is chosen."));
      return;
    }
    const all = lines.flatMap((line) => line.points);
    const y = this.scaleY(all, height);
    const longest = Math.max(...y.ticks.map((tick) => tick.label.length));
    const box = { left: 12 + 7 * longest, right: width - 16, top: 26, bottom: height - 38 };
    const x = scaleOf(this.data.x, all.map((point) => point.x), box.left, box.right);
    this.axes(box, x, y, width, height);
    for (const line of lines) {
      line.group = drawLine(line, x, y);
      chart.append(line.group);
      line.points.forEach((point, place) =>
        this.points.push({ line, point, place, x: x.at(point.x), y: y.at(point.y) }));
    }
    this.listen(width, height);
  }

  scaleY(all, height) {
    const axis = { ...this.data.y, log: this.log };
    const values = all.flatMap((p) => [p.y, p.low, p.high]).filter((v) => !this.log || v > 0);
    for (const rule of this.data.rules) if ("y" in rule && !this.log) values.push(rule.y);
    return { ...scaleOf(axis, values, height - 38, 26), bottom: Math.min(...values) };
  }

  axes(box, x, y, width, height) {
    const add = (name, attributes, text) => this.chart.append(svg(name, attributes, text ?? ""));
    for (const { value, label } of y.ticks) {
      const at = y.at(value);
      add("line", { class: "grid", x1: box.left, x2: box.right, y1: at, y2: at });
      add("text", { x: box.left - 6, y: at + 4, "text-anchor": "end" }, label);
    }
    for (const { value, label } of x.ticks) {
      const at = x.at(value);
      add("line", { class: "axis", x1: at, x2: at, y1: box.bottom, y2: box.bottom + 4 });
      add("text", { x: at, y: box.bottom + 18, "text-anchor": "middle" }, label);
    }
    add("path", { class: "axis", fill: "none", d: `M${box.left},${box.top}V${box.bottom}H${box.right}` });
    add("text", { x: 0, y: 12 }, this.data.y.label + (y.log ? ", log" : ""));
    const name = this.data.x.label + (x.log ? ", log" : "");
    add("text", { x: box.right, y: height - 4, "text-anchor": "end" }, name);
    for (const rule of this.data.rules) {
      const [scale, value] = "y" in rule ? [y, rule.y] : [x, rule.x];
      if (!scale.inside(value)) continue;
      const at = scale.at(value);
      const upright = { x1: at, x2: at, y1: box.top, y2: box.bottom };
      const across = { x1: box.left, x2: box.right, y1: at, y2: at };
      add("line", { class: "rule", ...("y" in rule ? across : upright) });
      const place = "y" in rule ? { x: box.right, y: at - 4, "text-anchor": "end" } : { x: at + 4, y: box.top + 4 };
      add("text", place, rule.label);
    }
  }

  listen(width, height) {
    const name = `${this.data.title}. Arrow keys move from point to point.`;
    for (const [key, value] of [["tabindex", 0], ["role", "application"], ["aria-label", name]]) {
      this.chart.setAttribute(key, value);
    }
    const nearest = (event) => {
      const frame = this.chart.getBoundingClientRect();
      const at = [(event.clientX - frame.left) * width / frame.width, (event.clientY - frame.top) * height / frame.height];
      const far = (p) => Math.hypot(p.x - at[0], p.y - at[1]);
      const best = this.points.reduce((a, b) => (far(b) < far(a) ? b : a));
      return far(best) < 40 ? this.points.indexOf(best) : -1;
    };
    for (const kind of ["pointermove", "pointerdown"]) {
      this.chart.addEventListener(kind, (event) => this.show(nearest(event)));
    }
    for (const kind of ["pointerleave", "blur"]) this.chart.addEventListener(kind, () => this.show(-1));
    this.chart.addEventListener("keydown", (event) => this.key(event));
  }

  key(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const jump = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") return this.show(-1);
    if (!step && !jump) return;
    event.preventDefault();
    if (this.focused < 0) return this.show(0);
    const { line, point } = this.points[this.focused];
    if (step) {
      const next = this.points[this.focused + step];
      if (next && next.line === line) this.show(this.focused + step);
      return;
    }
    // Up and down go through the lines at this place, as they lie.
    const here = this.points.filter((p) => p.point.x === point.x).sort((a, b) => a.y - b.y);
    const next = here[here.indexOf(this.points[this.focused]) + jump];
    if (next) this.show(this.points.indexOf(next));
  }

  light(line) {
    this.chart.classList.toggle("dimmed", Boolean(line && this.view.shows(line)));
    for (const other of this.data.lines) other.group?.classList.toggle("lit", other === line);
  }

  show(place) {
    this.focused = place;
    this.chart.querySelector(".here")?.classList.remove("here");
    if (place < 0) {
      this.light(null);
      this.view.tip.hide();
      return;
    }
    const { line, point, place: nth, x, y } = this.points[place];
    this.light(line);
    line.group.querySelectorAll(".marker")[nth].classList.add("here");
    const frame = this.chart.getBoundingClientRect();
    const size = frame.width / this.chart.viewBox.baseVal.width;
    this.view.tip.show(line, point, frame.left + x * size, frame.top + y * size);
  }
}
