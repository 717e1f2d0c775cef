// The gallery: which sample is on show, and which of its boxes.
(() => {
  const facts = JSON.parse(byId("facts").textContent), frames = facts.frames;
  if (!frames.length) return;
  const scenes = [...new Set(frames.map((frame) => frame.scene))];
  const framesOf = (scene) => frames.filter((frame) => frame.scene === scene);
  const current = () => framesOf(scenes[byId("scene").selectedIndex])[Number(byId("time").value)];

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

  function draw() {
    const frame = current(), all = framesOf(frame.scene), parent = byId("panels");
    byId("time-text").textContent = `+${frame.seconds.toFixed(1)} s, ${all.indexOf(frame) + 1} of ${all.length}`;
    byId("time").setAttribute("aria-valuetext", byId("time-text").textContent);
    boxView.clear(parent);
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

  function drawScene() {
    const n = framesOf(scenes[byId("scene").selectedIndex]).length;
    byId("time").max = n - 1;
    byId("time").value = 0;
    byId("time").disabled = n < 2;
    draw();
  }

  for (const scene of scenes) boxView.html("option", byId("scene"), scene);
  for (const layer of frames[0].layers) boxView.html("option", byId("layer"), layer.title);
  byId("layer-label").classList.toggle("hidden", frames[0].layers.length < 2);
  byId("truth-label").classList.toggle("hidden", !frames.some((frame) => frame.truth));
  byId("threshold").value = facts.min_score;
  byId("scene").addEventListener("change", drawScene);
  byId("time").addEventListener("input", draw);
  byId("layer").addEventListener("change", draw);
  byId("threshold").addEventListener("input", applyThreshold);
  byId("with-truth").addEventListener("change", applyThreshold);
  drawScene();
})();
