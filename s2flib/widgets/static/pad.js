// Drawing pad. A drawing is a background picture plus a list of strokes {w, ink, erase, p: [x, y, pressure, ...]}
// in canvas pixels; Python draws the same list, so what is seen here is what the encoder gets.
const KEY_STEP = 8;
const PATIENCE = 60_000;   // ms that an upload may take before the tools come back

function radius(stroke, pressure) { return Math.max(0.5, (stroke.w * (0.35 + 0.65 * pressure)) / 2); }

// One stroke, opaque, on a clear canvas; the caller lays it down with the stroke's darkness.
function drawStroke(ctx, stroke) {
  const { p } = stroke;
  ctx.strokeStyle = ctx.fillStyle = stroke.erase ? "#fff" : "#000";
  ctx.lineCap = "round";
  for (let i = 0; i < p.length; i += 3) {
    const r = radius(stroke, p[i + 2]);
    if (i === 0) { ctx.beginPath(); ctx.arc(p[0], p[1], r, 0, 7); ctx.fill(); continue; }
    ctx.lineWidth = r + radius(stroke, p[i - 1]);
    ctx.beginPath(); ctx.moveTo(p[i - 3], p[i - 2]); ctx.lineTo(p[i], p[i + 1]); ctx.stroke();
  }
}

function layer(size) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = size;
  return canvas;
}

function make(tag, attributes = {}, text = "") {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.textContent = text;
  return node;
}

function slider(label, attributes) {
  const wrap = make("label", { class: "control" }, label);
  const input = make("input", { type: "range", "aria-label": label, ...attributes });
  wrap.append(input);
  return [wrap, input];
}

