"""Who takes part: functions that return a training step on one architecture and batch size.

Every contestant trains the same VAE in float32 with Adam at 1e-3 (the tutorial in float64, as
tutorials do), takes a batch of the shuffled images in memory, on a GPU in the GPU's, draws its
noise, and returns after n steps, when all of them are done. Each runs in a process of its own, so
each imports its libraries itself.
"""

import functools
import gzip
import itertools
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Case(NamedTuple):
    """An architecture, data to latent, a batch size, where it is trained, how many images."""

    sizes: tuple[int, ...]  # 784, hidden ..., latent
    activation: str
    batch: int
    device: str = "cpu"  # or "cuda"; or "rehearsal": our code on a stand-in, the rest on the CPU
    n: int = 60_000  # as MNIST has
    network: str = "dense"  # or "conv": then the hidden sizes are channels
    samples: int = 0  # K, of importance-weighted training; 0 is the VAE


def mnist_file(part: str = "train") -> Path | None:
    """Return the file of MNIST's images in the folder that SCRATCHVAE_DATA names, or None.

    `part` is "train" or "t10k".
    """
    folder = Path(os.environ.get("SCRATCHVAE_DATA") or os.devnull)
    paths = (folder / f"{part}-images-idx3-ubyte{suffix}" for suffix in (".gz", ""))
    return next(filter(Path.is_file, paths), None)


def read_images(path: Path) -> np.ndarray:
    """Return the images of one of MNIST's files, (n, 784) uint8.

    Read here and not by scratchvae, which the other contestants' processes do not import.
    """
    with (gzip.open if path.suffix else open)(path, "rb") as file:
        return np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784)


def images(n: int) -> np.ndarray:
    """Return (n, 784) uint8: MNIST's, over and over; else random ones, as many of them lit."""
    if path := mnist_file():
        return np.resize(read_images(path), (n, 784))
    rng = np.random.default_rng(0)
    grey = rng.integers(1, 256, (n, 784), dtype=np.uint8)
    return np.where(rng.random((n, 784), dtype=np.float32) < 0.19, grey, np.uint8(0))


def batches(case: Case, rng: np.random.Generator, on_device=lambda order: order):
    """Yield rows of shuffled epochs, for ever."""
    while True:
        order = on_device(rng.permutation(case.n))
        for i in range(0, case.n - case.batch + 1, case.batch):
            yield order[i : i + case.batch]


Step = Callable[[int], None]


def products(case: Case) -> Step:
    """The matrix products of one step alone, with NumPy's BLAS, into arrays that are kept."""
    *hidden, latent = case.sizes[1:]
    encoder, decoder = (784, *hidden, 2 * latent), (latent, *reversed(hidden), 784)
    pairs = [*itertools.pairwise(encoder), *itertools.pairwise(decoder)]
    rng = np.random.default_rng(0)

    def array(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32)

    calls = []
    for i, (n_in, n_out) in enumerate(pairs):
        x, w, dy = array(case.batch, n_in), array(n_in, n_out), array(case.batch, n_out)
        calls += [(x, w, np.empty_like(dy)), (x.T, dy, np.empty_like(w))]
        if i > 0:  # nobody asks for the gradient in the data
            calls.append((dy, w.T, np.empty_like(x)))

    def step(n: int) -> None:
        for _ in range(n):
            for a, b, out in calls:
                np.matmul(a, b, out=out)

    return step


def scratchvae(case: Case, x: np.ndarray | None = None) -> Step:
    """What `scratchvae train` does, finite check and metrics of the epoch included."""
    import scratchvae as sv
    from scratchvae.training import Trainer

    dataset = dataset_of(images(case.n) if x is None else x)
    options = {"activation": case.activation, "rng": 0}
    options["backend"] = "numpy" if case.device == "cpu" else "cupy"
    options |= {"network": case.network, "image_shape": (28, 28)}
    kind = sv.VAE
    if case.samples:
        kind, options = sv.IWAE, options | {"samples": case.samples}
    model = kind(784, case.sizes[1:-1], case.sizes[-1], **options)
    trainer = Trainer(model, sv.Adam(model.params, 1e-3), dataset, batch_size=case.batch)
    return functools.partial(take_steps, trainer)


