// Before/after wipe: two pictures of the same size, a line that moves by mouse, finger or keyboard.
function url(data) { return URL.createObjectURL(new Blob([data], { type: "image/png" })); }

function render({ model, el }) {
  const root = document.createElement("div");
  root.className = "s2f";
  root.style.width = `${model.get("width_px")}px`;
  root.innerHTML = `<div class="wipe"><img class="before" draggable="false"><img class="after" draggable="false">
    <div class="edge"></div><span class="tag before"></span><span class="tag after"></span></div>
    <input class="across" type="range" min="0" max="1" step="0.01">
    <p class="status bad" role="status" aria-live="polite" hidden></p>`;
  el.append(root);
  const find = (selector) => root.querySelector(selector);
  const wipe = find(".wipe"), before = find("img.before"), after = find("img.after");
  const edge = find(".edge"), range = find(".across");
  wipe.setAttribute("data-lm-suppress-shortcuts", "true");

  function place() {
    const x = model.get("position");
    after.style.clipPath = `inset(0 0 0 ${100 * x}%)`;       // the second picture shows right of the line
    edge.style.left = `${100 * x}%`;
    range.value = x;
    range.setAttribute("aria-valuetext", `${Math.round(100 * x)} % ${model.get("before_label")}`);
  }
  function pictures() {
    for (const [image, name] of [[before, "before"], [after, "after"]]) {
      if (image.src) URL.revokeObjectURL(image.src);
      image.src = url(model.get(name));
      image.alt = model.get(`${name}_label`);
      find(`.tag.${name}`).textContent = model.get(`${name}_label`);
    }
    range.setAttribute("aria-label", `Wipe between ${before.alt} and ${after.alt}`);
    place();
  }
  function message() {
    const status = find(".status");
    status.textContent = model.get("message"); status.hidden = status.textContent === "";
  }
  function move(x) {
    if (!Number.isFinite(x)) return;               // a hidden widget has no width
    model.set("position", Math.min(Math.max(x, 0), 1)); model.save_changes();
  }

  range.addEventListener("input", () => move(Number(range.value)));
  range.addEventListener("keydown", (event) => event.stopPropagation());
  const follow = (event) => {
    const box = wipe.getBoundingClientRect();
    move((event.clientX - box.left) / box.width);
  };
  wipe.addEventListener("pointerdown", (event) => {
    try { wipe.setPointerCapture(event.pointerId); } catch { /* the pointer has gone already */ }
    follow(event);
  });
  wipe.addEventListener("pointermove", (event) => { if (event.buttons) follow(event); });

  model.on("change:position", place);
  const events = ["before", "after", "before_label", "after_label"].map((name) => `change:${name}`);
  for (const event of events) model.on(event, pictures);
  model.on("change:message", message);
  pictures(); message();
  return () => {
    model.off("change:message", message);
    model.off("change:position", place);
    for (const event of events) model.off(event, pictures);
    URL.revokeObjectURL(before.src); URL.revokeObjectURL(after.src);
  };
}

export default { render };
