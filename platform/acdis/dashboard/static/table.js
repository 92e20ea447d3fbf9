// Tests of a large table take a moment: they come after the page.
const rows = document.getElementById("rows");

async function fill() {
  try {
    const answer = await fetch(rows.dataset.source, { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.status);
    rows.innerHTML = (await answer.json()).html; // written by the server's template, which escapes every name
    delete rows.dataset.source;
  } catch {
    const waiting = document.getElementById("waiting");
    if (waiting) waiting.textContent = "The tests did not arrive. Load the page again; the server's log says why.";
  }
}

if (rows.dataset.source) fill();
