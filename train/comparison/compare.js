// The frames of all runs side by side: one is on show, through one camera and from above.
(() => {
  const facts = JSON.parse(byId("facts").textContent), frames = facts.frames;
  if (!frames.length) return;
  const { current, drawCurrent, drawScene } = gallery(frames, draw);

  function applyThreshold() {
    const frame = current(), least = Number(byId("threshold").value), text = least.toFixed(2);
    const asMany = byId("as-many").checked, most = frame.truth.boxes.length;
    byId("threshold").disabled = asMany;
    byId("threshold-text").textContent = asMany ? "" : text;
    const keep = (score, row) => (asMany ? row < most : score >= least);
    boxView.show(keep, byId("with-truth").checked);
    const counts = facts.runs.map((run, number) => {
      const found = frame.found[number];
      return `${run} ${found ? found.scores.filter(keep).length : "none, it has not seen the frame"}`;
    });
    const which = asMany ? "the surest" : `score ${text} or more`;
    byId("status").textContent =
      `Sample ${frame.token}: ${most} boxes in the ground truth; detected (${which}): ${counts.join(", ")}.`;
  }

  function draw(frame, parent) {
    const seen = frame.cameras[byId("camera").selectedIndex], nothing = { boxes: [], scores: [], labels: [] };
    facts.runs.forEach((run, number) => {
      const column = boxView.html("div", parent);
      boxView.html("h3", column, run);
      const same = { names: facts.class_names, found: frame.found[number] || nothing, truth: frame.truth };
      const missing = frame.found[number] ? "" : ", which it has not seen";
      boxView.camera(column, { ...same, seen, what: `${run}, ${seen.name}`, caption: seen.name + missing });
      const above = { range: facts.range_m, what: `${run}, from above`, caption: "from above" + missing };
      boxView.bev(column, { ...same, ...above });
    });
    applyThreshold();
  }

  for (const camera of frames[0].cameras) boxView.html("option", byId("camera"), camera.name);
  byId("camera").selectedIndex = Math.max(0, frames[0].cameras.findIndex((camera) => camera.name === "CAM_FRONT"));
  byId("camera").addEventListener("change", drawCurrent);
  for (const control of ["threshold", "as-many", "with-truth"]) byId(control).addEventListener("input", applyThreshold);
  drawScene();
})();
