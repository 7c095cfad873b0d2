"use strict";
const VIEWS = ["truth", "imagined", "difference"];
const PLAY_MS = 140;

function show(sample, stops, i) {
  const [frame, meant, ...rest] = stops[i];
  VIEWS.forEach((name, k) => {
    const view = sample.querySelector(`.view.${name}`), picture = view.querySelector("img"), tile = rest[k];
    if (!picture) return;
    const columns = Number(view.dataset.columns), of = name === "truth" ? frame : meant;
    picture.style.setProperty("--column", Math.max(tile, 0) % columns);
    picture.style.setProperty("--row", Math.floor(Math.max(tile, 0) / columns));
    picture.style.visibility = tile < 0 ? "hidden" : "visible";
    picture.alt = `${view.dataset.name}, ${of} frames after the start`;
    view.querySelector("span").textContent = `frame ${of}`;
    view.classList.toggle("stale", name !== "truth" && frame !== meant);
  });
  const slider = sample.querySelector("input");
  slider.value = i;
  slider.setAttribute("aria-valuetext", `frame ${frame}; imagined for frame ${meant}`);
  sample.querySelector("output").textContent = frame;
  sample.querySelector(".said").textContent = rest[3];
}

for (const sample of document.querySelectorAll(".sample[data-stops]")) {
  const stops = JSON.parse(sample.dataset.stops);
  const slider = sample.querySelector("input"), button = sample.querySelector("button");
  let timer = 0;
  const pause = () => { clearInterval(timer); timer = 0; button.textContent = "▶"; };
  const step = () => {
    show(sample, stops, Number(slider.value) + 1);
    if (Number(slider.value) === stops.length - 1) pause();
  };
  slider.addEventListener("input", () => { pause(); show(sample, stops, Number(slider.value)); });
  button.addEventListener("click", () => {
    if (timer) return pause();
    if (Number(slider.value) === stops.length - 1) show(sample, stops, 0);
    button.textContent = "❚❚";
    timer = setInterval(step, PLAY_MS);
  });
  show(sample, stops, Number(slider.value));
}
