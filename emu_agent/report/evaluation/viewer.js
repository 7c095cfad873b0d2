"use strict";
const VIEWS = ["truth", "imagined", "difference"];
const PLAY_MS = 140;

function show(sample, stops, i) {
  const [frame, meant, ...rest] = stops[i];
  VIEWS.forEach((name, k) => {
    const view = sample.querySelector(`.view.${name}`), picture = view.querySelector("img"), tile = rest[k];
    if (!picture) return;
    const columns = Number(view.dataset.columns), of = name === "truth" ? frame : meant;
    picture.style.setProperty("--column", tile % columns);
    picture.style.setProperty("--row", Math.floor(tile / columns));
    picture.alt = `${view.dataset.name}, ${of} frames after the start`;
    view.querySelector("span").textContent = `frame ${of}`;
    view.classList.toggle("stale", name !== "truth" && frame !== meant);
  });
  const slider = sample.querySelector("input");
  slider.value = i;
  slider.setAttribute("aria-valuetext", `frame ${frame}; imagined for frame ${meant}`);
  sample.querySelector("output").textContent = frame;
  const words = sample.querySelector(".said");
  if (words) words.textContent = rest[3];
}

for (const sample of document.querySelectorAll(".sample[data-stops]")) {
  const stops = JSON.parse(sample.dataset.stops);
  const slider = sample.querySelector("input"), button = sample.querySelector("button");
  let timer = 0;
  const mark = playing => { button.textContent = playing ? "❚❚" : "▶"; button.setAttribute("aria-pressed", playing); };
  const pause = () => { clearInterval(timer); timer = 0; mark(false); };
  const step = () => {
    show(sample, stops, Number(slider.value) + 1);
    if (Number(slider.value) === stops.length - 1) pause();
  };
  slider.addEventListener("input", () => { pause(); show(sample, stops, Number(slider.value)); });
  button.addEventListener("click", () => {
    if (timer) return pause();
    if (Number(slider.value) === stops.length - 1) show(sample, stops, 0);
    mark(true);
    timer = setInterval(step, PLAY_MS);
  });
  show(sample, stops, Number(slider.value));
}
