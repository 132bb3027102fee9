// The viewer of the tab Browse. gradio's HTML component gives `element`, `props` and `watch`. Whatever changes data is a
// command to the server, written into the hidden field #browse-command; how a sample is looked at stays on the page.

const root = element.querySelector(".browse");
const memoryKey = `artiagent-browse:${root.dataset.place}`;
const SVG = "http://www.w3.org/2000/svg";
const PATIENCE = 15000;

let told = null;       // what the server told last
let sample = null;     // the sample in it
let parts = null;      // elements that change without a new sample
let side = "artifact"; // name of the picture that is shown
let overlay = true;
let view = null;       // x, y, width and height of what is seen, in pixels of the image
let chosen = null;     // number of a region
let mode = null;       // {name: "box" or "type", …} while something is edited
let busy = 0, turn = 0;

function make(tag, attributes = {}, ...children) {
  const made = tag.startsWith("svg:") ? document.createElementNS(SVG, tag.slice(4)) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter(child => child !== null));
  return made;
}

function remembered() {
  try { return JSON.parse(localStorage.getItem(memoryKey)) || {}; } catch { return {}; }
}

function send(command) {
  const field = document.querySelector("#browse-command textarea, #browse-command input");
  if (!field || (busy && Date.now() - busy < PATIENCE)) return;
  busy = Date.now();
  turn += 1;
  root.classList.add("busy");
  const about = sample ? {key: sample.key, stamp: sample.stamp} : {};
  field.value = JSON.stringify({...about, ...command, turn});
  field.dispatchEvent(new Event("input", {bubbles: true}));
}

function take(value) {
  if (!value) return;
  busy = 0;
  root.classList.remove("busy");
  const isNew = !sample || !value.sample || String(sample.key) !== String(value.sample.key);
  told = value;
  sample = value.sample;
  mode = null;
  if (value.memory) localStorage.setItem(memoryKey, JSON.stringify(value.memory));
  if (value.who && root.dataset.names === "0") localStorage.setItem("artiagent-name", value.who);
  if (sample) {
    const numbers = sample.regions.map(region => region.number);
    if (isNew) { view = [0, 0, ...sample.size]; chosen = null; }
    if (value.region !== null && value.region !== undefined) chosen = value.region;
    if (!numbers.includes(chosen)) chosen = numbers.length ? numbers[0] : null;
    if (!sample.pictures.some(picture => picture.name === side)) side = sample.pictures.at(-1).name;
  }
  build();
  if (told.mode === "mask") setTimeout(() => document.querySelector("#browse-editor")?.scrollIntoView({block: "center"}), 300);
}

function region() { return sample ? sample.regions.find(one => one.number === chosen) || null : null; }

// --- what is on the page -------------------------------------------------------------------------------------------

