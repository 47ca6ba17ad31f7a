// The page of `scratchvae explore`. What it knows of the model, scratchvae/explorer/__init__.py has
// written into it; decoder and plane are in latent.js.
"use strict";

const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);
const { latent, order, labels, prior, n } = data;
const decoder = readDecoder(data.decoder);
const plane = byId("plane"), all = [...Array(n).keys()];
const isCloud = data.sigma !== null;

const rowsOf = (base64, width) => {
  const flat = readNumbers({ float32: base64 });
  return all.map((i) => flat.subarray(i * width, (i + 1) * width));
};
const mu = rowsOf(data.mu, latent);
const sigma = isCloud ? rowsOf(data.sigma, latent) : mu.map(() => new Float32Array(latent));

// How far the plane reaches in the dimensions on its axes, and the sliders in all: the prior's two
// sigma and all examples are within.
const reachOf = (dimensions) =>
  1.07 * Math.max(2.6, ...mu.map((code) => Math.max(...dimensions.map((j) => Math.abs(code[j])))));
const range = Math.ceil(10 * reachOf(order)) / 10;
const view = { zoom: 1, centre: [0, 0] }; // which part of the plane is seen, and how large
const MAX_ZOOM = 64;
let whole, reach, scale; // how far the plane and what is seen of it reach; units of its viewBox to 1

const DRAWS = 32, SHOWN = 8, SAMPLES = 24, STEPS = 8;
const state = {
  mode: "look",
  // Those with the largest KL. Of two the first lies across; null: there is no second one.
  axes: latent === 1 ? [0, null] : latent === 2 ? [0, 1] : order.slice(0, 2),
  z: Array(latent).fill(0), // what is decoded: the ring, or the centre of the cloud
  width: Array(latent).fill(0), // sigma of the cloud
  image: 0, // of which the cloud is
  ends: [0, 1], // of the walk
  samples: [], // of the prior
  eps: [],
  label: 0,
  only: null, // the label that is shown alone
  held: false, // the ring does not follow the mouse
};

const drawCode = () => Float64Array.from({ length: latent }, drawNormal);
const meanAt = (z) => decode(decoder, z, state.label).mean;
const onAxes = (code) => state.axes.map((axis) => (axis === null ? 0 : code[axis]));
// Where there is one dimension only, points that would cover each other stand above each other.
const placeOf = (i) => (latent > 1 ? onAxes(mu[i]) : [mu[i][0], (((i * 0.618) % 1) - 0.5) * whole]);
// A Gaussian's outline needs a height there as well; it means nothing.
const outlineOf = (width) => (latent > 1 ? onAxes(width) : [width[0], 10 / scale]);

// ---- Pictures of examples -----------------------------------------------------------------------

const ROW = { width: 240, height: 160 }; // pixels of the picture of a row of a table

// The size of a canvas for one example, and how the values of one become its pixels.
const size = data.image ?? ROW;
function show(canvas, values) {
  canvas.width = size.width;
  canvas.height = size.height;
  const context = canvas.getContext("2d");
  if (data.image) return paint(context, values, data.image);
  // A bar for each column, between the least and the most that the test examples have there.
  const { width, height } = ROW, step = width / values.length;
  context.fillStyle = "#0061a4";
  values.forEach((value, d) => {
    const span = data.high[d] - data.low[d] || 1;
    const share = Math.min(Math.max((value - data.low[d]) / span, 0), 1);
    const top = height - 2 - share * (height - 4);
    context.fillRect(d * step + step / 10, top, 0.8 * step, height - top);
  });
}

const rows = data.rows ? rowsOf(data.rows, data.decoder.size) : null;
const sprite = new Image();
function showExample(canvas, i) {
  if (rows) return show(canvas, rows[i]);
  canvas.width = size.width;
  canvas.height = size.height;
  const across = data.sprite.columns, context = canvas.getContext("2d");
  const x = (i % across) * size.width, y = Math.floor(i / across) * size.height;
  if (sprite.complete) context.drawImage(sprite, -x, -y);
}

