// Moves the figures of answer.md, which docs/_ext/answer.py has drawn as they stand at first. The
// decoder, the plane and the cloud are those of scratchvae/explorer/latent.js, which is loaded before.
"use strict";

// ---- The gradient through the decoder -----------------------------------------------------------

// dx from dy, for the layers that a decoder of this page has; forward they are in latent.js.
const BACKWARD = {
  linear({ W }, x, dy) {
    const dx = new Float64Array(x.length), n = dy.length;
    for (let i = 0; i < x.length; i++) for (let j = 0; j < n; j++) dx[i] += dy[j] * W[i * n + j];
    return dx;
  },
  activation: (_, x, dy) => dy.map((d, i) => (x[i] > 0 ? d : 0)), // relu lets nothing else through
};

// -log p(x|z) in nats, and its gradient with respect to z.
function reconstruct(decoder, z, x) {
  const { inputs, output: logits, mean } = decode(decoder, z);
  let nll = 0;
  logits.forEach((l, d) => (nll += Math.max(l, 0) - l * x[d] + Math.log1p(Math.exp(-Math.abs(l)))));
  let dz = mean.map((p, d) => p - x[d]); // at first that of the logits
  for (let i = inputs.length - 1; i >= 0; i--) dz = BACKWARD[decoder.layers[i].kind](decoder.layers[i], inputs[i], dz);
  return { nll, dz };
}

// ---- The first figure: a cloud that can be moved ------------------------------------------------

const NATS = 60; // the length of the bars; as in docs/_ext/answer.py
const PIXELS = document.createElement("canvas");
const DIGIT = { height: 8, width: 8, channels: 1, low: 0, high: 1 };

// A row of decoded images as an address for <img>.
function strip(images) {
  PIXELS.width = 9 * images.length - 1;
  PIXELS.height = 8;
  images.forEach((image, i) => paint(PIXELS.getContext("2d"), image, DIGIT, 9 * i));
  return PIXELS.toDataURL();
}

