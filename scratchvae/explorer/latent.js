// A latent plane in a browser: what the page of `scratchvae explore` and the documentation's page
// on mu and sigma share.
"use strict";

const say = (number, decimals) => {
  const text = number.toFixed(decimals);
  return (Number(text) === 0 ? text.replace("-", "") : text).replace("-", "−");
};

// A draw from N(0, 1), by Box and Muller; 1 - random() is never 0.
const drawNormal = () =>
  Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());

// ---- The decoder --------------------------------------------------------------------------------

// Numbers from base64: as float32, or as whole multiples of a step, one for each column.
function readNumbers({ float32, int16, step }) {
  const bytes = Uint8Array.from(atob(float32 ?? int16), (c) => c.charCodeAt(0));
  if (float32 !== undefined) return new Float32Array(bytes.buffer);
  const steps = readNumbers({ float32: step });
  return Float32Array.from(new Int16Array(bytes.buffer), (k, i) => k * steps[i % steps.length]);
}

const sigmoid = (x) => 1 / (1 + Math.exp(-x));
const ACTIVATIONS = {
  relu: (x) => Math.max(x, 0),
  tanh: Math.tanh,
  sigmoid,
  softplus: (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x))),
  silu: (x) => x * sigmoid(x),
  elu: (x) => (x > 0 ? x : Math.expm1(x)),
};

// What each kind of layer makes of one example x.
const FORWARD = {
  linear({ W, b }, x) {
    const y = Float64Array.from(b), n = y.length;
    x.forEach((value, i) => {
      if (value !== 0) for (let j = 0; j < n; j++) y[j] += value * W[i * n + j];
    });
    return y;
  },

  activation: ({ name }, x) => x.map(ACTIVATIONS[name]),

  // A transposed convolution of (C', H', W'): every pixel adds its kernel to the large image
  // (C, H, W), of which the padding is not stored.
  transposed({ W, b, small, large, kernel, stride, padding }, x) {
    const [c1, h1, w1] = small, [c2, h2, w2] = large, [kh, kw] = kernel;
    const y = new Float64Array(c2 * h2 * w2);
    b.forEach((value, c) => y.fill(value, c * h2 * w2, (c + 1) * h2 * w2));
    for (let c = 0, at = 0; c < c1; c++)
      for (let u = 0; u < h1; u++)
        for (let v = 0; v < w1; v++, at++) {
          const value = x[at], row0 = stride[0] * u - padding[0], column0 = stride[1] * v - padding[1];
          if (value === 0) continue;
          for (let d = 0; d < c2; d++)
            for (let i = Math.max(0, -row0); i < kh && row0 + i < h2; i++)
              for (let j = Math.max(0, -column0); j < kw && column0 + j < w2; j++)
                y[(d * h2 + row0 + i) * w2 + column0 + j] += value * W[((c * c2 + d) * kh + i) * kw + j];
        }
    return y;
  },
};

// The decoder that scratchvae.explorer.describe has written.
function readDecoder({ layers, ...rest }) {
  const read = (layer) => ("W" in layer ? { ...layer, W: readNumbers(layer.W), b: readNumbers(layer.b) } : layer);
  return { layers: layers.map(read), ...rest };
}

// The mean of p(x|z), or of p(x|z, y), for one code; and on the way there what each layer was given.
function decode(decoder, z, label = 0) {
  const { layers, classes, binary, size, units } = decoder;
  let x = new Float64Array(z.length + classes);
  x.set(z);
  if (classes) x[z.length + label] = 1;
  const inputs = [];
  for (const layer of layers) {
    inputs.push(x);
    x = FORWARD[layer.kind](layer, x);
  }
  let mean = binary ? x.map(sigmoid) : x.slice(0, size);
  if (units) mean = mean.map((value, d) => units.mean[d] + units.std[d] * value);
  return { inputs, output: x, mean };
}

// Paint an image (H, W, C) into a canvas, at (x, y): grey as ink on paper, colours as they are.
function paint(context, values, { height, width, channels, low, high }, x = 0, y = 0) {
  const pixels = context.createImageData(width, height);
  for (let i = 0; i < width * height; i++)
    for (let k = 0; k < 4; k++) {
      const value = values[channels * i + Math.min(k, channels - 1)];
      const share = Math.min(Math.max((value - low) / (high - low), 0), 1);
      const shade = channels === 1 ? 1 - share : share;
      pixels.data[4 * i + k] = k < 3 || channels === 4 ? Math.round(255 * shade) : 255;
    }
  context.putImageData(pixels, x, y);
}

