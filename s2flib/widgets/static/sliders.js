// Sliders around a picture that Python renders. While Python is busy only the latest setting waits, so dragging
// never piles up work; the widget works with any set of controls.
const PATIENCE = 60_000;   // ms without an answer, after which the next move is sent all the same

function render({ model, el }) {
  const root = document.createElement("div");
  root.className = "s2f";
  root.innerHTML = `<div class="panel"><img><div><div class="rows"></div>
    <div class="bar"><button type="button" class="reset">Reset</button></div>
    <p class="status" role="status" aria-live="polite"></p></div></div>`;
  el.append(root);
  const image = root.querySelector("img"), rows = root.querySelector(".rows"), status = root.querySelector(".status");
  root.setAttribute("data-lm-suppress-shortcuts", "true");
  image.alt = model.get("description");
  const inputs = {}, outputs = {};
  let waiting = false, dirty = false, serial = 0, timer = null;

  function format(control, value) { return Number(value).toFixed(control.step >= 1 ? 0 : control.step >= 0.1 ? 1 : 2); }
  function send() {
    if (waiting) { dirty = true; return; }
    waiting = true; dirty = false; image.classList.add("busy");
    const values = {};
    for (const [name, input] of Object.entries(inputs)) values[name] = Number(input.value);
    // above every serial in use: another view of these sliders counts, too, and a request may never have been answered
    serial = Math.max(serial, model.get("answered"), model.get("request").serial ?? 0) + 1;
    model.set("request", { serial, values });
    model.save_changes();
    clearTimeout(timer);
    timer = setTimeout(() => {
      waiting = false; image.classList.remove("busy");
      say("Python does not answer: run the cell again, or restart the kernel.");
    }, PATIENCE);
  }
  for (const control of model.get("controls")) {
    const id = `s2f-${Math.random().toString(36).slice(2)}`;
    const label = document.createElement("label");
    label.htmlFor = id; label.textContent = control.label;
    const input = document.createElement("input");
    Object.assign(input, { type: "range", id, min: control.low, max: control.high, step: control.step });
    input.value = model.get("values")[control.name];
    const output = document.createElement("output");
    output.htmlFor = id; output.textContent = format(control, input.value);
    input.addEventListener("input", () => { output.textContent = format(control, input.value); send(); });
    input.addEventListener("keydown", (event) => event.stopPropagation());
    inputs[control.name] = input; outputs[control.name] = [control, output];
    rows.append(label, input, output);
    if (control.help) {
      const help = document.createElement("p");
      help.className = "help"; help.id = `${id}-help`; help.textContent = control.help;
      input.setAttribute("aria-describedby", help.id);
      rows.append(help);
    }
  }
  root.querySelector(".reset").addEventListener("click", () => {
    for (const [name, input] of Object.entries(inputs)) {
      input.value = outputs[name][0].value;
      outputs[name][1].textContent = format(outputs[name][0], input.value);
    }
    send();
  });

  function picture() {
    const data = model.get("image");
    if (!data || !data.byteLength) return;
    const old = image.src;
    image.src = URL.createObjectURL(new Blob([data], { type: "image/png" }));
    if (old) URL.revokeObjectURL(old);
  }
  function answered() {
    if (model.get("answered") < serial) return;
    waiting = false; image.classList.remove("busy"); clearTimeout(timer);
    if (dirty) send(); else values();              // a refused setting goes back to what the picture shows
  }
  function values() {           // Python moved a slider
    if (waiting) return;
    for (const [name, input] of Object.entries(inputs)) {
      input.value = model.get("values")[name];
      outputs[name][1].textContent = format(outputs[name][0], input.value);
    }
  }
  function say(text) { status.textContent = text; status.classList.toggle("bad", text !== ""); }
  function message() { say(model.get("message")); }
  const listeners = { image: picture, answered, values, message, said: message };
  for (const [name, listener] of Object.entries(listeners)) model.on(`change:${name}`, listener);
  picture(); message();
  return () => {
    for (const [name, listener] of Object.entries(listeners)) model.off(`change:${name}`, listener);
    clearTimeout(timer);
    if (image.src) URL.revokeObjectURL(image.src);
  };
}

export default { render };