def dataset_of(x: np.ndarray):
    """Return images (n, 784) as a data set of scratchvae, with a test part of one."""
    from scratchvae.datasets import Dataset

    return Dataset("random", x, x[:1], None, None, 255.0, (28, 28))


def take_steps(trainer, n: int, on_step=lambda terms: None) -> None:
    """Have a trainer take n steps, over the ends of epochs."""
    left = n

    def count(terms: object) -> None:
        nonlocal left
        left -= 1
        trainer.stop = left == 0
        on_step(terms)

    trainer.stop = False
    trainer.run(10**9, on_step=count)


def scratchvae_mapped(case: Case) -> Step:
    """The same, with the images in a file that is mapped into memory."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/images.npy"
        np.save(path, images(case.n))
        return scratchvae(case, np.load(path, mmap_mode="r"))


def tutorial(case: Case) -> Step:
    """A NumPy VAE as tutorials write it: float64, a dict of weights, sigmoid and then log."""
    hidden, latent, data = case.sizes[1:-1], case.sizes[-1], images(case.n) / 255.0
    rng, p, (act, dact) = np.random.default_rng(0), {}, TUTORIAL_ACTIVATIONS[case.activation]
    widths = (784, *hidden)
    for i, (n_in, n_out) in enumerate(itertools.pairwise(widths)):
        p[f"We{i}"], p[f"be{i}"] = rng.normal(0, n_in**-0.5, (n_in, n_out)), np.zeros(n_out)
        p[f"Wd{i}"], p[f"bd{i}"] = rng.normal(0, n_out**-0.5, (n_out, n_in)), np.zeros(n_in)
    for name in ("mu", "lv"):
        p[f"W{name}"] = rng.normal(0, hidden[-1] ** -0.5, (hidden[-1], latent))
        p[f"b{name}"] = np.zeros(latent)
    p["Wz"], p["bz"] = rng.normal(0, latent**-0.5, (latent, hidden[-1])), np.zeros(hidden[-1])
    m, v = ({k: np.zeros_like(a) for k, a in p.items()} for _ in range(2))
    rows, t = batches(case, rng), 0

    def gradient(x: np.ndarray) -> dict[str, np.ndarray]:
        g, hs = {}, [x]
        for i in range(len(hidden)):
            hs.append(act(hs[-1] @ p[f"We{i}"] + p[f"be{i}"]))
        mu, lv = hs[-1] @ p["Wmu"] + p["bmu"], hs[-1] @ p["Wlv"] + p["blv"]
        eps = rng.standard_normal(mu.shape)
        z = mu + np.exp(lv / 2) * eps
        ds = [act(z @ p["Wz"] + p["bz"])]
        for i in reversed(range(1, len(hidden))):
            ds.append(act(ds[-1] @ p[f"Wd{i}"] + p[f"bd{i}"]))
        y = 1 / (1 + np.exp(-(ds[-1] @ p["Wd0"] + p["bd0"])))
        bce = -(x * np.log(y + 1e-8) + (1 - x) * np.log(1 - y + 1e-8)).sum()
        kl = -0.5 * (1 + lv - mu**2 - np.exp(lv)).sum()
        g["loss"] = (bce + kl) / len(x)
        d = (y - x) / len(x)
        for i in range(len(hidden)):
            h = ds[-1 - i]
            g[f"Wd{i}"], g[f"bd{i}"] = h.T @ d, d.sum(0)
            d = d @ p[f"Wd{i}"].T * dact(h)
        g["Wz"], g["bz"] = z.T @ d, d.sum(0)
        dz = d @ p["Wz"].T
        dmu = dz + mu / len(x)
        dlv = dz * eps * np.exp(lv / 2) / 2 + (np.exp(lv) - 1) / 2 / len(x)
        for name, d in (("mu", dmu), ("lv", dlv)):
            g[f"W{name}"], g[f"b{name}"] = hs[-1].T @ d, d.sum(0)
        d = (dmu @ p["Wmu"].T + dlv @ p["Wlv"].T) * dact(hs[-1])
        for i in reversed(range(len(hidden))):
            g[f"We{i}"], g[f"be{i}"] = hs[i].T @ d, d.sum(0)
            if i:
                d = d @ p[f"We{i}"].T * dact(hs[i])
        return g

    def step(n: int) -> None:
        nonlocal t
        for _ in range(n):
            g, t = gradient(data[next(rows)]), t + 1
            for k in p:
                m[k] = 0.9 * m[k] + 0.1 * g[k]
                v[k] = 0.999 * v[k] + 0.001 * g[k] ** 2
                p[k] -= 1e-3 * m[k] / (1 - 0.9**t) / (np.sqrt(v[k] / (1 - 0.999**t)) + 1e-8)

    step.gradient, step.weights, step.rng = gradient, p, rng  # for its test
    return step


TUTORIAL_ACTIVATIONS = {
    "relu": (lambda a: np.maximum(a, 0), lambda y: (y > 0).astype(float)),
    "tanh": (np.tanh, lambda y: 1 - y**2),
}


def no_layers(case: Case, dtype: type = np.float32) -> Step:
    """One function for the whole step, and a loop of Numba's for what NumPy takes several passes.

    It shows what the layers of scratchvae cost.
    """
    from numba import njit

    loop = njit(error_model="numpy", fastmath={"reassoc"})
    zero, one, tiny = dtype(0), dtype(1), np.finfo(dtype).tiny

    @loop
    def relu(y, b):
        for i in range(y.shape[0]):
            for j in range(y.shape[1]):
                y[i, j] = max(y[i, j] + b[j], zero)

    @loop
    def relu_backward(dy, y):
        for i in range(dy.size):
            dy[i] = dy[i] if y[i] > 0 else zero

    def tanh(y, b):
        y += b
        np.tanh(y, out=y)

    @loop
    def tanh_backward(dy, y):
        for i in range(dy.size):
            dy[i] *= one - y[i] * y[i]

    @loop
    def bias(logits, b, e):
        for i in range(e.shape[0]):
            for j in range(e.shape[1]):
                logits[i, j] += b[j]
                e[i, j] = -abs(logits[i, j])

    @loop
    def bernoulli(x, logits, e, log1p_e, weight):
        total = 0.0
        for i in range(x.shape[0]):
            for j in range(x.shape[1]):
                a = logits[i, j]
                total += max(a, zero) + log1p_e[i, j] - x[i, j] * a
                top = one if a >= 0 else e[i, j]
                logits[i, j] = weight * (top / (one + e[i, j]) - x[i, j])
        return total

    @loop
    def adam(value, g, m, v, rate):
        for i in range(value.size):
            m[i] += dtype(0.1) * (g[i] - m[i])
            v[i] += dtype(0.001) * (g[i] * g[i] - v[i])
            value[i] -= rate * m[i] / (math.sqrt(v[i]) + dtype(1e-8))

    act, act_backward = {"relu": (relu, relu_backward), "tanh": (tanh, tanh_backward)}[
        case.activation
    ]
    *hidden, latent = case.sizes[1:]
    shapes = [*itertools.pairwise((784, *hidden, 2 * latent))]
    code = len(shapes) - 1  # the layer that gives mu and logvar
    shapes += itertools.pairwise((latent, *reversed(hidden), 784))
    ends = np.cumsum([(n_in + 1) * n_out for n_in, n_out in shapes])
    value, grad, m, v = np.zeros((4, ends[-1]), dtype)

    def views(vector: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        parts = zip(np.split(vector, ends[:-1]), shapes, strict=True)
        return [(part[:-n].reshape(-1, n), part[-n:]) for part, (_, n) in parts]

    p, g, rng = views(value), views(grad), np.random.default_rng(0)
    for w, b in p:
        w[...], b[...] = (rng.uniform(-(len(w) ** -0.5), len(w) ** -0.5, a.shape) for a in (w, b))

    def gradient(x: np.ndarray, eps: np.ndarray) -> float:
        inputs, y = [], x
        for i, (w, b) in enumerate(p):
            inputs.append(y)
            y = y @ w
            if i == code:
                y += b
                mu, logvar = y[:, :latent], y[:, latent:]
                sigma, change = np.exp(dtype(0.5) * logvar), np.expm1(logvar)  # sigma^2 - 1
                kl = dtype(0.5) * (mu * mu + change - logvar).sum(dtype=np.float64)
                y = mu + sigma * eps
            elif i < len(p) - 1:
                act(y, b)
        e = np.empty_like(y)
        bias(y, b, e)
        np.exp(e, out=e)
        loss = (bernoulli(x, y, e, np.log1p(e), dtype(1 / len(x))) + kl) / len(x)
        dy = y  # which `bernoulli` wrote over
        for i in reversed(range(len(p))):
            np.matmul(inputs[i].T, dy, out=g[i][0])
            dy.sum(axis=0, out=g[i][1])
            if i == 0:
                break
            dy = dy @ p[i][0].T
            if i == code + 1:
                dmu, dlogvar = dy + mu / len(x), dy * eps * (dtype(0.5) * sigma)
                dlogvar += dtype(0.5) * change / len(x)
                dy = np.concatenate([dmu, dlogvar], axis=1)
            else:
                act_backward(dy.ravel(), inputs[i].ravel())
        return loss

    data, rows, t = images(case.n), batches(case, rng), 0

    def step(n: int) -> None:
        nonlocal t
        for _ in range(n):
            x = np.divide(data[next(rows)], 255, dtype=dtype)
            loss, t = gradient(x, rng.standard_normal((len(x), latent), dtype)), t + 1
            if not math.isfinite(loss + grad @ grad):
                raise RuntimeError("the loss is not finite")
            if t % 64 == 0:
                m[np.abs(m) < tiny] = 0
            adam(value, grad, m, v, dtype(1e-3 * math.sqrt(1 - 0.999**t) / (1 - 0.9**t)))

    step.gradient, step.weights, step.gradients = gradient, p, g  # for its test
    return step


def _torch(case: Case, *, logits: bool, fused: bool, compiled: str = "", graph=False) -> Step:
    import torch
    from torch import nn
    from torch.nn import functional as F

    torch.manual_seed(0)
    # By its own setting, which every release knows: "high" is TF32. gpu_check.py says which.
    tf32 = os.environ.get("CUPY_TF32") == "1"
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    device = torch.device("cuda" if case.device == "cuda" else "cpu")
    activation = {"relu": nn.ReLU, "tanh": nn.Tanh}[case.activation]

    class VAE(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            *widths, latent = case.sizes
            encoder, decoder, last = [], [], widths[-1]
            if case.network == "conv":
                image = widths[-1], *[28 // 2 ** len(widths[1:])] * 2
                last = math.prod(image)
                encoder, decoder = [nn.Unflatten(1, (1, 28, 28))], [nn.Flatten()]
                for n_in, n_out in itertools.pairwise([1, *widths[1:]]):
                    encoder += [nn.Conv2d(n_in, n_out, 3, 2, 1), activation()]
                    grow = nn.ConvTranspose2d(n_out, n_in, 3, 2, 1, 1)
                    decoder = [grow, *([activation()] if n_in > 1 else []), *decoder]
                encoder, decoder = [*encoder, nn.Flatten()], [nn.Unflatten(1, image), *decoder]
            else:
                for n_in, n_out in itertools.pairwise(widths):
                    encoder += [nn.Linear(n_in, n_out), activation()]
                    decoder = [nn.Linear(n_out, n_in), activation(), *decoder]
                decoder = decoder[:-1]
            self.encoder = nn.Sequential(*encoder)
            self.mu, self.logvar = nn.Linear(last, latent), nn.Linear(last, latent)
            self.decoder = nn.Sequential(nn.Linear(latent, last), activation(), *decoder)

        def forward(self, x):
            h = self.encoder(x)
            mu, logvar = self.mu(h), self.logvar(h)
            std = torch.exp(0.5 * logvar)
            eps = torch.randn_like(std.expand(case.samples, *std.shape) if case.samples else std)
            return self.decoder(mu + eps * std), mu, logvar, eps

    def bound_of(x):
        """Return the negative of the importance-weighted bound, summed over the batch."""
        out, mu, logvar, eps = model(x)
        z = mu + eps * torch.exp(0.5 * logvar)
        nll = F.binary_cross_entropy_with_logits(out, x.expand_as(out), reduction="none").sum(-1)
        # log p(z) - log q(z|x), where log(2 pi) cancels
        log_w = 0.5 * (logvar + eps.pow(2) - z.pow(2)).sum(-1) - nll  # (K, B)
        return (math.log(case.samples) - torch.logsumexp(log_w, dim=0)).sum()

    def loss_of(x):
        out, mu, logvar, _ = model(x)
        if logits:
            bce = F.binary_cross_entropy_with_logits(out, x, reduction="sum")
        else:
            bce = F.binary_cross_entropy(torch.sigmoid(out), x, reduction="sum")
        return bce - 0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())

    model = VAE().to(device)
    options = {"fused": fused or None, "capturable": graph and device.type == "cuda"}
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, **options)
    data = torch.from_numpy(images(case.n)).to(device).float() / 255
    on_device = lambda order: torch.from_numpy(order).to(device)  # noqa: E731
    rows = batches(case, np.random.default_rng(0), on_device)
    if case.samples:
        loss_of = bound_of
    if compiled:
        loss_of = torch.compile(loss_of, mode=compiled)

    def train_on(x):
        optimizer.zero_grad()
        loss = loss_of(x)
        loss.backward()
        optimizer.step()
        return loss.detach()

    def train(chosen):
        return train_on(data[chosen])

    if graph:
        train = _captured(train, next(rows).clone())

    def step(n: int) -> None:
        total = 0.0
        for _ in range(n):
            # The example reads every loss. Who does not want the GPU to stand still reads the sum.
            loss = train(next(rows))
            total += loss.item() if device.type == "cpu" or not fused else loss
        if not math.isfinite(float(total)):
            raise RuntimeError("the loss is not finite")

    step.model, step.loss_of, step.train_on = model, loss_of, train_on
    return step


class Images:
    """MNIST as PyTorch's data loader takes it: images that are converted one by one."""

    def __init__(self, part: str) -> None:
        self.x = read_images(mnist_file(part))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int):
        import torch

        return torch.tensor(self.x[i]).float() / 255