// Of a table the decoded values too, by the names of their columns, as long as there are few.
const NAMED = 16;
function showValues(values) {
  const parts = [...values].flatMap((value, d) => ["dt", "dd"].map((tag) =>
    Object.assign(document.createElement(tag), { textContent: tag === "dt" ? (data.columns?.[d] ?? d + 1) : String(Number(value.toPrecision(4))).replace("-", "−") })));
  byId("values").replaceChildren(...parts);
}

function fillStrip(strip, codes, labelled) {
  while (strip.children.length < codes.length) {
    const button = document.createElement("button"), at = strip.children.length;
    button.type = "button";
    button.append(document.createElement("canvas"));
    button.addEventListener("click", () => strip.pick(at));
    strip.append(button);
  }
  codes.forEach((z, i) => {
    show(strip.children[i].firstChild, meanAt(z));
    strip.children[i].setAttribute("aria-label", labelled(i));
  });
}

// ---- The plane ----------------------------------------------------------------------------------

const svg = (name, attributes, text = "") => {
  const part = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) part.setAttribute(key, value);
  part.textContent = text;
  return part;
};
const subscript = (dimension) => [...String(dimension + 1)].map((c) => "₀₁₂₃₄₅₆₇₈₉"[c]).join("");

function drawAxes() {
  // The smallest of 1, 2, 5, 10, ... with at most four of them to each side.
  const power = 10 ** Math.floor(Math.log10(reach / 4));
  const step = [1, 2, 5, 10].find((s) => 4 * s * power >= reach) * power;
  const [first, second] = state.axes, { x: left, y: top } = plane.viewBox.baseVal;
  // A word stands beside its axis, or at the edge where that axis is out of sight.
  const column = (x) => Math.min(Math.max(x, left + 26), left + 374);
  const row = (y) => Math.min(Math.max(y, top + 34), top + 370);
  const room = (view.zoom > 1 ? 0.8 : 0.94) * reach; // where both are there, numbers leave the corners free
  const parts = [svg("path", { d: second === null ? `M${left} 0h400` : `M${left} 0h400M0 ${top}v400` })], names = [];
  state.axes.forEach((axis, along) => {
    if (axis === null) return;
    for (let k = Math.ceil((view.centre[along] - room) / step); k * step < view.centre[along] + room; k++) {
      if (k === 0) continue;
      const at = (along ? -scale : scale) * k * step;
      parts.push(svg("path", { d: along ? `M-4 ${at}h8` : `M${at} -4v8` }));
      names.push(svg("text", along ? { x: column(-14), y: at } : { x: at, y: row(15) }, say(k * step, Math.max(0, -Math.floor(Math.log10(step))))));
    }
  });
  const note = (y, text) => names.push(svg("text", { class: "start", x: left + 7, y: top + y }, text));
  if (second === null) note(16, "the height means nothing");
  if (prior?.standard) {
    for (const r of [1, 2]) {
      if (second === null) parts.push(svg("path", { class: "prior", d: `M${-r * scale} ${top}v400M${r * scale} ${top}v400` }));
      else parts.push(svg("circle", { class: "prior", r: r * scale }));
    }
    note(388, "dashed: the prior, 1σ and 2σ");
  } else if (prior) {
    prior.weights.forEach((weight, k) => {
      const [x, y] = onAxes(prior.mean[k]), [rx, ry] = outlineOf(prior.sigma[k]);
      const at = { cx: scale * x, cy: -scale * y, rx: scale * rx, ry: scale * ry };
      const share = Math.min(1, 0.35 + weight * prior.weights.length * 0.5);
      parts.push(svg("ellipse", { class: "prior", opacity: share, fill: "none", ...at }));
    });
    note(388, "dashed: the prior's Gaussians, 1σ");
  }
  names.push(svg("text", { x: left + 387, y: Math.min(Math.max(-12, top + 12), top + 350) }, `z${subscript(first)}`));
  if (second !== null) names.push(svg("text", { x: column(15), y: top + 12 }, `z${subscript(second)}`));
  byId("axis").replaceChildren(...parts);
  byId("names").replaceChildren(...names);
}

