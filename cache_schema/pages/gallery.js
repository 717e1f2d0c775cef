// Which frame is on show: by scene, and by time within one.
function gallery(frames, draw) {
  const scenes = [...new Set(frames.map((frame) => frame.scene))];
  const ofScene = () => frames.filter((frame) => frame.scene === scenes[byId("scene").selectedIndex]);
  const current = () => ofScene()[Number(byId("time").value)];

  function drawCurrent() {
    const frame = current(), all = ofScene();
    byId("time-text").textContent = `+${frame.seconds.toFixed(1)} s, ${all.indexOf(frame) + 1} of ${all.length}`;
    byId("time").setAttribute("aria-valuetext", byId("time-text").textContent);
    boxView.clear(byId("panels"));
    draw(frame, byId("panels"));
  }

  function drawScene() {
    byId("time").max = ofScene().length - 1;
    byId("time").value = 0;
    byId("time").disabled = ofScene().length < 2;
    drawCurrent();
  }

  for (const scene of scenes) boxView.html("option", byId("scene"), scene);
  byId("scene").addEventListener("change", drawScene);
  byId("time").addEventListener("input", drawCurrent);
  return { current, drawCurrent, drawScene };
}