def torch_until(target: float, sizes: tuple[int, ...] = (784, 400, 20), epochs: int = 100) -> None:
    """Train PyTorch's example on MNIST until the test loss is at most `target`, in nats.

    As the example does, with one process of the data loader's. A line for each epoch.
    """
    import torch
    from torch.utils.data import DataLoader

    step = torch_example(Case(sizes, "relu", 128, n=128))
    options = {"batch_size": 128, "num_workers": 1}
    train, test = DataLoader(Images("train"), shuffle=True, **options), Images("t10k")
    for epoch in range(1, epochs + 1):
        for x in train:
            step.train_on(x).item()
        with torch.no_grad():
            loss = sum(step.loss_of(x).item() for x in DataLoader(test, **options)) / len(test)
        print(f"epoch {epoch}: test loss {loss:.2f}", flush=True)
        if loss <= target:
            break


def _captured(train, chosen):
    """Return `train` as one CUDA graph, in the way PyTorch's documentation gives."""
    import torch

    if chosen.device.type != "cuda":
        return train
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            train(chosen)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = train(chosen)

    def replay(rows):
        chosen.copy_(rows)
        graph.replay()
        return loss.clone()

    return replay


def torch_example(case: Case) -> Step:
    """PyTorch eager as its own VAE example has it: sigmoid, binary_cross_entropy, Adam."""
    return _torch(case, logits=False, fused=False)


