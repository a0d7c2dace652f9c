"use strict";
// A slider goes to a frame of its video, and follows it while it plays.
for (const figure of document.querySelectorAll(".scrub")) {
  const [video, slider, shown] = ["video", "input", "output"].map((tag) => figure.querySelector(tag));
  const fps = Number(figure.dataset.fps), labels = JSON.parse(figure.dataset.labels);
  const bytes = Uint8Array.from(atob(video.src.slice(video.src.indexOf(",") + 1)), (letter) => letter.charCodeAt(0));
  video.src = URL.createObjectURL(new Blob([bytes], { type: "video/mp4" })); // unlike a data URL it can be jumped in
  const seek = () => {
    video.pause();
    video.currentTime = (slider.valueAsNumber + 0.5) / fps;
    shown.value = slider.ariaValueText = labels[slider.valueAsNumber];
  };
  const follow = () => {
    if (!video.paused) slider.value = Math.min(labels.length - 1, Math.floor(video.currentTime * fps));
    shown.value = slider.ariaValueText = labels[slider.valueAsNumber];
    if (!video.paused) requestAnimationFrame(follow);
  };
  slider.addEventListener("input", seek);
  video.addEventListener("play", follow);
  video.addEventListener("loadedmetadata", seek, { once: true });
}
