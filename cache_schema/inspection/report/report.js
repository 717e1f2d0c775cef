// The samples of a store: one is on show, with the boxes that reach the threshold.
(() => {
  const facts = JSON.parse(byId("facts").textContent), frames = facts.frames;
  if (!frames.length) return;
  const { current, drawCurrent, drawScene } = gallery(frames, draw);

  function applyThreshold() {
    const frame = current(), least = Number(byId("threshold").value), text = least.toFixed(2);
    byId("threshold-text").textContent = text;
    boxView.show((score) => score >= least, byId("with-truth").checked);
    const count = frame.scores.filter((score) => score >= least).length;
    const best = frame.scores.length ? `; the best has ${Math.max(...frame.scores).toFixed(2)}` : "";
    const truth = frame.truth ? ` ${frame.truth.boxes.length} boxes in the ground truth.` : "";
    byId("status").textContent =
      `Sample ${frame.token}: ${count} of ${frame.scores.length} boxes score ${text} or more${best}.${truth}`;
  }

  function draw(frame, parent) {
    const layer = frame.layers[byId("layer").selectedIndex];
    const same = { names: facts.class_names, found: frame, truth: frame.truth };
    const above = { range: facts.range_m, layer, what: "Bird's-eye view" };
    boxView.bev(parent, { ...same, ...above, caption: layer ? layer.title : "boxes from above" });
    const cameras = boxView.html("div", parent);
    cameras.className = "cameras";
    for (const seen of frame.cameras) {
      boxView.camera(cameras, { ...same, seen, what: seen.name, caption: `${seen.name}, ${seen.what}` });
    }
    if (!frame.cameras.length) { cameras.remove(); parent.firstChild.className = "alone"; }
    applyThreshold();
  }

  for (const layer of frames[0].layers) boxView.html("option", byId("layer"), layer.title);
  byId("layer-label").classList.toggle("hidden", frames[0].layers.length < 2);
  byId("truth-label").classList.toggle("hidden", !frames.some((frame) => frame.truth));
  byId("threshold").value = facts.min_score;
  byId("layer").addEventListener("change", drawCurrent);
  for (const control of ["threshold", "with-truth"]) byId(control).addEventListener("input", applyThreshold);
  drawScene();
})();