// ---- The plane ----------------------------------------------------------------------------------

// A finger that takes hold of this part of a drawing is not to scroll the page. The style
// `touch-action: none` should suffice, but not all browsers heed it inside an SVG.
function holdPage(part) {
  part.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false });
}

function place(root, selector, attributes) {
  for (const part of root.querySelectorAll(selector))
    for (const [key, value] of Object.entries(attributes)) part.setAttribute(key, value);
}

// Where a pointer is in a plane, which has the code `centre` in its middle and `scale` units to 1.
function pointAt(svg, scale, event, centre = [0, 0]) {
  const { x: left, y: top, width, height } = svg.viewBox.baseVal;
  // The border around the drawing does not count, as it would in getBoundingClientRect.
  const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
  return [centre[0] + (x - left - width / 2) / scale, centre[1] - (y - top - height / 2) / scale];
}

const GRIP = 22; // how far from the outline its two handles stand

// Show the cloud [mu1, mu2, sigma1, sigma2]: its outline at one sigma, its draws and its handles. A
// point has no sigma, and one draw. A handle that would be beyond the edge stands on the other side.
function placeCloud(svg, scale, [mu1, mu2, sigma1 = 0, sigma2 = 0], draws) {
  const x = scale * mu1, y = -scale * mu2, rx = scale * sigma1, ry = scale * sigma2;
  const seen = svg.closest("svg").viewBox.baseVal;
  const sideX = x + rx + GRIP > seen.x + seen.width - 5 ? -1 : 1;
  const sideY = y - ry - GRIP < seen.y + 5 ? -1 : 1;
  place(svg, "ellipse.posterior", { cx: x, cy: y, rx, ry });
  place(svg, ".mean", { cx: x, cy: y });
  place(svg, ".width", { cx: x + sideX * (rx + GRIP), cy: y });
  place(svg, ".height", { cx: x, cy: y - sideY * (ry + GRIP) });
  const up = svg.querySelector(".height") ? `M${x} ${y - sideY * ry}v${-sideY * GRIP}` : "";
  place(svg, ".stem", { d: `M${x + sideX * rx} ${y}h${sideX * GRIP}${up}` });
  svg.querySelectorAll("circle.z").forEach((dot, i) => {
    dot.setAttribute("cx", scale * draws[i][0]);
    dot.setAttribute("cy", -scale * draws[i][1]);
  });
}

// The hand: a handle follows the pointer that took hold of it. `move(i, value)` is told the new
// value of the i-th of [mu1, mu2, sigma1, sigma2], which `code()` returns; `scale()` and `centre()` are those of now.
function holdCloud(svg, scale, code, { hold, move, moved, centre = () => [0, 0] }) {
  const grips = { mean: [0, 1], width: [2], height: [3] };
  for (const [name, which] of Object.entries(grips)) {
    const hit = svg.querySelector(`.hit.${name}`);
    if (!hit) continue;
    holdPage(hit);
    hit.addEventListener("pointerdown", (event) => {
      hold();
      hit.setPointerCapture(event.pointerId);
      event.preventDefault();
    });
    hit.addEventListener("pointermove", (event) => {
      if (!hit.hasPointerCapture(event.pointerId)) return;
      const z = pointAt(svg.closest("svg"), scale(), event, centre());
      for (const i of which) move(i, i < 2 ? z[i] : Math.abs(z[i - 2] - code()[i - 2]) - GRIP / scale());
      moved();
    });
  }
}

// The code under the pointer. A mouse need not be pressed. A finger that takes hold of the ring
// draws it along; elsewhere it moves the ring there, and scrolls the page as it does everywhere.
function followPointer(svg, scale, move, centre = () => [0, 0]) {
  const point = (event) => move(pointAt(svg, scale(), event, centre()), event);
  holdPage(svg.querySelector(".ring.hit"));
  svg.addEventListener("pointermove", point);
  svg.addEventListener("pointerdown", point);
}
