"use strict";
{
  const named = new Map(); // name -> the elements that show it
  for (const element of document.querySelectorAll("[data-name]")) {
    const name = element.dataset.name;
    if (!named.has(name)) named.set(name, []);
    named.get(name).push(element);
  }
  const steps = [...document.querySelectorAll(".steps > .step")];
  const sideBySide = matchMedia("(min-width: 70rem)");
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  let lit = [], pinned = null, selected = null;

  /* A name lights up everywhere, and its gradient with it in another colour. */
  function light(name) {
    for (const element of lit) element.classList.remove("lit", "lit-gradient");
    lit = [];
    if (name === null) return;
    const value = /[._]g$/.test(name) && (name.endsWith(".g") || named.has(name.slice(0, -2))) ? name.slice(0, -2) : name;
    for (const [which, mark] of [[value, "lit"], [`${value}.g`, "lit-gradient"], [`${value}_g`, "lit-gradient"]])
      for (const element of named.get(which) ?? []) {
        element.classList.add(mark);
        lit.push(element);
      }
  }

  function pin(name) {
    pinned = name;
    document.body.classList.toggle("pinned", name !== null);
    light(name);
  }

  const nameAt = (target) => target.closest?.("[data-name]")?.dataset.name ?? null;
  document.addEventListener("pointerover", (event) => {
    if (event.pointerType !== "touch") light(nameAt(event.target) ?? pinned);
  });
  document.addEventListener("focusin", (event) => {
    const step = event.target.closest(".step");
    light(nameAt(event.target) ?? step?.dataset.gives?.split(" ")[0] ?? pinned);
    if (step) select(step);
  });
  document.addEventListener("focusout", () => light(pinned));
  document.addEventListener("click", (event) => {
    const step = event.target.closest(".step");
    const name = event.target.closest("a, button, summary, label") ? null : nameAt(event.target);
    if (name !== null) pin(name === pinned ? null : name);
    if (step?.parentElement.matches(".steps")) select(step);
  });

  /* The line that is read, and the lines of the other pass that belong to it. */
  function select(step) {
    if (step === selected || !steps.includes(step)) return;
    for (const other of document.querySelectorAll(".on, .partner")) other.classList.remove("on", "partner");
    selected = step;
    step.classList.add("on");
    const partners = step.dataset.partners.split(" ").map((key) => document.getElementById(key)).filter(Boolean);
    for (const partner of partners) partner.classList.add("partner");
    if (sideBySide.matches && partners.length) show(partners[0]);
  }

  function show(step) {
    const pane = step.closest(".pane"), box = step.getBoundingClientRect(), frame = pane.getBoundingClientRect();
    if (box.top >= frame.top && box.bottom <= frame.bottom) return;
    pane.scrollBy({ top: box.top - frame.top - frame.height / 4, behavior: still.matches ? "auto" : "smooth" });
  }

  function go(step) {
    if (!step) return;
    step.querySelector("summary").focus({ preventScroll: true });
    step.scrollIntoView({ block: "nearest", behavior: still.matches ? "auto" : "smooth" });
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input")) return;
    const at = steps.indexOf(document.activeElement.closest?.(".step") ?? selected);
    const partner = selected && document.getElementById(selected.dataset.partners.split(" ")[0]);
    const onStep = document.activeElement.matches("summary") && document.activeElement.closest(".steps");
    const moves = { j: () => go(steps[at + 1]), k: () => go(steps[at - 1]), Escape: () => pin(null) };
    if (onStep) Object.assign(moves, { ArrowDown: moves.j, ArrowUp: moves.k });
    if (onStep && partner) Object.assign(moves, { ArrowRight: () => go(partner), ArrowLeft: () => go(partner) });
    if (!(event.key in moves)) return;
    event.preventDefault();
    moves[event.key]();
  });

  /* Unfold what is linked to, everything at once, and everything for print. */
  function arrive() {
    const step = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (step?.matches(".steps > .step")) select(step);
  }
  addEventListener("hashchange", arrive);
  arrive();

  const folds = [...document.querySelectorAll("details")];
  const unfold = document.getElementById("unfold");
  unfold.hidden = false;
  unfold.addEventListener("click", () => {
    const open = folds.some((fold) => !fold.open);
    for (const fold of folds) fold.open = open;
    unfold.textContent = open ? "Fold all" : "Unfold all";
  });
  let before = [];
  addEventListener("beforeprint", () => {
    before = folds.filter((fold) => !fold.open);
    for (const fold of before) fold.open = true;
  });
  addEventListener("afterprint", () => before.forEach((fold) => (fold.open = false)));

  /* The chosen colours are kept where the browser lets a file keep anything. */
  const themes = [...document.querySelectorAll("[name=theme]")];
  try {
    const kept = localStorage.getItem("chainrule-theme");
    for (const theme of themes) {
      if (theme.value === kept) theme.checked = true;
      theme.addEventListener("change", () => localStorage.setItem("chainrule-theme", theme.value));
    }
  } catch {}
}