function drawCodes() {
  const ellipses = byId("show-ellipses").checked, parts = [];
  for (const i of all) {
    const [x, y] = placeOf(i), [rx, ry] = outlineOf(sigma[i]);
    const faded = state.only !== null && labels[i] !== state.only ? " faded" : "";
    const name = `digit-${labels ? labels[i] % 10 : ""}${faded}`, at = [scale * x, -scale * y].map((c) => c.toFixed(1));
    if (ellipses && !faded)
      parts.push(svg("ellipse", { class: name, cx: at[0], cy: at[1], rx: (scale * rx).toFixed(1), ry: (scale * ry).toFixed(1) }));
    if (labels) parts.push(svg("text", { class: name, x: at[0], y: at[1] }, labels[i]));
    else parts.push(svg("circle", { cx: at[0], cy: at[1], r: 2 }));
  }
  byId("codes").replaceChildren(...parts);
}

// Decoded pictures on a grid over all that is seen of the plane, the other dimensions as they are.
let tilesWait = 0, tilesOf = "";
// What they depend on besides the view: the label, and the dimensions that are not on the axes.
const beside = () => [state.label, ...state.z.map((c, j) => (state.axes.includes(j) ? 0 : c))].join();
function drawTiles() {
  tilesOf = beside();
  const shown = byId("show-tiles").checked;
  byId("tiles").toggleAttribute("hidden", !shown);
  const { x, y } = plane.viewBox.baseVal;
  for (const [key, value] of Object.entries({ x, y })) byId("tiles").setAttribute(key, value);
  plane.classList.toggle("tiled", shown);
  clearTimeout(tilesWait);
  if (!shown) return;
  tilesWait = setTimeout(() => {
    const across = 17, canvas = document.createElement("canvas"), { width, height } = size;
    const cell = document.createElement("canvas");
    canvas.width = across * width;
    canvas.height = across * height;
    const context = canvas.getContext("2d");
    for (let r = 0; r < across; r++)
      for (let c = 0; c < across; c++) {
        const z = [...state.z], at = [c, across - 1 - r].map((n, k) => view.centre[k] + ((n + 0.5) / across - 0.5) * 2 * reach);
        state.axes.forEach((axis, k) => axis !== null && (z[axis] = at[k]));
        show(cell, meanAt(z));
        context.drawImage(cell, c * width, r * height);
      }
    // Ink without paper: so it can lie in the plane, in light and dark.
    if (data.image?.channels === 1) {
      const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
      const ink = getComputedStyle(document.body).color.match(/\d+/g).map(Number);
      for (let i = 0; i < pixels.data.length; i += 4) {
        pixels.data[i + 3] = 255 - pixels.data[i];
        for (let k = 0; k < 3; k++) pixels.data[i + k] = ink[k];
      }
      context.putImageData(pixels, 0, 0);
    }
    byId("tiles").setAttribute("href", canvas.toDataURL());
  }, 120);
}

// ---- What is shown of the state -----------------------------------------------------------------

// log p(z) in nats; null for an autoencoder.
function logPrior(z) {
  if (!prior) return null;
  const normal = (mean, width) =>
    z.reduce((sum, c, j) => sum - 0.5 * ((c - mean[j]) / width[j]) ** 2 - Math.log(width[j]) - 0.5 * Math.log(2 * Math.PI), 0);
  if (prior.standard) return normal(Array(latent).fill(0), Array(latent).fill(1));
  const each = prior.weights.map((weight, k) => Math.log(weight) + normal(prior.mean[k], prior.sigma[k]));
  const top = Math.max(...each);
  return top + Math.log(each.reduce((sum, e) => sum + Math.exp(e - top), 0));
}

// The index of the example whose code is nearest, in all dimensions or in the plane.
function nearest(z, codes) {
  const distances = codes.map((code) => code.reduce((sum, c, j) => sum + (c - z[j]) ** 2, 0));
  return distances.indexOf(Math.min(...distances));
}

const kl = (m, s) => m.reduce((sum, c, j) => sum + 0.5 * (c ** 2 + s[j] ** 2 - 1) - Math.log(s[j]), 0);
const draws = () => state.eps.map((e) => state.z.map((c, j) => c + state.width[j] * e[j]));

