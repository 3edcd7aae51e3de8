// Turns slides by keyboard, click and touch; the address holds the number, so a reload stays put.
"use strict";
(() => {
  const slides = [...document.querySelectorAll(".slide")];
  const progress = document.querySelector("progress");
  const number = document.querySelector("output");
  const SMALLEST = 0.5; // below this nobody reads it from the back; it scrolls instead
  let now = 0;

  function fit(slide) {
    const inner = slide.querySelector(".fit");
    inner.style.transform = inner.style.width = "";
    const room = slide.clientHeight - 2 * parseFloat(getComputedStyle(slide).paddingTop);
    const tooWide = () => [...inner.querySelectorAll("pre")].some((pre) => pre.scrollWidth > pre.clientWidth);
    let scale = 1;
    while ((inner.scrollHeight * scale > room || tooWide()) && scale > SMALLEST) {
      scale -= 0.05;
      inner.style.width = `${100 / scale}%`;
    }
    inner.style.transform = scale < 1 ? `scale(${scale})` : "";
  }

  function turn(to) {
    now = Math.min(Math.max(to, 0), slides.length - 1);
    slides.forEach((slide, i) => slide.classList.toggle("now", i === now));
    slides[now].tabIndex = -1;
    slides[now].focus({ preventScroll: true });
    fit(slides[now]);
    progress.value = now + 1;
    number.textContent = `${now + 1} / ${slides.length}`;
    history.replaceState(null, "", `#slide-${now + 1}`);
  }

  const KEYS = {
    ArrowRight: 1, ArrowDown: 1, PageDown: 1, " ": 1, Enter: 1, n: 1,
    ArrowLeft: -1, ArrowUp: -1, PageUp: -1, Backspace: -1, p: -1,
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (/^(A|SUMMARY|INPUT)$/.test(event.target.tagName) && [" ", "Enter"].includes(event.key)) return;
    if (event.key in KEYS) turn(now + KEYS[event.key]);
    else if (event.key === "Home") turn(0);
    else if (event.key === "End") turn(slides.length - 1);
    else if (event.key === "f") document.documentElement.requestFullscreen?.();
    else return;
    event.preventDefault();
  });

  let touched = null;
  document.addEventListener("touchstart", (event) => { touched = event.touches[0].clientX; }, { passive: true });
  document.addEventListener("touchend", (event) => {
    const moved = event.changedTouches[0].clientX - touched;
    if (Math.abs(moved) > 60) turn(now - Math.sign(moved));
  });
  document.querySelector("footer").addEventListener("click", (event) => {
    turn(Math.floor((event.clientX / innerWidth) * slides.length));
  });
  addEventListener("resize", () => fit(slides[now]));
  addEventListener("hashchange", () => turn(Number(location.hash.replace("#slide-", "")) - 1 || 0));
  turn(Number(location.hash.replace("#slide-", "")) - 1 || 0);
})();