def torch_fused(case: Case) -> Step:
    """PyTorch eager with the loss on logits and Adam(fused=True)."""
    return _torch(case, logits=True, fused=True)


def torch_compile(case: Case) -> Step:
    """The same with torch.compile on model and loss."""
    mode = "default" if case.device == "cpu" else "reduce-overhead"  # which is CUDA graphs
    return _torch(case, logits=True, fused=True, compiled=mode)


def torch_graph(case: Case) -> Step:
    """PyTorch with the whole step, gather and fused Adam included, captured into a CUDA graph."""
    return _torch(case, logits=True, fused=True, graph=True)


def jax_jit(case: Case) -> Step:
    """JAX: gather, noise, gradient and Adam in one jitted function with donated buffers."""
    return _jax(case, steps_at_once=1)


def jax_scan(case: Case) -> Step:
    """The same, and ten steps in one call through lax.scan."""
    return _jax(case, steps_at_once=10)


def _jax(case: Case, *, steps_at_once: int) -> Step:
    import jax
    from jax import numpy as jnp

    *widths, latent = case.sizes
    stack = [*widths, 2 * latent], [latent, *reversed(widths)]
    rng = np.random.default_rng(0)
    params = [
        [
            (
                jnp.asarray(rng.uniform(-(a**-0.5), a**-0.5, (a, b)), jnp.float32),
                jnp.zeros(b, jnp.float32),
            )
            for a, b in itertools.pairwise(sizes)
        ]
        for sizes in stack
    ]
    act = {"relu": jax.nn.relu, "tanh": jnp.tanh}[case.activation]

    def mlp(layers, x):
        for w, b in layers[:-1]:
            x = act(x @ w + b)
        w, b = layers[-1]
        return x @ w + b

    def loss_of(params, x, eps):
        code = mlp(params[0], x)
        mu, logvar = code[:, :latent], code[:, latent:]
        out = mlp(params[1], mu + jnp.exp(0.5 * logvar) * eps)
        bce = jnp.sum(jax.nn.softplus(out) - x * out)
        kl = -0.5 * jnp.sum(1 + logvar - mu**2 - jnp.exp(logvar))
        return (bce + kl) / len(x)

    def train(state, data, rows):
        params, m, v, t, key = state
        key, sub = jax.random.split(key)
        x = data[rows].astype(jnp.float32) / 255
        eps = jax.random.normal(sub, (len(rows), latent))
        loss, g = jax.value_and_grad(loss_of)(params, x, eps)
        t += 1
        tree = jax.tree_util.tree_map
        m = tree(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = tree(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
        rate = 1e-3 * jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        params = tree(lambda p, m, v: p - rate * m / (jnp.sqrt(v) + 1e-8), params, m, v)
        return (params, m, v, t, key), loss

    @functools.partial(jax.jit, donate_argnums=0)
    def train_all(state, data, rows):
        return jax.lax.scan(lambda state, rows: train(state, data, rows), state, rows)

    jitted = jax.jit(train, donate_argnums=0)
    zeros = lambda: jax.tree_util.tree_map(jnp.zeros_like, params)  # noqa: E731
    state = (params, zeros(), zeros(), jnp.float32(0), jax.random.PRNGKey(0))
    data = jnp.asarray(images(case.n))
    if case.device == "cuda" and data.device.platform == "cpu":
        raise RuntimeError("JAX finds no GPU")
    xp = np if data.device.platform == "cpu" else jnp  # where the order of the images lies
    rows = batches(case, rng, xp.asarray)

    def step(n: int) -> None:
        nonlocal state
        for i in range(n):
            if steps_at_once == 1:
                state, loss = jitted(state, data, next(rows))
            elif i % steps_at_once == 0:
                some = xp.stack([next(rows) for _ in range(min(steps_at_once, n - i))])
                state, loss = train_all(state, data, some)
        if not np.isfinite(loss).all():
            raise RuntimeError("the loss is not finite")

    return step


NO_KERNELS = {"SCRATCHVAE_COMPILED": "0"}

# The name in the tables -> (function, environment).
CONTESTANTS = {
    "matrix products": (products, {}),
    "scratchvae": (scratchvae, NO_KERNELS),
    "scratchvae[fast]": (scratchvae, {}),
    "Numba, no layers": (no_layers, {}),
    "tutorial NumPy": (tutorial, {}),
    "PyTorch, its example": (torch_example, {}),
    "PyTorch, fused Adam": (torch_fused, {}),
    "torch.compile": (torch_compile, {}),
    "JAX jit": (jax_jit, {}),
}

# Who has the network of convolutions and importance weights, too.
OTHER_MODELS = ("scratchvae", "scratchvae[fast]", "PyTorch, its example", "PyTorch, fused Adam")
# Who shows what else a step costs.
IN_MEMORY_OR_NOT = {
    "in memory": (scratchvae, {}),
    "in a mapped file": (scratchvae_mapped, {}),
}
# What can be had on a GPU.
ON_A_GPU = {
    "PyTorch, its example": (torch_example, {}),
    "PyTorch, fused Adam": (torch_fused, {}),
    "torch.compile": (torch_compile, {}),
    "PyTorch, CUDA graph": (torch_graph, {}),
    "JAX jit": (jax_jit, {}),
    "JAX lax.scan": (jax_scan, {}),
    "scratchvae, no kernels": (scratchvae, NO_KERNELS),
    "scratchvae": (scratchvae, {}),
}