function describeCode() {
  const place = state.axes.filter((axis) => axis !== null).map((axis) => `z${subscript(axis)} = ${say(state.z[axis], 2)}`);
  const density = logPrior(state.z);
  if (state.mode === "cloud" && isCloud) {
    const s = state.axes.filter((axis) => axis !== null).map((axis) => `σ${subscript(axis)} = ${say(state.width[axis], 2)}`);
    const cost = prior.standard ? ` KL ${say(kl(state.z, state.width), 2)} nats; the encoder's ${say(kl([...mu[state.image]], sigma[state.image]), 2)}.` : "";
    return `${place.join(", ").replaceAll("z", "μ")}, ${s.join(", ")}.${cost}`;
  }
  const far = latent > 2 && prior?.standard ? ` |z| = ${say(Math.hypot(...state.z), 1)}; a draw's is about ${say(Math.sqrt(latent), 1)}.` : "";
  return `${place.join(", ")}.${density === null ? "" : ` log p(z) = ${say(density, 1)}.`}${far}`;
}

function update() {
  const { mode, z } = state, [x, y] = onAxes(z);
  const mean = meanAt(z);
  show(byId("decoded"), mean);
  if (!byId("values").hidden) showValues(mean);
  const example = mode === "cloud" ? state.image : nearest(z, mu);
  showExample(byId("given"), example);
  const what = mode === "cloud" ? `the test example${labels ? `, a ${labels[example]}` : ""}` : `nearest code: ${labels ? `a ${labels[example]}` : `no. ${example + 1}`}`;
  byId("given-name").textContent = what;
  byId("said").textContent = describeCode();
  place(plane, "#ring circle", { cx: scale * x, cy: -scale * y });

  if (mode === "cloud") {
    const at = draws();
    placeCloud(byId("cloud"), scale, [x, y, ...outlineOf(state.width)], at.map(onAxes));
    state.axes.forEach((axis, k) => {
      if (axis === null || !isCloud) return;
      byId(`width-${k + 1}`).value = state.width[axis];
      byId(`width-${k + 1}-name`).textContent = `σ${subscript(axis)}`;
    });
    if (isCloud) fillStrip(byId("cloud-strip"), at.slice(0, SHOWN), (i) => `Draw ${i + 1}, decoded`);
  } else if (mode === "walk") {
    const [from, to] = state.ends.map((i) => mu[i]);
    const at = (t) => [...from].map((c, j) => c + t * (to[j] - c));
    const [[x1, y1], [x2, y2]] = [from, to].map(onAxes);
    const ring = (x, y) => `M${scale * x - 6} ${-scale * y}a6 6 0 1 0 12 0a6 6 0 1 0 -12 0`;
    byId("line").setAttribute("d", `M${scale * x1} ${-scale * y1}L${scale * x2} ${-scale * y2}${ring(x1, y1)}${ring(x2, y2)}`);
    fillStrip(byId("walk-strip"), [...Array(STEPS).keys()].map((k) => at(k / (STEPS - 1))), (k) => `Step ${k + 1} of ${STEPS}`);
  }
  for (const slider of byId("sliders").querySelectorAll("input")) {
    const j = Number(slider.dataset.dimension);
    slider.value = z[j];
    slider.nextElementSibling.value = say(z[j], 2);
  }
  byId("label").value = state.label;
  if (tilesOf !== beside()) drawTiles();
}

// A new place on the axes, or in one dimension alone.
function moveTo(z) {
  state.z = [...z];
  follow();
  update();
}
function move(j, value) {
  if (j === null) return;
  state.z[j] = Math.min(Math.max(value, -range), range);
}
const moveOnAxes = ([x, y]) => {
  move(state.axes[0], x);
  move(state.axes[1], y);
  update();
};

function chooseAxes() {
  whole = reachOf(state.axes.filter((axis) => axis !== null));
  showWhole();
}

// Draw the plane as `view` says. It does not go beyond the edge of the whole plane.
function drawView() {
  reach = whole / view.zoom;
  scale = 200 / reach;
  view.centre = view.centre.map((c) => Math.min(Math.max(c, reach - whole), whole - reach));
  const [x, y] = view.centre;
  plane.setAttribute("viewBox", `${scale * x - 200} ${-scale * y - 200} 400 400`);
  if (state.mode === "prior") showSamples();
  drawAxes();
  drawCodes();
  drawTiles();
  update();
}

