// Moves the two figures of answer.md, which docs/_ext/answer.py has drawn as they stand at first.
"use strict";

const say = (number, decimals) => {
  const text = number.toFixed(decimals);
  return (Number(text) === 0 ? text.replace("-", "") : text).replace("-", "−");
};

// A draw from N(0, 1), by Box and Muller; 1 - random() is never 0.
const drawNormal = () =>
  Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());

// ---- Figure 1: q(z|x) = N(mu, sigma^2) beside the prior -----------------------------------------

function startGaussian(figure) {
  const find = (selector) => figure.querySelector(selector);
  const all = (selector) => [...figure.querySelectorAll(selector)];
  const svg = find("svg"), mu = find("#gaussian-mu"), sigma = find("#gaussian-sigma");
  const wrong = find("#gaussian-wrong");
  let eps = JSON.parse(svg.dataset.eps);

  const toX = (z) => 220 + 30 * z;
  const density = (z, m, s) => Math.exp(-0.5 * ((z - m) / s) ** 2) / (s * Math.sqrt(2 * Math.PI));
  const peak = (s) => density(0, 0, s);

  function curve(m, s, top) {
    const points = [];
    for (let i = -50; i <= 50; i++) {
      const z = m + (s * i) / 10;
      points.push(`${toX(z).toFixed(2)} ${(190 - (175 * density(z, m, s)) / top).toFixed(2)}`);
    }
    return "M" + points.join("L");
  }

  function show() {
    const m = mu.valueAsNumber, s = sigma.valueAsNumber;
    const top = 1.08 * Math.max(peak(1), peak(s));
    find("path.prior").setAttribute("d", curve(0, 1, top));
    find("path.posterior").setAttribute("d", curve(m, s, top));

    const factor = Math.log(0.5 * s); // what mu + log(0.5 sigma) eps multiplies eps by
    // At sigma = 2 it multiplies by 0: all draws are mu, and the density is a spike.
    const spike = Math.abs(factor) < 1e-9;
    find("path.wrong").setAttribute("d", spike ? `M${toX(m)} 190V0` : curve(m, Math.abs(factor), top));
    for (const part of all(".wrong")) part.toggleAttribute("hidden", !wrong.checked);

    const lines = all(".draws path"), above = all("circle.eps"), below = all("circle.z");
    eps.forEach((e, i) => {
      const from = toX(e).toFixed(2), to = toX(m + s * e).toFixed(2);
      lines[i].setAttribute("d", `M${from} 232L${to} 304`);
      above[i].setAttribute("cx", from);
      below[i].setAttribute("cx", to);
    });

    const terms = [m ** 2 / 2, (s ** 2 - 1) / 2, -Math.log(s)];
    const kl = terms[0] + terms[1] + terms[2];
    all(".terms td:nth-child(2)").forEach((cell, i) => (cell.textContent = say([...terms, kl][i], 3)));
    find(".mu").textContent = find("output[for=gaussian-mu]").value = say(m, 1);
    find(".sigma").textContent = find("output[for=gaussian-sigma]").value = say(s, 2);
    find("#gaussian-said").textContent = `KL ${say(kl, 3)} nats`;
  }

  for (const input of [mu, sigma, wrong]) input.addEventListener("input", show);
  find("#gaussian-draw").addEventListener("click", () => {
    eps = eps.map(drawNormal);
    show();
  });
  find(".controls").hidden = false;
  show();
}

// ---- Figure 2: the decoder ----------------------------------------------------------------------

function readDecoder(data) {
  const bytes = Uint8Array.from(atob(data.weights), (c) => c.charCodeAt(0));
  const flat = new Float32Array(bytes.buffer), hidden = data.hidden;
  let start = 0;
  const take = (n) => flat.subarray(start, (start += n));
  const w1 = take(2 * hidden), b1 = take(hidden), w2 = take(hidden * 64), b2 = take(64);

  // Linear, relu, Linear, sigmoid: the mean of p(x|z).
  return (z) => {
    const logits = Float64Array.from(b2);
    for (let j = 0; j < hidden; j++) {
      const h = Math.max(0, z[0] * w1[j] + z[1] * w1[hidden + j] + b1[j]);
      for (let d = 0; d < 64; d++) logits[d] += h * w2[64 * j + d];
    }
    return Array.from(logits, (l) => 1 / (1 + Math.exp(-l)));
  };
}

function startDecoder(figure) {
  const find = (selector) => figure.querySelector(selector);
  const data = JSON.parse(find("#decoder-data").textContent);
  const decode = readDecoder(data);
  window.scratchvaeDecode = decode; // for the tests, and for whoever opens the console
  const plane = find(".plane"), sliders = [find("#decoder-z1"), find("#decoder-z2")];
  const pixels = [...figure.querySelectorAll("rect")];

  function show() {
    const z = sliders.map((slider) => slider.valueAsNumber);
    decode(z).forEach((p, i) => {
      const grey = Math.round(255 * (1 - p));
      pixels[i].setAttribute("fill", `rgb(${grey},${grey},${grey})`);
    });
    for (const ring of figure.querySelectorAll(".here, .halo")) {
      ring.setAttribute("cx", 200 + 60 * z[0]);
      ring.setAttribute("cy", 200 - 60 * z[1]);
    }
    const square = z[0] ** 2 + z[1] ** 2;
    const distances = data.codes.map((code) => Math.hypot(code[0] - z[0], code[1] - z[1]));
    sliders.forEach((slider, i) => {
      figure.querySelector(`output[for=${slider.id}]`).value = say(z[i], 2);
      find(`.z${i + 1}`).textContent = say(z[i], 2);
    });
    find(".log-density").textContent = say(-Math.log(2 * Math.PI) - square / 2, 2);
    // For two dimensions |z|^2 / 2 has an exponential distribution.
    const percent = 100 * Math.exp(-square / 2);
    find(".farther").textContent = `${percent < 10 ? percent.toPrecision(2) : percent.toFixed(0)}%`;
    find(".nearest").textContent = data.labels[distances.indexOf(Math.min(...distances))];
  }

  function move(z) {
    sliders.forEach((slider, i) => (slider.value = z[i])); // rounds to a step, keeps to the range
    show();
  }

  // A pen or a finger draws along; a mouse need not be pressed.
  function point(event) {
    const box = plane.getBoundingClientRect();
    move([
      (400 * (event.clientX - box.left) / box.width - 200) / 60,
      (200 - 400 * (event.clientY - box.top) / box.height) / 60,
    ]);
  }
  plane.addEventListener("pointermove", point);
  plane.addEventListener("pointerdown", point);
  for (const slider of sliders) slider.addEventListener("input", show);
  find("#decoder-draw").addEventListener("click", () => move([drawNormal(), drawNormal()]));
  for (const part of figure.querySelectorAll(".controls, .with-script")) part.hidden = false;
  show();
}

for (const [id, start] of [["gaussian", startGaussian], ["decoder", startDecoder]]) {
  const figure = document.querySelector(`figure#${id}`);
  if (figure) start(figure);
}
