// The strip of digits on the front page: `.film[data-frames]` holds a picture of its frames, one under the other.
//
// It plays once, for less than five seconds, and not where less motion is asked for. A slider goes anywhere in it.

(() => {
  "use strict";

  const SECONDS = 4.5;

  function makeControls(last) {
    const controls = document.createElement("div");
    controls.className = "film-controls";
    controls.innerHTML = `<button type="button">Play again</button>
      <label><span>noise</span><input type="range" min="0" max="${last}" value="${last}" aria-label="From noise to digits"><span>digits</span></label>`;
    return [controls, controls.querySelector("button"), controls.querySelector("input")];
  }

  function mountFilm(film) {
    const picture = film.querySelector("img");
    const last = Number(film.dataset.frames) - 1;
    const [controls, button, slider] = makeControls(last);
    let start = null; // of the playing film, in milliseconds

    const show = (frame) => {
      picture.style.objectPosition = `0 ${(100 * frame) / last}%`;
      slider.value = frame;
      slider.setAttribute("aria-valuetext", frame === last ? "digits" : frame === 0 ? "noise" : `frame ${frame + 1} of ${last + 1}`);
    };
    const stop = () => {
      start = null;
      button.textContent = "Play again";
    };
    const step = (now) => {
      if (start === null) return;
      const frame = Math.min(last, Math.floor((now - start) / (1000 * SECONDS / (last + 1))));
      show(frame);
      if (frame === last) stop();
      else requestAnimationFrame(step);
    };
    const play = () => {
      button.textContent = "Stop";
      requestAnimationFrame((now) => {
        start = now;
        step(now);
      });
    };

    button.addEventListener("click", () => (start === null ? play() : stop()));
    slider.addEventListener("input", () => {
      stop();
      show(Number(slider.value));
    });
    film.append(controls);
    show(last);
    if (!matchMedia("(prefers-reduced-motion: reduce)").matches) picture.decode().then(play, () => undefined);
  }

  document.addEventListener("DOMContentLoaded", () => document.querySelectorAll(".film[data-frames]").forEach(mountFilm));
})();
