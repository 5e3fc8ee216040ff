"use strict";
// The link that skips to the drawing, by focus: its address would be taken for a view.
(() => {
  const link = document.querySelector(".skip");
  link.addEventListener("click", (event) => {
    event.preventDefault();
    document.querySelector(link.getAttribute("href")).focus();
  });
})();