function build() {
  const message = make("div", {class: told.error ? "message error" : "message", role: "status", "aria-live": "polite",
                               id: "browse-message"}, told.message || "");
  if (!sample) { parts = null; root.replaceChildren(message, keysHelp()); return; }
  const badges = [];
  const word = {accept: "accepted", reject: "rejected"}[sample.verdict];
  if (word) badges.push(make("span", {class: `badge ${sample.verdict}`}, word));
  if (sample.history.some(line => !/^(accept|reject) /.test(line))) badges.push(make("span", {class: "badge changed"}, "changed"));
  if (sample.void) badges.push(make("span", {class: "badge void", title: "They were made on other images or regions"}, "has void edits"));
  const clean = sample.has_artifact === false ? [make("span", {class: "badge"}, "clean")] : [];
  const head = make("div", {class: "head"}, make("span", {class: "name", id: "browse-name-of-sample"}, sample.key[1]),
    make("span", {class: "where", id: "browse-where"}, told.where), ...clean, ...badges);
  const svg = make("svg:svg", {role: "img", "aria-label": `Image ${sample.key[1]}`});
  const pictures = Object.fromEntries(sample.pictures.map(({name, url}) =>
    [name, make("svg:image", {href: url, width: sample.size[0], height: sample.size[1]})]));
  const drawn = make("svg:g");
  const draft = make("svg:rect", {fill: "rgba(255,255,255,0.12)", stroke: "white", "stroke-width": 2,
    "stroke-dasharray": "6 4", "vector-effect": "non-scaling-stroke"});
  svg.append(...Object.values(pictures), drawn, draft);
  parts = {svg, pictures, drawn, draft, labels: [], boxes: [],
    side: make("div", {class: "side-name", id: "browse-side"}), zoom: make("div", {class: "zoom-name"}),
    mode: make("div", {class: "mode", id: "browse-mode"}), list: make("div")};
  for (const one of sample.regions) {
    if (one.mask) drawn.append(make("svg:image", {href: one.mask, width: sample.size[0], height: sample.size[1]}));
    if (!one.box) continue;
    const [left, top, right, bottom] = one.box;
    const box = make("svg:rect", {x: left, y: top, width: right - left, height: bottom - top, fill: "none",
      stroke: one.color, "vector-effect": "non-scaling-stroke"});
    const label = make("svg:text", {fill: "white", stroke: one.color, "paint-order": "stroke", "stroke-linejoin": "round",
      "font-weight": 700, "font-family": "system-ui, sans-serif"}, `${one.number + 1} ${one.type}`);
    drawn.append(box, label);
    parts.boxes.push([box, one]);
    parts.labels.push([label, one]);
  }
  listen(svg);
  const stage = make("div", {class: "stage"}, svg, parts.side, parts.zoom, parts.mode);
  const texts = make("dl", {}, ...sample.texts.flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)]),
    ...(sample.history.length ? [make("dt", {}, "Edits"), make("dd", {}, ...sample.history.flatMap(line => [line, make("br")]))] : []));
  const left = make("div", {}, stage, bar()), right = make("div", {}, parts.list, texts, keysHelp());
  root.replaceChildren(head, message, make("div", {class: "main"}, left, right));
  paint();
}

function paint() {
  if (!parts) return;
  const unit = view[2] / Math.max(1, parts.svg.clientWidth || 640);
  parts.svg.setAttribute("viewBox", view.join(" "));
  parts.svg.classList.toggle("sharp", unit < 0.5);
  parts.svg.style.touchAction = mode && mode.name === "box" || zoom() > 1 ? "none" : "pan-y";
  for (const [name, picture] of Object.entries(parts.pictures)) picture.style.display = name === side ? "" : "none";
  parts.drawn.style.display = overlay && side !== "clean" ? "" : "none";
  for (const [box, one] of parts.boxes) {
    box.setAttribute("stroke-width", one.number === chosen ? 3 : 1.5);
    box.style.display = mode && mode.name === "box" && one.number === mode.region ? "none" : "";
  }
  for (const [label, one] of parts.labels) {
    label.setAttribute("font-size", 13 * unit);
    label.setAttribute("stroke-width", 4 * unit);
    label.setAttribute("x", Math.max(one.box[0], view[0]) + 3 * unit);
    const above = one.box[1] - 5 * unit;
    label.setAttribute("y", above - 13 * unit > view[1] ? above : one.box[1] + 15 * unit);
  }
  const isBox = mode && mode.name === "box";
  parts.draft.style.display = isBox ? "" : "none";
  if (isBox) {
    const [left, top, right, bottom] = mode.box;
    for (const [name, value] of Object.entries({x: left, y: top, width: right - left, height: bottom - top}))
      parts.draft.setAttribute(name, value);
  }
  const names = {clean: "clean image", artifact: "artifact image", image: ""};
  parts.side.textContent = (names[side] ?? side) + (overlay || side === "clean" ? "" : `${names[side] ? ", " : ""}without labels`);
  parts.side.style.display = parts.side.textContent ? "" : "none";
  parts.zoom.textContent = `${zoom().toFixed(1)}×`;
  parts.zoom.style.display = zoom() > 1.01 ? "" : "none";
  parts.mode.style.display = mode ? "" : "none";
  if (mode) parts.mode.replaceChildren(...(isBox ? boxHelp() : typeHelp()));
  parts.list.replaceChildren(...sample.regions.map(one => regionButton(one)),
    ...(sample.regions.length ? [] : [make("p", {class: "quiet"}, "No region is marked.")]));
}

