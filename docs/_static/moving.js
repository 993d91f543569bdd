// Behind each frame of a page that moves: as high as the page in it says that it is.
"use strict";
{
  const frame = document.currentScript.previousElementSibling;
  addEventListener("message", ({ source, data }) => {
    if (source === frame.contentWindow) frame.style.height = `${data.height + frame.offsetHeight - frame.clientHeight}px`;
  });
}