function showWhole() {
  Object.assign(view, { zoom: 1, centre: [0, 0] });
  drawView();
}
// The point `at` stays where it is on the screen.
function zoomBy(factor, at) {
  const zoom = Math.min(Math.max(view.zoom * factor, 1), MAX_ZOOM);
  view.centre = view.centre.map((c, k) => at[k] + (c - at[k]) * (view.zoom / zoom));
  view.zoom = zoom;
  drawView();
}
// A code that was moved out of sight, other than by a pointer, is brought into it.
function follow() {
  const at = onAxes(state.z);
  if (view.zoom === 1 || at.every((c, k) => Math.abs(c - view.centre[k]) < 0.95 * reach)) return;
  view.centre = at;
  drawView();
}

// ---- What can be done ---------------------------------------------------------------------------

const HINTS = {
  look: "Point into the plane, drag the ring, or use the arrow keys. A click holds the ring, another lets it go.",
  cloud: isCloud
    ? `Click on an example to have its posterior. Drag it by its centre, or make it ${latent > 1 ? "wider or higher by the small rings" : "wider by the small ring"}. The dots are draws; eight are decoded below.`
    : "An autoencoder gives each example a point: there is no σ, so there is no ellipse, and no prior to draw from. Click on an example to have its code, and drag it.",
  walk: "Click on two examples, one after the other. The pictures are decoded on the straight line between their codes.",
  prior: prior?.standard ? "Draws from the prior N(0, I), decoded. Click on one to look at it." : "Draws from the prior that the model has learned, decoded. Its Gaussians are the dashed ellipses, at 1σ.",
};

function setMode(mode) {
  stop();
  state.mode = plane.dataset.mode = mode;
  byId("hint").textContent = HINTS[mode];
  for (const panel of document.querySelectorAll(".panel")) panel.hidden = panel.dataset.mode !== mode;
  byId("cloud").toggleAttribute("hidden", mode !== "cloud");
  byId("ring").toggleAttribute("hidden", mode === "cloud");
  byId("line").toggleAttribute("hidden", mode !== "walk");
  byId("samples").toggleAttribute("hidden", mode !== "prior");
  byId("cloud-strip").hidden = !isCloud;
  byId("redraw").hidden = !isCloud;
  if (mode === "cloud") choose(nearest(state.z, mu));
  if (mode === "walk") walk(...state.ends);
  if (mode === "prior") sample();
  update();
}

// The cloud of an example, as the encoder gives it.
function choose(i) {
  state.image = i;
  state.z = [...mu[i]];
  state.width = [...sigma[i]];
  state.eps = isCloud && state.eps.length ? state.eps : redraw();
  if (decoder.classes) state.label = labels[i];
  follow();
  byId("image").value = i + 1;
  byId("image-name").textContent = `of ${n}${labels ? `: a ${labels[i]}` : ""}`;
  update();
}
// In pairs of eps and -eps, so that the mean of the draws is mu.
const redraw = () => (isCloud ? Array.from({ length: DRAWS / 2 }, drawCode).flatMap((e) => [e, e.map((c) => -c)]) : [new Float64Array(latent)]);

function walk(from, to) {
  state.ends = [from, to];
  if (decoder.classes) state.label = labels[from]; // both ends are decoded as what the first is
  [["from", from], ["to", to]].forEach(([id, i]) => {
    byId(id).value = i + 1;
    byId(`${id}-name`).textContent = labels ? `a ${labels[i]}` : "";
  });
  stepTo(0);
}
function stepTo(t) {
  const [from, to] = state.ends.map((i) => mu[i]);
  byId("step").value = t;
  // A zoomed view stays, so that both ends can be chosen in it.
  state.z = [...from].map((c, j) => c + t * (to[j] - c));
  update();
}
let timer = 0;
function stop() {
  cancelAnimationFrame(timer);
  timer = 0;
  byId("play").textContent = "Walk";
}
function play() {
  if (timer) return stop();
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return stepTo((byId("step").valueAsNumber + 0.125) % 1.125);
  byId("play").textContent = "Stop";
  const start = performance.now(), t0 = byId("step").valueAsNumber % 1;
  const frame = (now) => {
    const t = t0 + (now - start) / 4000; // there in four seconds
    stepTo(Math.min(t, 1));
    if (t < 1) timer = requestAnimationFrame(frame);
    else stop();
  };
  timer = requestAnimationFrame(frame);
}