function regionButton(one) {
  return make("button", {class: one.number === chosen ? "region chosen" : "region", style: `--region: ${one.color}`,
    "aria-pressed": String(one.number === chosen), onclick: () => { chosen = one.number; paint(); }},
    make("div", {class: "title"}, `${one.number + 1} ${one.type}`),
    one.label ? make("div", {}, one.label) : null,
    one.caption ? make("div", {class: "quiet"}, one.caption) : null,
    one.number === chosen && one.facts.length
      ? make("div", {class: "facts"}, ...one.facts.map(([name, value]) => make("span", {}, `${name} ${value}`))) : null);
}

function bar() {
  const button = (text, key, act, kind = "") =>
    make("button", {class: kind, onclick: () => { act(); root.focus({preventScroll: true}); }}, text, make("kbd", {}, key));
  const both = sample.pictures.length > 1;
  return make("div", {class: "bar"},
    button("Previous", "←", () => send({do: "previous"})), button("Next", "→", () => send({do: "next"})),
    button("Accept", "A", () => send({do: "accept"}), "accept"), button("Reject", "R", () => send({do: "reject"}), "reject"),
    both ? button("Clean", "C", toggleSide) : null,
    button("Type", "T", beginType), button("Box", "B", () => beginBox(false)), button("Mask", "M", beginMask),
    sample.can_add ? button("New", "N", () => beginBox(true)) : null, button("Undo", "U", () => send({do: "undo"})));
}

function keysHelp() {
  const keys = [["← →", "previous, next"], ["A", "accept"], ["R", "reject"], ["C", "clean or artifact image"], ["V", "labels on, off"],
    ["↑ ↓ 1–9", "another region"], ["T", "its type"], ["B", "its box"], ["M", "its mask"], ["N", "new region"], ["Del", "take it out"],
    ["+ − 0", "zoom"], ["Shift ← → ↑ ↓", "move the view"], ["U", "undo my last edit"], ["F", "filter"]];
  const shown = sample && !sample.can_add ? keys.filter(([key]) => key !== "N") : keys;
  const lines = shown.flatMap(([key, what]) => [make("span", {}, ...key.split(" ").map(one => make("kbd", {}, one))), make("span", {}, what)]);
  return make("div", {class: "keys", id: "browse-keys"}, ...lines);
}

// --- looking ---------------------------------------------------------------------------------------------------------

function zoom() { return sample.size[0] / view[2]; }

function zoomTo(factor, x = view[0] + view[2] / 2, y = view[1] + view[3] / 2) {
  const now = Math.min(Math.max(zoom() * factor, 1), Math.max(4, sample.size[0] / 24));
  const [across, down] = [(x - view[0]) / view[2], (y - view[1]) / view[3]];
  const [width, height] = [sample.size[0] / now, sample.size[1] / now];
  look([x - across * width, y - down * height, width, height]);
}

function look([left, top, width, height]) {
  view = [Math.min(Math.max(left, 0), sample.size[0] - width), Math.min(Math.max(top, 0), sample.size[1] - height), width, height];
  paint();
}

function toggleSide() {
  const names = sample.pictures.map(picture => picture.name);
  side = names[(names.indexOf(side) + 1) % names.length];
  paint();
}

function choose(step) {
  const numbers = sample.regions.map(one => one.number);
  if (!numbers.length) return;
  chosen = numbers[(numbers.indexOf(chosen) + step + numbers.length) % numbers.length];
  paint();
}

function pointOf(event) {
  const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(parts.svg.getScreenCTM().inverse());
  return [point.x, point.y];
}

