// An equation too wide for the screen scrolls inside its box (book.css); this lets the keyboard reach the box.

(() => {
  "use strict";

  function reachWideEquations() {
    for (const box of document.querySelectorAll("div.math, .math.wide")) {
      const isWide = box.scrollWidth > box.clientWidth + 1 && getComputedStyle(box).overflowX !== "visible";
      if (isWide) box.setAttribute("tabindex", "0");
      else box.removeAttribute("tabindex");
    }
  }

  document.addEventListener("DOMContentLoaded", () => {
    reachWideEquations();
    window.addEventListener("resize", reachWideEquations);
  });
})();