function startWorld(world, { eps, images, ...kinds }) {
  const find = (selector) => world.querySelector(selector);
  const isCloud = world.dataset.kind === "vae";
  const models = kinds[world.dataset.kind].map((m) => ({ ...m, decoder: readDecoder(m.decoder) }));
  const svg = find("svg"), scale = Number(svg.dataset.scale);
  const names = isCloud ? ["mu1", "mu2", "sigma1", "sigma2"] : ["mu1", "mu2"];
  const sliders = names.map((name) => find(`input.${name}`));
  const betaSlider = find(".beta"), betas = isCloud ? JSON.parse(betaSlider.dataset.betas) : [0];
  const noise = isCloud ? eps : [[0, 0]];
  let image = 0, code = [0, 0, 0, 0], timer = 0;

  const which = () => (isCloud ? betaSlider.valueAsNumber : 0);

  // The loss of the code's cloud and its gradient with respect to [mu1, mu2, log sigma1, log sigma2].
  function loss() {
    const { decoder } = models[which()], beta = betas[which()], sigma = code.slice(2);
    let nll = 0, kl = 0;
    const pull = { nll: [0, 0, 0, 0], kl: [0, 0, 0, 0] };
    for (const e of noise) {
      const z = [code[0] + sigma[0] * e[0], code[1] + sigma[1] * e[1]];
      const one = reconstruct(decoder, z, images[image]);
      nll += one.nll / noise.length;
      for (const i of [0, 1]) {
        pull.nll[i] += one.dz[i] / noise.length;
        pull.nll[i + 2] += (one.dz[i] * sigma[i] * e[i]) / noise.length;
      }
    }
    if (isCloud)
      for (const i of [0, 1]) {
        kl += 0.5 * (code[i] ** 2 + sigma[i] ** 2 - 1) - Math.log(sigma[i]);
        pull.kl[i] = beta * code[i];
        pull.kl[i + 2] = beta * (sigma[i] ** 2 - 1);
      }
    return { nll, kl: beta * kl, pull };
  }

  // From the centre along minus the gradient. Long gradients are drawn shorter, all by one rule, so
  // that two equal pulls have arrows of one length.
  function arrow(gradient) {
    const size = Math.hypot(gradient[0], gradient[1]), length = 80 * Math.tanh(size / 6);
    if (length < 2) return "";
    const u = [-gradient[0] / size, gradient[1] / size]; // the screen's second axis points down
    const from = [scale * code[0], -scale * code[1]];
    const to = from.map((c, i) => c + length * u[i]);
    const barb = (side) => to.map((c, i) => c - 7 * u[i] + side * 4 * [-u[1], u[0]][i]);
    const text = (point) => point.map((c) => c.toFixed(1)).join(" ");
    return `M${text(from)}L${text(to)}M${text(barb(1))}L${text(to)}L${text(barb(-1))}`;
  }

  function show() {
    const { nll, kl, pull } = loss(), sigma = code.slice(2);
    const draws = noise.map((e) => [code[0] + sigma[0] * e[0], code[1] + sigma[1] * e[1]]);
    placeCloud(svg, scale, code, draws);
    find(".decoded").src = strip(draws.slice(0, 8).map((z) => decode(models[which()].decoder, z).mean));
    find(".given").src = strip([images[image]]);
    find(".pull.reconstruction").setAttribute("d", arrow(pull.nll));
    if (isCloud) find(".pull.kl").setAttribute("d", arrow(pull.kl));

    const terms = isCloud ? [nll, kl, nll + kl] : [nll, nll];
    world.querySelectorAll(".terms td:nth-child(2)").forEach((cell, i) => (cell.textContent = say(terms[i], 2)));
    const width = (term) => `${Math.min((100 * term) / NATS, 100)}%`;
    for (const bar of world.querySelectorAll(".bar.reconstruction")) bar.style.width = width(nll);
    for (const bar of world.querySelectorAll(".bar.kl")) bar.style.width = width(kl);
    sliders.forEach((slider, i) => {
      slider.value = code[i];
      find(`output[for=${slider.id}]`).value = say(code[i], 2);
    });
    if (isCloud) find(`output[for=${betaSlider.id}]`).value = String(betas[which()]);
    find(".said").textContent = isCloud
      ? `Reconstruction ${say(nll, 1)} plus KL ${say(kl, 1)}: ${say(nll + kl, 1)} nats`
      : `Reconstruction ${say(nll, 1)} nats`;
  }

  function move(i, value) {
    code[i] = Math.min(Math.max(value, Number(sliders[i].min)), Number(sliders[i].max));
  }

  function stop() {
    cancelAnimationFrame(timer);
  }

  // The code that the encoder gives, and the other images' under the same model.
  function encode() {
    const model = models[which()];
    stop();
    code = [...model.codes[image], 0, 0].slice(0, 4);
    const shapes = world.querySelectorAll(".others ellipse"), words = world.querySelectorAll(".others text");
    model.others.forEach(([m1, m2, s1 = 0, s2 = 0], i) => {
      const at = { cx: scale * m1, cy: -scale * m2, rx: scale * s1, ry: scale * s2 };
      for (const [key, value] of Object.entries(at)) shapes[i].setAttribute(key, value.toFixed(1));
      words[i].setAttribute("x", at.cx.toFixed(1));
      words[i].setAttribute("y", at.cy.toFixed(1));
    });
    show();
  }

  // Gradient descent, with the length of a step limited.
  function step() {
    const { pull } = loss(), before = [...code];
    names.forEach((_, i) => {
      const change = Math.min(Math.max(-0.01 * (pull.nll[i] + pull.kl[i]), -0.05), 0.05);
      move(i, i < 2 ? code[i] + change * (isCloud ? 1 : 4) : code[i] * Math.exp(change));
    });
    return Math.max(...code.map((c, i) => Math.abs(c - before[i]))) > 5e-4;
  }
  function release() {
    stop();
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
      for (let i = 0; i < 500 && step(); i++);
      show();
      return;
    }
    let frames = 500;
    const next = () => {
      const moved = step();
      show();
      if (moved && frames-- > 0) timer = requestAnimationFrame(next);
    };
    next();
  }

  holdCloud(svg, () => scale, () => code, { hold: stop, move, moved: show });
  sliders.forEach((slider, i) =>
    slider.addEventListener("input", () => {
      stop();
      move(i, slider.valueAsNumber);
      show();
    }),
  );
  if (isCloud) betaSlider.addEventListener("input", encode);
  find(".release").addEventListener("click", release);
  find(".encode").addEventListener("click", encode);
  return (chosen) => {
    image = chosen;
    encode();
  };
}