function listen(svg) {
  let from = null;
  svg.addEventListener("pointerdown", event => {
    from = {point: pointOf(event), view: [...view]};
    if (mode || zoom() > 1) svg.setPointerCapture(event.pointerId);
  });
  svg.addEventListener("pointermove", event => {
    if (!from) return;
    const [x, y] = pointOf(event);
    if (mode && mode.name === "box") {
      mode.box = bounded([Math.min(x, from.point[0]), Math.min(y, from.point[1]), Math.max(x, from.point[0]), Math.max(y, from.point[1])]);
      paint();
    } else if (zoom() > 1) look([view[0] + from.point[0] - x, view[1] + from.point[1] - y, view[2], view[3]]);
  });
  svg.addEventListener("pointerup", event => {
    const [x, y] = pointOf(event);
    const still = from && Math.hypot(x - from.point[0], y - from.point[1]) < 3 * view[2] / svg.clientWidth;
    if (still && !mode) {
      const under = sample.regions.find(({box}) => box && x >= box[0] && x < box[2] && y >= box[1] && y < box[3]);
      if (under) { chosen = under.number; paint(); }
    }
    from = null;
  });
  svg.addEventListener("dblclick", event => { if (!mode) zoomTo(2, ...pointOf(event)); });
  svg.addEventListener("wheel", event => {
    if (!event.ctrlKey && zoom() <= 1) return; // the page scrolls
    event.preventDefault();
    zoomTo(Math.exp(-event.deltaY / 300), ...pointOf(event));
  }, {passive: false});
}

// --- editing ---------------------------------------------------------------------------------------------------------

function bounded(box) {
  const [width, height] = sample.size;
  const [left, top] = [Math.min(Math.max(Math.round(box[0]), 0), width - 1), Math.min(Math.max(Math.round(box[1]), 0), height - 1)];
  return [left, top, Math.min(Math.max(Math.round(box[2]), left + 1), width), Math.min(Math.max(Math.round(box[3]), top + 1), height)];
}

function beginBox(isNew) {
  if (isNew && !sample.can_add) return say("A pair has the artifacts that were made, and none can be added.");
  const one = region();
  if (!isNew && !one) return say("There is no region to edit.");
  const middle = [view[0] + 0.35 * view[2], view[1] + 0.35 * view[3], view[0] + 0.65 * view[2], view[1] + 0.65 * view[3]];
  mode = {name: "box", region: isNew ? null : one.number, box: bounded(isNew || !one.box ? middle : one.box)};
  if (side === "clean") side = "artifact";
  paint();
  root.focus({preventScroll: true});
}

function boxHelp() {
  const key = text => make("kbd", {}, text);
  return [`Box ${mode.box.join(", ")}. `, key("← ↑ → ↓"), " move, ", key("Shift"), " with them size, or draw it. ", key("Enter"), " save, ", key("Esc"), " leave it."];
}

function boxKey(event) {
  const step = Math.max(1, Math.round(view[2] / 160)), [left, top, right, bottom] = mode.box;
  const by = {ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step]}[event.key];
  if (by && event.shiftKey) mode.box = bounded([left, top, right + by[0], bottom + by[1]]);
  else if (by) {
    const x = Math.min(Math.max(by[0], -left), sample.size[0] - right), y = Math.min(Math.max(by[1], -top), sample.size[1] - bottom);
    mode.box = [left + x, top + y, right + x, bottom + y];
  } else if (event.key === "Enter") {
    send(mode.region === null ? {do: "add", box: mode.box, type: sample.types[0].name} : {do: "box", region: mode.region, box: mode.box});
    return true;
  } else return false;
  paint();
  return true;
}

function beginType() {
  const one = region();
  if (!one) return say("There is no region to give a type.");
  mode = {name: "type", region: one.number, index: sample.types.findIndex(kind => kind.name === one.type)};
  paint();
  root.focus({preventScroll: true});
}

function typeHelp() {
  const kinds = sample.types.map((kind, index) => make("span", {class: index === mode.index ? "chosen" : "", style: "cursor: pointer",
    onclick: () => setType(index)}, ...(index < 9 ? [make("kbd", {}, String(index + 1)), " "] : []), kind.name));
  return [make("div", {class: "types", role: "listbox"}, ...kinds), make("kbd", {}, "↑ ↓"), " and ", make("kbd", {}, "Enter"), ", or a number; ", make("kbd", {}, "Esc"), " leave it."];
}

function setType(index) { send({do: "relabel", region: mode.region, type: sample.types[index].name}); }

