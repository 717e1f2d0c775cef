"use strict";
// Draws boxes from above and in cameras, as SVG. Boxes are x, y, z of the centre, l, w, h, yaw, in the LiDAR
// frame: x to the right, y ahead. A corner's number has bit 2 for front, 1 for left, 0 for top.
const byId = (id) => document.getElementById(id);
const boxView = (() => {
  const RAMP = ["#8405a7", "#b93289", "#db5c68", "#f48849", "#fdc527", "#f0f921"];
  const EDGES = [[4, 5], [5, 7], [7, 6], [6, 4], [0, 1], [1, 3], [3, 2], [2, 0], [0, 4], [1, 5], [2, 6], [3, 7]];
  const CROSS = [[4, 7], [5, 6]];
  const NEAR_M = 0.1, RING_STEP_M = 10, LABEL_FROM = 0.08;
  let drawn = []; // of the panels on show: panel, row in its boxes, score and element of every box
  let truths = [];
  let panels = []; // element, and what it shows

  function svg(name, attributes, parent) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (parent) parent.append(element);
    return element;
  }

  function html(name, parent, text) {
    const element = document.createElement(name);
    if (text !== undefined) element.textContent = text;
    parent.append(element);
    return element;
  }

  function colour(score) {
    const place = Math.min(Math.max(score, 0), 1) * (RAMP.length - 1);
    const low = Math.min(Math.floor(place), RAMP.length - 2);
    const part = (hex, at) => parseInt(hex.slice(at, at + 2), 16);
    const mix = [1, 3, 5].map((at) =>
      Math.round(part(RAMP[low], at) + (place - low) * (part(RAMP[low + 1], at) - part(RAMP[low], at))));
    return `rgb(${mix})`;
  }

  function corners([x, y, z, length, width, height, yaw]) {
    const cos = Math.cos(yaw), sin = Math.sin(yaw);
    return [...Array(8).keys()].map((c) => {
      const ahead = (((c >> 2) & 1) - 0.5) * length, left = (((c >> 1) & 1) - 0.5) * width;
      return [x + cos * ahead - sin * left, y + sin * ahead + cos * left, z + ((c & 1) - 0.5) * height];
    });
  }

  function projected(start, stop, lidar2img) {
    const [a, b] = [start, stop].map((p) => lidar2img.map((r) => r[0] * p[0] + r[1] * p[1] + r[2] * p[2] + r[3]));
    if (a[2] < NEAR_M && b[2] < NEAR_M) return null;
    // Cut at the near plane: beyond it a projection would come out mirrored.
    const share = (NEAR_M - a[2]) / (b[2] - a[2]);
    const cut = a.map((value, axis) => value + share * (b[axis] - value));
    return [a, b].map((p) => (p[2] < NEAR_M ? cut : p)).map((p) => [p[0] / p[2], p[1] / p[2]]);
  }

  const path = (lines) =>
    lines.map((line) => "M" + line.map((p) => `${p[0].toFixed(2)} ${p[1].toFixed(2)}`).join("L")).join("");

  // Lines from above, y pointing up; and lines in a camera, null where the box is not in view.
  function footprint(box) {
    const c = corners(box).map(([x, y]) => [x, -y]);
    const front = [(c[4][0] + c[6][0]) / 2, (c[4][1] + c[6][1]) / 2];
    return [[c[0], c[2], c[6], c[4], c[0]], [[box[0], -box[1]], front]];
  }

  function inCamera(box, camera) {
    const c = corners(box);
    const lines = (pairs) => pairs.map(([i, j]) => projected(c[i], c[j], camera.lidar2img)).filter(Boolean);
    const edges = lines(EDGES), points = edges.flat();
    if (!points.length) return null;
    const [xs, ys] = [0, 1].map((axis) => points.map((p) => p[axis]));
    const low = [Math.min(...xs), Math.min(...ys)], high = [Math.max(...xs), Math.max(...ys)];
    if (high[0] < 0 || high[1] < 0 || low[0] > camera.size[0] || low[1] > camera.size[1]) return null;
    return { lines: [...edges, ...lines(CROSS)], low, high };
  }

  function addTruth(panel, lines) {
    const group = svg("g", {}, panel.element);
    svg("path", { class: "rim", d: path(lines) }, group);
    svg("path", { class: "truth", d: path(lines) }, group);
    truths.push(group);
  }

  function addBox(panel, found, row, names, lines) {
    const group = svg("g", { class: "box" }, panel.element), score = found.scores[row];
    svg("title", {}, group).textContent = `${names[found.labels[row]]} ${score.toFixed(2)}`;
    svg("path", { class: "rim", d: path(lines) }, group);
    svg("path", { class: "edge", d: path(lines), stroke: colour(score) }, group);
    drawn.push({ panel, row, score, group });
    return group;
  }

  function addPanel(parent, className, viewBox, what, caption) {
    const figure = html("figure", parent);
    const element = svg("svg", { class: "panel " + className, role: "img", viewBox: viewBox.join(" ") }, figure);
    html("figcaption", figure, caption);
    const panel = { element, what };
    panels.push(panel);
    return panel;
  }

  // Boxes `found` (boxes, scores, labels; best first) over a layer, and the annotated ones of `truth`.
  function bev(parent, { range, names, layer, found, truth, what, caption }) {
    const [x0, y0, , x1, y1] = range;
    const panel = addPanel(parent, "bev", [x0, -y1, x1 - x0, y1 - y0], what, caption), element = panel.element;
    const place = { x: x0, y: -y1, width: x1 - x0, height: y1 - y0, preserveAspectRatio: "none" };
    if (layer) svg("image", { href: layer.picture, ...place }, element);
    const size = (x1 - x0) / 45;
    for (let r = RING_STEP_M; r < Math.max(x1, y1) * 1.4; r += RING_STEP_M) {
      svg("path", { class: "ring", d: `M${-r} 0A${r} ${r} 0 1 1 ${r} 0A${r} ${r} 0 1 1 ${-r} 0` }, element);
      const text = { x: 0, y: -r, "text-anchor": "middle", "font-size": size * 0.8, "stroke-width": size / 5 };
      if (r < y1) svg("text", text, element).textContent = `${r} m`;
    }
    for (const box of truth ? truth.boxes : []) addTruth(panel, footprint(box));
    for (let row = found.boxes.length - 1; row >= 0; row--) {
      addBox(panel, found, row, names, footprint(found.boxes[row]));
    }
    svg("path", { class: "car", d: "M-0.85 2.05V-0.8L0 -2.05L0.85 -0.8V2.05Z" }, element);
  }

  function camera(parent, { seen: view, names, found, truth, what, caption }) {
    const [width, height] = view.size;
    const panel = addPanel(parent, "camera", [0, 0, width, height], what, caption);
    const place = { width: view.covers[0], height: view.covers[1], preserveAspectRatio: "none" };
    svg("image", { href: view.picture, ...place }, panel.element);
    if (!view.lidar2img) return;
    for (const box of truth ? truth.boxes : []) {
      const outline = inCamera(box, view);
      if (outline) addTruth(panel, outline.lines);
    }
    const size = width / 32, labels = [];
    const outlines = found.boxes.map((box) => inCamera(box, view));
    const labelled = outlines.map((outline, row) => {
      if (!outline || outline.high[1] - outline.low[1] < LABEL_FROM * height) return false;
      const text = names[found.labels[row]] + " 0.00";
      const at = [outline.low[0], outline.low[1], outline.low[0] + text.length * size * 0.55];
      if (at[0] < 0 || at[1] < size || at[2] > width) return false;
      if (labels.some((o) => at[0] < o[2] && o[0] < at[2] && Math.abs(at[1] - o[1]) < size)) return false;
      labels.push(at);
      return true;
    });
    for (let row = outlines.length - 1; row >= 0; row--) {
      if (!outlines[row]) continue;
      const group = addBox(panel, found, row, names, outlines[row].lines);
      if (!labelled[row]) continue;
      const { low } = outlines[row];
      const at = { x: low[0], y: low[1] - size / 5, "font-size": size, "stroke-width": size / 5 };
      svg("text", at, group).textContent = `${names[found.labels[row]]} ${found.scores[row].toFixed(2)}`;
    }
  }

  function clear(parent) {
    parent.replaceChildren();
    drawn = []; truths = []; panels = [];
  }

  // Show the boxes for which `keep(score, row)` holds, and say how many in the panels' labels.
  function show(keep, withTruth) {
    const counts = new Map(panels.map((panel) => [panel, 0]));
    for (const { panel, row, score, group } of drawn) {
      const kept = keep(score, row);
      group.classList.toggle("hidden", !kept);
      if (kept) counts.set(panel, counts.get(panel) + 1);
    }
    for (const group of truths) group.classList.toggle("hidden", !withTruth);
    for (const [{ element, what }, count] of counts) element.setAttribute("aria-label", `${what}: ${count} boxes`);
  }

  return { bev, camera, clear, show, html };
})();