function render({ model, el }) {
  const size = model.get("size");
  const limit = model.get("max_points");
  const root = make("div", { class: "s2f", style: `width:${model.get("width_px")}px` });
  const bar = make("div", { class: "bar", role: "toolbar", "aria-label": "Drawing tools" });
  const pen = make("button", { type: "button", "aria-pressed": "true", title: "Pen (P)" }, "Pen");
  const eraser = make("button", { type: "button", "aria-pressed": "false", title: "Eraser (E)" }, "Eraser");
  const [widthWrap, width] = slider("Width", { min: 1, max: 48, step: 1, value: model.get("pen_width") });
  const [inkWrap, ink] = slider("Darkness", { min: 0.1, max: 1, step: 0.05, value: model.get("pen_ink") });
  const undo = make("button", { type: "button", title: "Undo (Ctrl+Z)" }, "Undo");
  const redo = make("button", { type: "button", title: "Redo (Ctrl+Y)" }, "Redo");
  const clear = make("button", { type: "button", title: "Clear (Delete)" }, "Clear");
  const open = make("label", { class: "open", title: "Open a picture of a sketch, or drop it on the paper" }, "Open…");
  const file = make("input", { type: "file", accept: "image/*", "aria-label": "Open a picture of a sketch" });
  open.append(file);
  bar.append(pen, eraser, widthWrap, inkWrap, undo, redo, clear, open);

  const paper = make("canvas", { class: "paper", tabindex: "0", role: "application", "data-lm-suppress-shortcuts": "true",
    "aria-label": "Paper. Arrow keys move the pencil, space puts it down or lifts it, P pen, E eraser, " +
      "square brackets change the width, Control Z undoes, Delete clears." });
  paper.width = paper.height = size;
  const status = make("p", { class: "status", role: "status", "aria-live": "polite" });
  const hint = make("p", { class: "hint" },
    "Draw with mouse, finger or pen (pressure counts). Keys: arrows move, space draws, P/E, [ ], Ctrl+Z, Delete.");
  root.append(bar, paper, status, hint);
  el.append(root);

  const screen = paper.getContext("2d");
  const base = layer(size).getContext("2d");      // background and finished strokes
  const live = layer(size).getContext("2d");      // the stroke being drawn
  let background = null;                          // decoded picture
  let past = [], future = [];                     // snapshots for undo and redo: references, not copies
  let reading = 0, decoding = 0;                  // serial of the upload that Python works on, 0: none; of the last decoding
  let stroke = null, pointer = null, tool = "pen", cursor = null, fromHere = false, penSeen = 0;

  const state = () => ({ strokes: model.get("strokes"), background: model.get("background") });

  function composite(target, source, one) {
    target.globalAlpha = one.erase ? 1 : one.ink;
    target.drawImage(source.canvas, 0, 0);
    target.globalAlpha = 1;
  }
  function paint() {
    screen.drawImage(base.canvas, 0, 0);
    if (stroke) composite(screen, live, stroke);
    if (cursor && document.activeElement === paper) {
      screen.strokeStyle = stroke ? "#dc2626" : "#2563eb"; screen.lineWidth = 2;
      screen.beginPath(); screen.arc(cursor.x, cursor.y, Math.max(4, width.value / 2), 0, 7); screen.stroke();
    }
  }
  function redraw() {
    base.fillStyle = "#fff"; base.fillRect(0, 0, size, size);
    if (background) base.drawImage(background, 0, 0, size, size);
    for (const one of model.get("strokes")) {
      live.clearRect(0, 0, size, size); drawStroke(live, one); composite(base, live, one);
    }
    live.clearRect(0, 0, size, size);
    tools();
    paint();
  }
  function tools() {
    undo.disabled = reading || past.length === 0; redo.disabled = reading || future.length === 0;
    clear.disabled = file.disabled = Boolean(reading);
    paper.classList.toggle("busy", Boolean(reading)); paper.setAttribute("aria-busy", String(Boolean(reading)));
  }
  async function readBackground() {
    const mine = ++decoding;                      // a picture decoded late never replaces a newer one
    const data = model.get("background");
    const bytes = data && data.byteLength ? data : null;
    let made = null, failed = false;
    try { made = bytes ? await createImageBitmap(new Blob([bytes], { type: "image/png" })) : null; } catch { failed = true; }
    if (mine !== decoding) return;
    background = made;
    if (failed) say("This browser could not show the picture: clear the paper, or open another one.", true);
    redraw();
  }
  function say(text, bad = false) { status.textContent = text; status.classList.toggle("bad", bad && text !== ""); }
  function put(next) {
    fromHere = true;
    model.set("strokes", next.strokes); model.set("background", next.background); model.save_changes();
    fromHere = false;
    readBackground();
  }
  function remember() { past.push(state()); if (past.length > 200) past.shift(); future = []; }
  function step(from, to) {
    if (stroke || reading || !from.length) return;
    to.push(state()); put(from.pop());
  }
  function choose(name) {
    tool = name;
    pen.setAttribute("aria-pressed", String(name === "pen"));
    eraser.setAttribute("aria-pressed", String(name === "eraser"));
  }

  function begin(x, y, pressure, erase) {
    if (reading) { say("Wait until the picture is read.", true); return false; }
    const used = model.get("strokes").reduce((n, s) => n + s.p.length / 3, 0);
    if (used >= limit) { say("The paper is full: undo or clear before drawing on.", true); return false; }
    stroke = { w: Number(width.value), ink: Number(ink.value), erase, p: [], room: limit - used };
    extend(x, y, pressure);
    return true;
  }
  function extend(x, y, pressure) {
    const { p } = stroke, n = p.length;
    const round = (v, k) => Math.round(v * k) / k;
    if (n && Math.hypot(x - p[n - 3], y - p[n - 2]) < 0.75) return;
    if (n / 3 >= stroke.room) return;
    p.push(round(Math.min(Math.max(x, 0), size), 10), round(Math.min(Math.max(y, 0), size), 10), round(pressure, 100));
    live.clearRect(0, 0, size, size); drawStroke(live, stroke); paint();
  }
  function finish(keep) {
    if (!stroke) return;
    const { room, ...done } = stroke;
    stroke = null;
    live.clearRect(0, 0, size, size);
    if (keep) {
      remember(); say("");
      put({ strokes: [...model.get("strokes"), done], background: model.get("background") });
    } else paint();
  }

  function where(event) {
    const box = paper.getBoundingClientRect();
    const pressure = event.pointerType === "pen" ? event.pressure : 1;   // mouse and most fingers report no force
    return [((event.clientX - box.left) * size) / box.width, ((event.clientY - box.top) * size) / box.height, pressure];
  }
  paper.addEventListener("pointerdown", (event) => {
    if (pointer !== null || event.button > 0 && event.button !== 5) return;
    if (event.pointerType === "pen") penSeen = Date.now();
    if (event.pointerType === "touch" && Date.now() - penSeen < 5000) return;   // a palm beside a pen
    event.preventDefault(); paper.focus({ preventScroll: true });
    finish(true); cursor = null;
    if (!begin(...where(event), tool === "eraser" || (event.buttons & 32) !== 0)) return;
    pointer = event.pointerId;
    try { paper.setPointerCapture(pointer); } catch { /* the pointer has gone already */ }
  });
  paper.addEventListener("pointermove", (event) => {
    if (event.pointerId !== pointer || !stroke) return;
    if (event.pointerType === "pen") penSeen = Date.now();
    const events = event.getCoalescedEvents?.() ?? [];
    for (const one of events.length ? events : [event]) extend(...where(one));
  });
  const lift = (keep) => (event) => {
    if (event.pointerId !== pointer) return;
    pointer = null; finish(keep);
  };
  paper.addEventListener("pointerup", lift(true));
  paper.addEventListener("pointercancel", lift(false));

  paper.addEventListener("keydown", (event) => {
    const command = event.ctrlKey || event.metaKey, key = event.key.toLowerCase();
    const move = { arrowleft: [-1, 0], arrowright: [1, 0], arrowup: [0, -1], arrowdown: [0, 1] }[key];
    let used = true;
    if (command && key === "z") event.shiftKey ? step(future, past) : step(past, future);
    else if (command && key === "y") step(future, past);
    else if (command || event.altKey) used = false;
    else if (move) {
      cursor ??= { x: size / 2, y: size / 2 };
      const by = event.shiftKey ? 1 : KEY_STEP;
      cursor.x = Math.min(Math.max(cursor.x + by * move[0], 0), size);
      cursor.y = Math.min(Math.max(cursor.y + by * move[1], 0), size);
      if (stroke && pointer === null) extend(cursor.x, cursor.y, 1);
      paint();
    } else if (key === " ") {
      cursor ??= { x: size / 2, y: size / 2 };
      if (stroke && pointer === null) { finish(true); say("Pencil up"); }
      else if (!stroke && begin(cursor.x, cursor.y, 1, tool === "eraser")) say("Pencil down");
    } else if (key === "escape" && stroke && pointer === null) { finish(false); say("Stroke dropped"); }
    else if (key === "p") choose("pen");
    else if (key === "e") choose("eraser");
    else if (key === "[") width.value = Number(width.value) - 1;
    else if (key === "]") width.value = Number(width.value) + 1;
    else if (key === "delete" || key === "backspace") clear.click();
    else used = false;
    if (used) { event.preventDefault(); event.stopPropagation(); }
  });
  paper.addEventListener("blur", () => { if (pointer === null) finish(true); cursor = null; paint(); });

  pen.addEventListener("click", () => choose("pen"));
  eraser.addEventListener("click", () => choose("eraser"));
  undo.addEventListener("click", () => step(past, future));
  redo.addEventListener("click", () => step(future, past));
  clear.addEventListener("click", () => {
    if (stroke || reading || (!model.get("strokes").length && !background)) return;
    remember(); say(""); put({ strokes: [], background: new DataView(new ArrayBuffer(0)) });
  });

  // Python replaces the drawing, so nothing may be drawn until it has answered: a stroke would be lost.
  async function upload(picked) {
    if (reading) { say("Wait until the picture is read.", true); return; }
    if (!picked) { say("That was no file: drop a picture of a sketch.", true); return; }
    const most = model.get("max_upload");
    if (picked.size > most) {
      say(`${picked.name} is larger than ${Math.floor(most / 2 ** 20)} MB: make it smaller first.`, true); return;
    }
    finish(true); pointer = null;
    const mine = reading = model.get("answered") + 1;
    tools(); say(`Reading ${picked.name} …`);
    try {
      model.send({ kind: "upload", name: picked.name, serial: mine }, undefined, [await picked.arrayBuffer()]);
    } catch {
      free(); say(`${picked.name} could not be read: choose it again.`, true); return;
    }
    setTimeout(() => {
      if (reading === mine) { free(); say("Python does not answer: run the cell again, or restart the kernel.", true); }
    }, PATIENCE);
  }
  function free() { reading = 0; tools(); }
  const answered = () => { if (reading && model.get("answered") >= reading) free(); };
  file.addEventListener("change", () => { if (file.files.length) upload(file.files[0]); file.value = ""; });
  paper.addEventListener("dragover", (event) => { event.preventDefault(); paper.classList.add("over"); });
  paper.addEventListener("dragleave", () => paper.classList.remove("over"));
  paper.addEventListener("drop", (event) => {
    event.preventDefault(); paper.classList.remove("over"); upload(event.dataTransfer.files[0]);
  });

  // Python changed the drawing (an upload, or code): keep what was there for undo.
  // Strokes and background may change one after the other in one message: that is one step back, not two.
  let shown = state(), pending = false;
  const outside = () => {
    if (fromHere) { shown = state(); return; }
    if (pending) return;
    pending = true; past.push(shown); future = [];
    queueMicrotask(() => { pending = false; shown = state(); readBackground(); });
  };
  const message = () => { const text = model.get("message"); say(text, text !== "" && !model.get("message_ok")); };
  model.on("change:strokes", outside);
  model.on("change:background", outside);
  model.on("change:message", message);
  model.on("change:message_ok", message);
  model.on("change:said", message);               // the same text again is a new message
  model.on("change:answered", answered);
  message();
  readBackground();
  return () => {
    model.off("change:strokes", outside); model.off("change:background", outside);
    for (const name of ["message", "message_ok", "said"]) model.off(`change:${name}`, message);
    model.off("change:answered", answered);
  };
}

export default { render };