function typeKey(event) {
  const count = sample.types.length, number = /^[1-9]$/.test(event.key) ? Number(event.key) - 1 : -1;
  if (number >= 0 && number < count) setType(number);
  else if (event.key === "Enter") setType(mode.index);
  else if (event.key === "ArrowDown" || event.key === "ArrowRight") { mode.index = (mode.index + 1) % count; paint(); }
  else if (event.key === "ArrowUp" || event.key === "ArrowLeft") { mode.index = (mode.index + count - 1) % count; paint(); }
  else return false;
  return true;
}

function beginMask() {
  if (!region()) return say("There is no region to paint.");
  send({do: "mask", region: chosen});
}

function say(text) {
  const place = root.querySelector(".message");
  place.textContent = text;
  place.className = "message error";
}

// --- keys ------------------------------------------------------------------------------------------------------------

function lookKey(event) {
  const step = 0.15 * view[2];
  const by = {ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step]}[event.key];
  if (by && event.shiftKey) { look([view[0] + by[0], view[1] + by[1], view[2], view[3]]); return true; }
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const acts = {
    ArrowLeft: () => send({do: "previous"}), ArrowRight: () => send({do: "next"}),
    Home: () => send({do: "first"}), End: () => send({do: "last"}),
    ArrowUp: () => choose(-1), ArrowDown: () => choose(1),
    a: () => send({do: "accept"}), r: () => send({do: "reject"}), u: () => send({do: "undo"}),
    c: toggleSide, v: () => { overlay = !overlay; paint(); },
    t: beginType, b: () => beginBox(false), n: () => beginBox(true), m: beginMask,
    Delete: () => region() ? send({do: "remove", region: chosen}) : say("There is no region to take out."),
    "+": () => zoomTo(1.5), "=": () => zoomTo(1.5), "-": () => zoomTo(1 / 1.5), "−": () => zoomTo(1 / 1.5),
    "0": () => look([0, 0, ...sample.size]), f: openFilters,
  };
  if (/^[1-9]$/.test(key)) {
    const one = sample.regions.find(one => one.number === Number(key) - 1);
    if (one) { chosen = one.number; paint(); }
    return true;
  }
  if (!Object.hasOwn(acts, key)) return false;
  acts[key]();
  return true;
}

function maskKey(event) {
  const buttons = {Enter: "save", Escape: "cancel", "+": "grow", "=": "grow", "-": "shrink", f: "fill"};
  const button = document.querySelector(`#browse-${buttons[event.key]}`);
  if (button) button.click();
  return Boolean(button);
}

function openFilters() {
  const field = () => document.querySelector("#browse-find input, #browse-find textarea");
  if (!field() || !field().offsetParent) document.querySelector("#browse-filters button")?.click();
  setTimeout(() => field()?.focus(), 150);
}

function onKey(event) {
  if (!root.isConnected) { document.removeEventListener("keydown", onKey); return; }
  if (!root.offsetParent || event.ctrlKey || event.metaKey || event.altKey) return;
  const target = event.target instanceof Element ? event.target : document.body;
  if (target.closest("input, textarea, select, [contenteditable=true]")) {
    if (event.key === "Escape") { target.blur(); root.focus({preventScroll: true}); }
    return;
  }
  if ((event.key === "Enter" || event.key === " ") && target.closest("button, a, summary")) return;
  if (told && told.mode === "mask") { if (maskKey(event)) event.preventDefault(); return; }
  if (!sample) { if (event.key.toLowerCase() === "f") { openFilters(); event.preventDefault(); } return; }
  if (mode && event.key === "Escape") { mode = null; paint(); event.preventDefault(); return; }
  const handled = mode ? (mode.name === "box" ? boxKey(event) : typeKey(event)) : lookKey(event);
  if (handled) event.preventDefault();
}

document.addEventListener("keydown", onKey);
window.addEventListener("resize", () => { if (root.offsetParent) paint(); });
watch("value", () => take(props.value));

// Each time the tab comes into view, ask for the place that was looked at last: pairs may have been kept meanwhile.
let hidden = true;
function lookForView() {
  if (!root.isConnected) return;
  if (!root.offsetParent) hidden = true;
  else if (hidden && document.querySelector("#browse-command textarea, #browse-command input")) {
    hidden = false;
    send({do: "open", memory: remembered(), name: localStorage.getItem("artiagent-name") || ""});
  }
  setTimeout(lookForView, 250);
}
lookForView();