// A draw from the prior: of the mixture, first which Gaussian.
function drawPrior() {
  const eps = drawCode();
  if (prior.standard) return [...eps];
  let u = Math.random(), k = 0;
  while (k < prior.weights.length - 1 && u >= prior.weights[k]) u -= prior.weights[k++];
  return [...eps].map((e, j) => prior.mean[k][j] + prior.sigma[k][j] * e);
}
function sample() {
  state.samples = Array.from({ length: SAMPLES }, drawPrior);
  showSamples();
}
function showSamples() {
  const dots = state.samples.map(onAxes).map(([x, y]) => svg("circle", { cx: scale * x, cy: -scale * y, r: 4 }));
  byId("samples").replaceChildren(...dots);
  fillStrip(byId("prior-strip"), state.samples, (i) => `Sample ${i + 1}`);
}
byId("prior-strip").pick = (i) => moveTo(state.samples[i]);
byId("walk-strip").pick = (k) => stepTo(k / (STEPS - 1));
byId("cloud-strip").pick = (i) => moveTo(draws()[i]);

// A click picks the example that is nearest in the plane.
plane.addEventListener("click", (event) => {
  if (event.target.closest(".hit:not(.ring)")) return;
  const places = all.map(placeOf), i = nearest(pointAt(plane, scale, event, view.centre), places);
  if (state.mode === "cloud") choose(i);
  if (state.mode === "walk") walk(state.ends[1], i);
  if (state.mode === "look") state.held = !state.held;
});
followPointer(plane, () => scale, (z, event) => {
  if (state.mode !== "look" || (state.held && event.pointerType === "mouse")) return;
  moveOnAxes(z);
}, () => view.centre);
holdCloud(byId("cloud"), () => scale, () => [...onAxes(state.z), ...onAxes(state.width)], {
  hold: stop,
  centre: () => view.centre,
  move: (i, value) => (i < 2 ? move(state.axes[i], value) : state.axes[i - 2] !== null && (state.width[state.axes[i - 2]] = Math.max(value, 0.01))),
  moved: update,
});
// With Ctrl, as on a map, since the wheel alone scrolls the page; a pinch on a touchpad is the same event.
plane.addEventListener("wheel", (event) => {
  if (!event.ctrlKey) return;
  event.preventDefault();
  zoomBy(2 ** Math.min(Math.max(-event.deltaY / 100, -1), 1), pointAt(plane, scale, event, view.centre));
}, { passive: false });
const ZOOMS = {
  "zoom-in": () => zoomBy(2, onAxes(state.z)),
  "zoom-out": () => zoomBy(0.5, onAxes(state.z)),
  "zoom-whole": showWhole,
};
for (const [id, zoom] of Object.entries(ZOOMS)) byId(id).addEventListener("click", zoom);
plane.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return; // the browser's own
  const zoom = { "+": "zoom-in", "=": "zoom-in", "-": "zoom-out", 0: "zoom-whole" }[event.key];
  if (zoom) return ZOOMS[zoom]();
  const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
  if (!by) return;
  event.preventDefault();
  const step = (event.shiftKey ? 0.05 : 0.01) * reach, at = onAxes(state.z);
  moveOnAxes(by.map((d, k) => at[k] + d * step));
  follow();
});

// Without a pointer the cloud is made wider or higher by sliders.
for (const k of [0, 1])
  byId(`width-${k + 1}`).addEventListener("input", () => {
    state.width[state.axes[k]] = byId(`width-${k + 1}`).valueAsNumber;
    update();
  });

// ---- Controls -----------------------------------------------------------------------------------

