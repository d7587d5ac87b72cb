// SVG: elements, markers, and one line of a figure with its errors. Text is always text.

function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function html(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

const MARKERS = [
  "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0z", // circle
  "M-3.7,-3.7h7.4v7.4h-7.4z", // square
  "M0,-4.8L4.6,3.8H-4.6z", // triangle
  "M0,-5.2L5.2,0L0,5.2L-5.2,0z", // diamond
  "M0,4.8L4.6,-3.8H-4.6z", // triangle upside down
  "M-1.7,-5h3.4v3.3H5v3.4H1.7V5h-3.4V1.7H-5v-3.4h3.3z", // plus
  "M0,-5.4L1.5,-1.7L5.2,-1.7L2.3,0.8L3.4,4.6L0,2.3L-3.4,4.6L-2.3,0.8L-5.2,-1.7L-1.5,-1.7z", // star
];

function markerAt(line, x, y) {
  return svg("path", { class: "marker", d: MARKERS[line.marker], transform: `translate(${x},${y})` });
}

function drawLine(line, x, y) {
  const group = svg("g", { class: `line c${line.colour} d${line.dash}` });
  const clip = (value) => (y.log && value <= 0 ? null : y.at(value));
  const floor = y.at(y.bottom);
  const edge = (value) => clip(value) ?? floor;
  if (line.band) {
    const upper = line.points.map((p) => `${x.at(p.x)},${edge(p.high)}`);
    const lower = line.points.map((p) => `${x.at(p.x)},${edge(p.low)}`).reverse();
    group.append(svg("polygon", { class: "band", points: [...upper, ...lower].join(" ") }));
  }
  const way = line.points.map((p) => `${x.at(p.x)},${y.at(p.y)}`).join("L");
  group.append(svg("path", { class: "stroke", d: `M${way}` }));
  for (const point of line.points) {
    const [left, top, bottom] = [x.at(point.x), edge(point.high), edge(point.low)];
    if (!line.band && point.of && bottom - top > 0.5) {
      const d = `M${left - 3},${top}h6M${left},${top}V${bottom}M${left - 3},${bottom}h6`;
      group.append(svg("path", { class: "error", d }));
    }
  }
  for (const point of line.points) group.append(markerAt(line, x.at(point.x), y.at(point.y)));
  return group;
}

function swatch(line) {
  const box = svg("svg", { width: 30, height: 14, "aria-hidden": "true" });
  const look = svg("g", { class: `swatch c${line.colour} d${line.dash}` });
  look.append(svg("path", { class: "stroke", d: "M1,7H29" }), markerAt(line, 15, 7));
  box.append(look);
  return box;
}
