// Keeps the overview true: often while cells are trained, seldom otherwise, never in a hidden tab.
const specs = document.getElementById("specs");
const stale = document.getElementById("stale");
const OFTEN = 2000, SELDOM = 15000;

function show(found) {
  const focused = specs.contains(document.activeElement) ? document.activeElement.id : "";
  if (found.html !== show.last) {
    specs.innerHTML = found.html; // written by the server's template, which escapes every name in it
    show.last = found.html;
    if (focused) document.getElementById(focused)?.focus();
  }
  specs.dataset.running = found.running;
}

async function look() {
  if (!document.hidden) {
    try {
      const answer = await fetch(specs.dataset.source, { cache: "no-store" });
      if (!answer.ok) throw new Error(answer.status);
      show(await answer.json());
      stale.hidden = true;
    } catch {
      stale.hidden = false;
    }
  }
  setTimeout(look, Number(specs.dataset.running) ? OFTEN : SELDOM);
}

setTimeout(look, Number(specs.dataset.running) ? OFTEN : SELDOM);
