// Choosing another run to compare with loads the page; pictures that are gone say so.
import { choosing } from "./common.js";

const form = document.getElementById("choose");
if (form) choosing(form);
for (const picture of document.querySelectorAll(".pictures img")) {
  const gone = () => picture.closest("figure").classList.add("gone");
  picture.addEventListener("error", gone);
  if (picture.complete && !picture.naturalWidth) gone();
}