function startPulls(figure) {
  const data = JSON.parse(figure.querySelector("#pulls-data").textContent);
  const choice = figure.querySelector("select");
  const worlds = [...figure.querySelectorAll(".world")].map((world) => startWorld(world, data));
  const choose = () => worlds.forEach((show) => show(Number(choice.value)));
  choice.addEventListener("input", choose);
  for (const part of figure.querySelectorAll(".controls, .with-script")) part.removeAttribute("hidden");
  choose();
}

// ---- One dimension: q(z|x) = N(mu, sigma^2) beside the prior -------------------------------------

function startGaussian(figure) {
  const find = (selector) => figure.querySelector(selector);
  const all = (selector) => [...figure.querySelectorAll(selector)];
  const svg = find("svg"), mu = find("#gaussian-mu"), sigma = find("#gaussian-sigma");
  const wrong = find("#gaussian-wrong");
  let eps = JSON.parse(svg.dataset.eps);

  const toX = (z) => 220 + 30 * z;
  const density = (z, m, s) => Math.exp(-0.5 * ((z - m) / s) ** 2) / (s * Math.sqrt(2 * Math.PI));

  // One scale for all: a narrow density is cut off above, and the figure says how high it goes.
  function curve(m, s) {
    const points = [];
    for (let i = -50; i <= 50; i++) {
      const z = m + (s * i) / 10;
      points.push(`${toX(z).toFixed(2)} ${(190 - 175 * density(z, m, s)).toFixed(2)}`);
    }
    return "M" + points.join("L");
  }

  function show() {
    const m = mu.valueAsNumber, s = sigma.valueAsNumber;
    find("path.prior").setAttribute("d", curve(0, 1));
    find("path.posterior").setAttribute("d", curve(m, s));
    const peak = density(0, 0, s);
    find("text.peak").textContent = peak > 1 ? `↑ ${say(peak, 2)}` : "";
    find("text.peak").setAttribute("x", toX(m));

    const factor = wrong.checked ? Math.log(0.5 * s) : s; // what eps is multiplied by
    // At sigma = 2 the wrong one is 0: all draws are mu, and the density is a spike.
    const spike = Math.abs(factor) < 1e-9;
    find("path.wrong").setAttribute("d", spike ? `M${toX(m)} 190V0` : curve(m, Math.abs(factor)));
    for (const part of all(".wrong")) part.toggleAttribute("hidden", !wrong.checked);
    figure.classList.toggle("is-wrong", wrong.checked);
    find("text.formula").textContent = wrong.checked ? "μ + log(0.5 σ) ε" : "z = μ + σε";

    const lines = all(".draws path"), above = all("circle.eps"), below = all("circle.z");
    eps.forEach((e, i) => {
      const from = toX(e).toFixed(2), to = toX(m + factor * e).toFixed(2);
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

// ---- The latent plane, decoded under the pointer ------------------------------------------------

function startDecoder(figure) {
  const find = (selector) => figure.querySelector(selector);
  const data = JSON.parse(find("#decoder-data").textContent);
  const decoder = readDecoder(data.decoder);
  window.scratchvaeDecode = (z) => Array.from(decode(decoder, z).mean); // for the tests and the console
  const plane = find(".plane"), sliders = [find("#decoder-z1"), find("#decoder-z2")];
  const pixels = [...figure.querySelectorAll("rect")];

  function show() {
    const z = sliders.map((slider) => slider.valueAsNumber);
    decode(decoder, z).mean.forEach((p, i) => {
      const grey = Math.round(255 * (1 - p));
      pixels[i].setAttribute("fill", `rgb(${grey},${grey},${grey})`);
    });
    place(figure, ".here, .halo, .hit", { cx: 200 + 60 * z[0], cy: 200 - 60 * z[1] });
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

  followPointer(plane, () => 60, move);
  for (const slider of sliders) slider.addEventListener("input", show);
  find("#decoder-draw").addEventListener("click", () => move([drawNormal(), drawNormal()]));
  for (const part of figure.querySelectorAll(".controls, .with-script")) part.hidden = false;
  show();
}

const figures = { pulls: startPulls, gaussian: startGaussian, decoder: startDecoder };
for (const [id, start] of Object.entries(figures)) {
  const figure = document.querySelector(`figure#${id}`);
  if (figure) start(figure);
}