for (const radio of document.querySelectorAll("input[name=mode]")) radio.addEventListener("change", () => setMode(radio.value));
const numberOf = (id) => Math.min(Math.max(Math.round(byId(id).valueAsNumber) || 1, 1), n) - 1;
for (const id of ["image", "from", "to"]) byId(id).max = n;
byId("image").addEventListener("change", () => choose(numberOf("image")));
for (const id of ["from", "to"]) byId(id).addEventListener("change", () => walk(numberOf("from"), numberOf("to")));
byId("encode").addEventListener("click", () => choose(state.image));
byId("redraw").addEventListener("click", () => {
  state.eps = redraw();
  update();
});
byId("step").addEventListener("input", () => stepTo(byId("step").valueAsNumber));
byId("play").addEventListener("click", play);
byId("sample").addEventListener("click", sample);
byId("centre").addEventListener("click", () => moveTo(Array(latent).fill(0)));
byId("show-tiles").addEventListener("change", drawTiles);
byId("show-ellipses").addEventListener("change", drawCodes);
byId("label").addEventListener("change", () => {
  state.label = Number(byId("label").value);
  if (state.mode === "prior") showSamples();
  update();
});

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  byId("theme").textContent = theme === "dark" ? "Light" : "Dark";
  drawTiles();
}
byId("theme").addEventListener("click", () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));

const SLIDERS = 40; // more dimensions than these are hardly ever used
function addSliders() {
  for (const j of order.slice(0, SLIDERS)) {
    const id = `z-${j + 1}`, name = `z${subscript(j)}`;
    const label = Object.assign(document.createElement("label"), { htmlFor: id, textContent: name });
    const share = Object.assign(document.createElement("span"), { className: "share", textContent: say(data.share[j], 2) });
    const input = Object.assign(document.createElement("input"), { type: "range", id, min: -range, max: range, step: 0.01 });
    const output = Object.assign(document.createElement("output"), { htmlFor: id });
    input.dataset.dimension = j;
    input.addEventListener("input", () => {
      move(j, input.valueAsNumber);
      follow();
      update();
    });
    byId("sliders").append(label, share, input, output);
  }
}

// Words in the plane keep their size on the screen, however large it is drawn.
new ResizeObserver(() => plane.style.setProperty("--unit", 400 / plane.clientWidth)).observe(plane);

function start() {
  document.title = `${data.model}: explore`;
  byId("model").textContent = data.model;
  const some = n < data.of ? `${n.toLocaleString("en")} of the ${data.of.toLocaleString("en")} test examples, evenly taken,` : `the ${n.toLocaleString("en")} test examples`;
  byId("facts").textContent = `in the plane: ${some} of ${data.examples}`;
  byId("plane-title").textContent = `The latent plane: ${isCloud ? "the posterior means" : "the codes"} of test examples${labels ? ", written as their labels" : ""}`;
  const kind = data.by === "KL" ? "mean KL in nats" : "variance of the codes";
  byId("dimensions-name").textContent = latent === 1 ? "The code" : `The code, by ${kind}${latent > SLIDERS ? `: ${SLIDERS} of ${latent} dimensions` : ""}`;

  const options = (k) => order.map((j) => new Option(`z${subscript(j)} (${say(data.share[j], 2)})`, j, false, state.axes[k] === j));
  [0, 1].forEach((k) => {
    const select = byId(`axis-${k + 1}`);
    select.append(...options(k));
    select.addEventListener("change", () => {
      const chosen = Number(select.value);
      if (state.axes[1 - k] === chosen) { // the two change places
        state.axes[1 - k] = state.axes[k];
        byId(`axis-${2 - k}`).value = state.axes[k];
      }
      state.axes[k] = chosen;
      chooseAxes();
    });
  });
  byId("axes").hidden = latent < 3;
  addSliders();

  byId("values").hidden = !rows || data.decoder.size > NAMED;
  if (!isCloud) byId("cloud-name").textContent = "Code";
  byId("show-ellipses").checked = isCloud && latent === 2;
  byId("ellipses-choice").hidden = !isCloud;
  if (!isCloud) for (const part of plane.querySelectorAll("#cloud :is(ellipse, .stem, .width, .height, #draws)")) part.remove();
  else byId("draws").append(...Array.from({ length: DRAWS }, () => svg("circle", { class: "z", r: 2.5 })));
  if (!prior) {
    const radio = document.querySelector("input[value=prior]");
    radio.disabled = true;
    radio.parentElement.title = "An autoencoder has no prior to draw from";
  }
  byId("widths").hidden = !isCloud;
  if (latent === 1) for (const part of document.querySelectorAll(".height")) part.remove();
  const kinds = labels ? [...new Set(labels)].sort((a, b) => a - b) : [];
  if (kinds.length > 1 && kinds.length <= 20)
    byId("legend").append(...kinds.map((label) => {
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: label, className: `digit-${label % 10}` });
      button.setAttribute("aria-pressed", "false");
      button.addEventListener("click", () => {
        state.only = state.only === label ? null : label;
        for (const other of byId("legend").children) other.setAttribute("aria-pressed", String(state.only !== null && Number(other.textContent) === state.only));
        drawCodes();
      });
      return button;
    }));
  if (decoder.classes) {
    byId("label-choice").hidden = false;
    byId("label").append(...[...Array(decoder.classes).keys()].map((label) => new Option(label, label)));
  }
  state.ends = [0, Math.min(Math.max(1, labels ? labels.findIndex((label) => label !== labels[0]) : 1), n - 1)];
  setTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  if (data.sprite) {
    sprite.onload = update;
    sprite.src = data.sprite.address;
  }
  chooseAxes();
  setMode("look");
}

