"use strict";
// A slider goes to a frame of its video, and follows it while it plays.
for (const figure of document.querySelectorAll(".scrub")) {
  const [video, button, slider, shown] = ["video", "button", "input", "output"].map((tag) => figure.querySelector(tag));
  const fps = Number(figure.dataset.fps), labels = JSON.parse(figure.dataset.labels);
  const bytes = Uint8Array.from(atob(video.src.slice(video.src.indexOf(",") + 1)), (letter) => letter.charCodeAt(0));
  video.src = URL.createObjectURL(new Blob([bytes], { type: "video/mp4" })); // unlike a data URL it can be jumped in
  video.controls = button.hidden = false; // the browser's own would cover a part of each frame that stands
  const tell = () => {
    shown.value = slider.ariaValueText = labels[slider.valueAsNumber];
    button.textContent = video.paused ? "Play" : "Pause";
  };
  const seek = () => {
    video.pause();
    video.currentTime = (slider.valueAsNumber + 0.5) / fps;
    tell();
  };
  const follow = () => {
    if (!video.paused) slider.value = Math.min(labels.length - 1, Math.floor(video.currentTime * fps));
    tell();
    if (!video.paused) requestAnimationFrame(follow);
  };
  slider.addEventListener("input", seek);
  button.addEventListener("click", () => (video.paused ? video.play() : video.pause()));
  video.addEventListener("click", () => button.click());
  video.addEventListener("play", follow);
  video.addEventListener("pause", tell);
  video.addEventListener("loadedmetadata", seek, { once: true });
}
