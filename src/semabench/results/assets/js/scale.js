// Axes: where a value lies, and which values are labelled.

function scaleOf(axis, values, from, to) {
  const log = axis.log && values.every((value) => value > 0);
  const forth = log ? Math.log : (value) => value;
  let [low, high] = [Math.min(...values), Math.max(...values)];
  let ticks;
  if (axis.discrete) {
    ticks = spread([...new Set(values)].sort((a, b) => a - b), forth, to - from);
    const margin = low === high ? (log ? 0.35 : 1) : 0.04 * (forth(high) - forth(low));
    [low, high] = [forth(low) - margin, forth(high) + margin];
  } else if (log) {
    // Points close to each other are no reason to zoom in on them.
    const margin = Math.max(0.06 * Math.log(high / low), Math.log(4 / (high / low)) / 2, 0);
    [low, high] = [Math.log(low) - margin, Math.log(high) + margin];
    ticks = logTicks(Math.exp(low), Math.exp(high));
  } else {
    const margin = high > low ? 0.06 * (high - low) : Math.abs(high) * 0.1 || 1;
    [low, high] = [low - margin, high + margin];
    if (axis.limits) {
      const room = 0.02 * (axis.limits[1] - axis.limits[0]);
      low = Math.max(low, axis.limits[0] - room);
      high = Math.min(high, axis.limits[1] + room);
    }
    ticks = linearTicks(low, high);
  }
  const at = (value) => from + ((forth(value) - low) / (high - low)) * (to - from);
  const inside = (value) => (!log || value > 0) && forth(value) >= low && forth(value) <= high;
  return { at, inside, log, ticks: ticks.map((value) => ({ value, label: short(value) })) };
}

// The values that can be labelled without running into each other.
function spread(values, forth, length) {
  const span = forth(values.at(-1)) - forth(values[0]) || 1;
  const kept = [];
  let end = -Infinity;
  for (const value of values) {
    const place = (forth(value) - forth(values[0])) / span * Math.abs(length);
    const half = short(value).length * 3.6 + 4;
    if (place - half > end) {
      kept.push(value);
      end = place + half;
    }
  }
  return kept;
}

function logTicks(low, high) {
  const steps = high / low > 1000 ? [1] : high / low > 12 ? [1, 2, 5] : [1, 1.5, 2, 3, 5, 7];
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    for (const step of steps) {
      const value = Number(`${step}e${power}`);
      if (value >= low && value <= high) ticks.push(value);
    }
  }
  return ticks;
}

function linearTicks(low, high) {
  const rough = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const ticks = [];
  for (let place = Math.ceil(low / step); place * step <= high; place++) {
    ticks.push(Number((place * step).toPrecision(12)));
  }
  return ticks;
}

function short(value) {
  const size = Math.abs(value);
  if (size >= 1e6 || (size > 0 && size < 1e-3)) return value.toExponential().replace("e+", "e");
  return value.toLocaleString("en", { maximumFractionDigits: 4 });
}