// ---- A picture of what is seen ------------------------------------------------------------------

const STYLES = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "stroke-linecap", "opacity", "display", "font-size", "font-weight", "font-family", "text-anchor", "dominant-baseline", "paint-order", "image-rendering"];

// The plane as an image: with its styles written into it, since it stands alone then.
async function planeImage() {
  const copy = plane.cloneNode(true), parts = [plane, ...plane.querySelectorAll("*")];
  [copy, ...copy.querySelectorAll("*")].forEach((part, i) => {
    const style = getComputedStyle(parts[i]);
    part.setAttribute("style", STYLES.map((name) => `${name}:${style.getPropertyValue(name)}`).join(";"));
  });
  copy.setAttribute("width", 1000);
  copy.setAttribute("height", 1000);
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(new XMLSerializer().serializeToString(copy))}`;
  await image.decode();
  return image;
}

async function picture() {
  const canvas = document.createElement("canvas"), context = canvas.getContext("2d");
  const style = getComputedStyle(document.body), strip = document.querySelector(".panel:not([hidden]) .strip:not([hidden])");
  const tall = size.height / size.width, top = 40 + 260 * tall + 70;
  const pictures = [...(strip?.children ?? [])], below = top + 112 * tall * Math.ceil(pictures.length / 4) + 20;
  const names = byId("values").hidden ? [] : [...byId("values").querySelectorAll("dt")];
  canvas.width = 1560;
  canvas.height = Math.max(1120, below + 28 * Math.ceil(names.length / 2));
  context.fillStyle = style.backgroundColor === "rgba(0, 0, 0, 0)" ? getComputedStyle(document.documentElement).backgroundColor : style.backgroundColor;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(await planeImage(), 40, 40);
  context.strokeStyle = getComputedStyle(plane).borderColor;
  context.strokeRect(40, 40, 1000, 1000);
  context.fillStyle = style.color;
  context.font = `24px ${style.fontFamily}`;
  context.imageSmoothingEnabled = false;
  const put = (source, x, y, width) => context.drawImage(source, x, y, width, (width * size.height) / size.width);
  put(byId("decoded"), 1080, 40, 260);
  put(byId("given"), 1360, 40, 160);
  context.fillText(`decoded${decoder.classes ? ` as ${state.label}` : ""}`, 1080, 40 + 260 * tall + 32);
  context.font = `18px ${style.fontFamily}`;
  context.fillText(byId("given-name").textContent, 1360, 40 + 160 * tall + 28, 180);
  pictures.forEach((button, i) => put(button.firstChild, 1080 + 112 * (i % 4), top + 112 * tall * Math.floor(i / 4), 104));
  names.forEach((name, i) => context.fillText(`${name.textContent}: ${name.nextElementSibling.textContent}`, 1080 + 230 * (i % 2), below + 28 * Math.floor(i / 2), 220));
  context.fillText(`${data.model}, ${data.examples}. ${byId("said").textContent}`, 40, 1082, below > 1060 ? 1000 : 1480);
  return canvas.toDataURL("image/png");
}

byId("save").addEventListener("click", async () => {
  const link = document.createElement("a");
  link.href = await picture();
  link.download = "latent-plane.png";
  link.click();
});

// For the tests and the console.
window.scratchvae = {
  decode: (z, label = 0) => Array.from(decode(decoder, z, label).mean),
  picture,
};
start();
