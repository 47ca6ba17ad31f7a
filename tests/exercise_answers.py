"""Wrong answers to the exercises, at least three for each, with a part of what is said to each.

Each is appended to the untouched sheet, as a reader would write it instead of the missing lines.
"""

import textwrap

from scratchvae.exercises import exercises


def backward(name, *lines):
    """Return a backward of the two arguments that all have."""
    return "\n    ".join([f"\ndef {name}(d, cache):", *lines])


def relu(line):
    return backward("relu_backward", f"return {line}")


def sigmoid(line):
    return backward("sigmoid_backward", f"return {line}")


def linear(line):
    return backward("linear_backward", "x, W = cache", f"return {line}")


def draw(line):
    return backward("reparameterize_backward", "sigma, eps = cache", f"return {line}")


def kl(line):
    return backward("kl_standard_normal_backward", "mu, logvar = cache", f"return {line}")


def bernoulli(line):
    s = "s = 1 / (1 + np.exp(-logits))"
    return backward("bernoulli_nll_backward", "x, logits = cache", s, f"return {line}")


def density(line):
    lines = "diff, p = cache", "d = d[:, None]", f"return {line}"
    return backward("log_density_backward", *lines)


def variance(dlogvar, dmean="-d * diff * p"):
    lines = "diff, p = cache", "d = d[:, None]", f"return {dmean}, {dlogvar}"
    return backward("gaussian_nll_backward", *lines)


def adam(
    c1="1 - b1**t", c2="1 - b2**t", step="(m / c1) / (np.sqrt(v / c2) + eps)", m="g", v="g * g",
    value="value - lr * step", result="value, m, v",
):  # fmt: skip
    return f"""
def adam_step(value, g, m, v, t, lr, b1, b2, eps):
    m = b1 * m + (1 - b1) * ({m})
    v = b2 * v + (1 - b2) * ({v})
    c1, c2 = {c1}, {c2}
    step = {step}
    value = {value}
    return {result}
"""


def whole(dcode, beta="self.beta", sign="", head="", tail=""):
    return f"""
def backward(self, dloss, cache):
    {head}
    encoder_cache, z_cache, decoder_cache, nll_cache, kl_cache = cache
    dz = self.decoder.backward({sign}self.nll_backward(dloss, nll_cache), decoder_cache)
    a, b = self.reparameterize_backward(dz, z_cache)
    c, d = self.kl_backward({beta} * dloss, kl_cache)
    self.encoder.backward(np.concatenate({dcode}, axis=1), encoder_cache)
    {tail}


MyVAE.backward = backward
"""


def predict(expression, argument=""):
    return f"def answer({argument}): return {expression}" if argument else f"answer = {expression}"


def test(name, *lines):
    return "\n    ".join([f"\ndef find_the_bug({name}):", *lines])


def repair(name):
    """Return the three wrong answers that every repair has: a test that is blind, or blind with
    rage, and a good one without the repair."""
    (sheet,) = [s for s in exercises() if s.name == name]
    f = sheet.exercise.pair[0].__name__
    return [
        (test(f, "pass"), f"find_the_bug lets the {f} with the bug pass"),
        (test(f, "assert False, 'I am sure'"), f"fails on the right {f} too, not only on the wrong "
         "one (it says: I am sure)"),
        (sheet.exercise.code, f"Your test finds the bug, but {f} still has it: mend it."),
    ]  # fmt: skip


def loop(*lines):
    return "\n    ".join(["\ndef train(model, optimizer, x, epochs, rng):", *lines])


def each_batch(*lines, order="rng.permutation(len(x))", size=50):
    head = (
        "for epoch in range(epochs):",
        f"    order = {order}",
        f"    for i in range(0, len(x), {size}):",
    )
    return loop(*head, *(f"        {line}" for line in lines))


# A loss that is right until exp overflows, and a test of it that knows.
overflowing = """
def bernoulli_nll(x, logits):
    nll = (np.log1p(np.exp(logits)) - x * logits).sum(axis=1)
    return nll, (x, logits)


def bernoulli_nll_backward(dnll, cache):
    x, logits = cache
    return dnll[:, None] * (1 / (1 + np.exp(-logits)) - x)


def find_the_bug(bernoulli_nll):
    nll, _ = bernoulli_nll(np.zeros((1, 1)), np.full((1, 1), 50.0))
    assert abs(nll[0] - 50) < 1e-9
"""


def nll(expression):
    return f"def nll(log_w): return {expression}"


def settings(**changed):
    known = {"hidden": (20,), "latent_dim": 2, "activation": "relu", "lr": 1e-3}
    return f"settings = {known | {'batch_size': 50, 'epochs': 4} | changed}"


def build(encoder, decoder="Sequential([Linear(latent_dim, 9), Relu(), Linear(9, 64)])", head=""):
    return f"{head}\ndef build(Linear, Relu, latent_dim): return {encoder}, {decoder}"


GRADIENT, STEP = "model.loss_and_grad(x[order[i : i + 50]])", "optimizer.step()"
D = "d[:, None]"

WRONG = {
    "01_relu": [
        (relu("d"), "It is dy itself: the derivative of the forward pass is missing."),
        (relu("-d * (cache > 0)"), "Its sign is wrong in every coordinate."),
        (relu("d * cache"), "multiplies dy by y: the derivative of max(x, 0) is 1 or 0, not y"),
        (relu("cache > 0"), "without dy: the chain rule multiplies"),
        (relu("None"), "is its `return` missing?"),
        (relu("(d * (cache > 0)).astype('f4')"), "float32"),
        (relu("(d * (cache > 0)).tolist()"), "relu_backward returns a list: expected an array, dx"),
    ],
    "02_sigmoid": [
        (sigmoid("d * cache"), "It lacks the factor (1 - y)."),
        (sigmoid("cache * (1 - cache)"), "backward does not multiply by dy"),
        (sigmoid("d * (1 - cache**2)"), "has the derivative of tanh"),
        (sigmoid("d * np.exp(-cache) / (1 + np.exp(-cache)) ** 2"), "which is y already"),
    ],
    "03_linear": [
        (linear("d @ W.T, x.T @ d / len(x), d.mean(axis=0)"), "averages over the batch"),
        (linear("d @ W.T, d.T @ x, d.sum(axis=0)"), "It is the right one transposed."),
        (linear("d @ W.T, x.T @ d, d"), "b is broadcast to"),
        (linear("d @ W.T, 2 * x.T @ d, d.sum(axis=0)"), "gradient of W: It is 2 times"),
        (linear("d @ W, x.T @ d, d.sum(axis=0)"), "in linear_backward: ValueError: matmul"),
    ],
    "04_draw": [
        (draw("d, d * eps"), "the gradient of sigma where that of logvar belongs"),
        (draw("d, d * eps * sigma"), "It is 2 times the right one"),
        (draw("d, d * sigma / 2"), "It lacks the factor eps."),
        (draw("d, 0 * d"), "gives logvar no gradient"),
        (draw("d, d * np.random.standard_normal(d.shape)"), "it draws noise again"),
    ],
    "05_length": [
        (predict("n", "n"), "That is the mean of the squared length"),
        (predict("0", "n"), "Single draws point in all directions"),
        (predict("1", "n"), "in one dimension; there are n of them"),
        (predict("7.5", "n"), "the mean length of a draw is not that."),
        (predict("3 * np.sqrt(n)", "n"), "Too large: the mean length of a draw is not that."),
        (predict("np.nan", "n"), "answer is nan: expected a number."),
    ],
    "06_sigma": [
        *repair("06_sigma"),
        (
            test("f", "z, _ = f(np.zeros(9), np.zeros(9), np.ones(9))", "assert (z == 1).all()"),
            "lets the reparameterize with the bug pass",
        ),
        (test("f", "return False"), "find_the_bug returns a bool: expected that it raises"),
    ],
    "07_kl": [
        (kl(f"{D} * mu, {D} * np.exp(logvar) / 2"), "dlogvar lacks the term -1/2"),
        (kl(f"{D} * mu, {D} * (np.exp(logvar) - 1)"), "2 times the right dlogvar"),
        (kl(f"{D} * 2 * mu, {D} * (np.exp(logvar) - 1) / 2"), "gradient of mu: It is 2 times"),
        (kl("mu, (np.exp(logvar) - 1) / 2"), "backward does not multiply by dkl"),
        (kl("d * mu, d * (np.exp(logvar) - 1) / 2"), "operands could not be broadcast"),
    ],
    "08_nats": [
        (predict("(sigma**2 - 1) / 2 - np.log(sigma)", "sigma"), "That is the KL at mu = 0 alone."),
        (predict("-2 * np.log(sigma)", "sigma"), "the KL holds half of it"),
        (predict("-np.log2(sigma)", "sigma"), "That is the answer in bits"),
        (predict("0", "sigma"), "Too small: the mean KL in nats is not that."),
        (predict("-np.log(sigma) - 0.5", "sigma"), "Too small: the mean KL in nats is not that."),
        (predict("1 / (2 * sigma)", "sigma"), "the mean KL in nats is not that."),
        (predict("-np.log(sigma) + 1", "sigma"), "Too large: the mean KL in nats is not that."),
        (predict("-np.log(sigma) / 2", "sigma"), "Too small: the mean KL in nats is not that."),
    ],
    "09_kl_mean": repair("09_kl_mean"),
    "10_kl_sign": repair("10_kl_sign"),
    "11_bernoulli": [
        (bernoulli(f"{D} * (x - s)"), "Its sign is wrong in every coordinate."),
        (bernoulli(f"{D} * (np.exp(logits) / (1 + np.exp(logits)) - x)"), "is not finite every"),
        (bernoulli(f"{D} * (logits - x)"), "takes the logits for probabilities"),
        (bernoulli(f"{D} * (-x / s + (1 - x) / (1 - s))"), "the gradient of the probabilities"),
        (bernoulli(f"{D} * (s - x) / len(x)"), "averages over the batch"),
    ],
    "12_untrained": [
        (predict("D", "D"), "That is the loss in bits"),
        (predict("np.log(2)", "D"), "the pixels of an image add up"),
        (predict("D / 2", "D"), "That is the sum of |x - 1/2|"),
        (predict("'much'", "D"), "answer is a str: expected a number."),
    ],
    "13_probabilities": [
        *repair("13_probabilities"),
        (overflowing, "bernoulli_nll is not right yet"),
    ],
    "14_pixel_mean": repair("14_pixel_mean"),
    "15_density": [
        (density("-d * diff * p, -d * diff * p, d * (diff**2 * p - 1) / 2"), "so dmu = -dz"),
        (density("-d * diff * p, d * diff * p, d * diff**2 * p / 2"), "lacks the term -1/2"),
        (density("-d * diff * p, d * diff * p, -d * (diff**2 * p - 1) / 2"), "Its sign is wrong"),
        (density("-d * diff, d * diff, d * (diff**2 * p - 1) / 2"), "gradient of mu: "),
    ],
    "16_variance": [
        (variance("(d * (1 - diff**2 * p) / 2).mean().reshape(1)"), "averages dlogvar over pixels"),
        (variance("(-d * diff**2 * p / 2).sum().reshape(1)"), "would grow without end"),
        (variance("d * (1 - diff**2 * p) / 2"), "does not sum dlogvar"),
        (variance("(d * (1 - diff**2 * p) / 2).sum().reshape(1)", "d * diff * p"), "Its sign is"),
    ],
    "17_constant": repair("17_constant"),
    "18_adam": [
        (adam(value="value + lr * step"), "goes uphill"),
        (adam(value="lr * step"), "returns the step alone"),
        (adam(value="-lr * step"), "returns the step alone"),
        (adam(value="value - step"), "leaves the learning rate lr out"),
        (adam(step="g / (np.sqrt(v / c2) + eps)"), "where m, the running mean, belongs"),
        (adam(c1="1 - b1 * t", c2="1 - b2 * t"), "multiplies beta by t"),
        (adam(c1="1 - b1 ** (t - 1)", c2="1 - b2 ** (t - 1)"), "where this divides by 0"),
        (adam(c1="1", c2="1"), "lacks the correction of the bias"),
        (adam(step="(m / c1) / np.sqrt(v / c2 + eps)"), "adds eps under the root"),
        (adam(step="(m / c1) / (v / c2 + eps)"), "not by its root"),
        (adam(v="g"), "puts g into v"),
        (adam(step="(m / c1) / np.sqrt(v / c2)"), "leaves eps out"),
        (adam(result="m, v, value"), "returns them in another order: expected value, m, v"),
        (adam(result="value, m / c1, v / c2"), "returns m and v after the correction of the bias"),
        ("def adam_step(*args): return args[0]", "does not return value, m, v"),
    ],
    "19_backward": [
        (whole("[a, b]"), "forgets the path through the KL"),
        (whole("[c, d]"), "forgets the path through z"),
        (whole("[b + d, a + c]"), "hands the encoder [dlogvar | dmu]"),
        (whole("[a + c, b + d]", beta="1"), "forgets beta"),
        (whole("[a + c, b + d]", sign="-"), "Its sign is wrong"),
        (whole("[a + c, b + d]", head="dloss = 0 * dloss + 1 / len(dloss)"), "each example's own"),
        (whole("[a + c, b + d]", tail="dloss[...] = 7"), "changes dloss in place"),
    ],
    "20_loop": [
        (loop("pass"), "train never calls model.loss_and_grad"),
        (each_batch(GRADIENT), "train never calls optimizer.step()"),
        (each_batch("model.loss_and_grad(x[:50])", STEP), "50 different rows, and there are 1,500"),
        (each_batch(GRADIENT, STEP, order="np.arange(len(x))"), "in an order of an epoch before"),
        (each_batch("rows = x[i : i + 50]", "rng.shuffle(rows)", "model.loss_and_grad(rows)", STEP),
         "the batches hardly mix"),
        (each_batch(GRADIENT, STEP, order="np.concatenate([100 * k + rng.permutation(100) "
                    "for k in range(15)])"), "the batches hardly mix"),
        (each_batch(GRADIENT, STEP, order="np.roll(np.arange(len(x)), epoch)"),
         "the batches hardly mix"),
        (each_batch(GRADIENT, STEP, order="rng.permutation(len(x) // 50)[:, None] * 50"
                    " + np.arange(50)\n        order = order.ravel()"), "the batches hardly mix"),
        (each_batch(GRADIENT, STEP, order="np.random.default_rng(epoch % 2).permutation(len(x))"),
         "in an order of an epoch before"),
        (each_batch("model.loss_and_grad(x[order])", STEP, size=2000), "batches of 50 rows"),
        (each_batch(GRADIENT, STEP, STEP), "one step follows each loss_and_grad"),
        (each_batch(STEP, GRADIENT), "calls optimizer.step() before model.loss_and_grad(batch)"),
        (each_batch(GRADIENT, STEP, order="rng.integers(0, len(x), len(x))"), "some rows twice"),
        (each_batch(GRADIENT.replace("])", "] * 0.999)"), STEP), "rows that are not those of x"),
        (each_batch(GRADIENT, STEP).replace("(epochs)", "(20)"), "`epochs` says how many"),
    ],
    "21_beta": [
        (predict("20"), "That many are active with beta = 1."),
        (predict("10"), "Half would do if"),
        (predict("5"), "Too large: the number of active units is not that."),
        (predict("-1"), "answer is -1: the number of active units is from 0 to 20."),
        (predict("'none'"), "answer is a str: expected a number."),
    ],
    "22_nll": [
        (nll("-log_w.mean(axis=0)"), "takes the mean of the logs, which is the ELBO again"),
        (nll("-np.log(np.exp(log_w).mean(axis=0))"), "nll is infinite"),
        (nll("-np.logaddexp.reduce(log_w)"), "their mean lacks the term log K"),
        (nll("np.logaddexp.reduce(log_w) - np.log(len(log_w))"), "wrong sign"),
        (nll("-log_w.min(0) - np.log(np.exp(log_w - log_w.min(0)).mean(axis=0))"), "nll overflows"),
        (nll("-log_w.mean(0) - np.log(np.exp(log_w - log_w.mean(0)).mean(0))"), "nll overflows"),
        (nll("500 - np.log(np.exp(log_w + 500).mean(axis=0))"), "nll is wrong"),
        (nll("-log_w.max() - np.log(np.exp(log_w - log_w.max()).mean(axis=0))"),
         "also after the largest of another example"),
        (nll("-log_w.max(axis=0)"), "takes the largest weight of each example alone"),
    ],
    "23_settings": [
        (settings(), "It is still falling, by"),
        (settings(epochs=2), "So few epochs tell little"),
        (settings(beta=0.1), "With another beta the loss is no bound."),
        (settings(epochs=1000), "epochs is 1000: expected 150 at most"),
        (settings(activation="swish"), "unknown activation 'swish'"),
        ("settings = 3", "settings is a int: expected a dict"),
    ],
    "24_your_vae": [
        (build("Sequential([Linear(64, 9), Relu(), Linear(9, latent_dim)])"), "expected (3, 4)"),
        (build("Sequential([Linear(64, 4)])", "Sequential([Linear(2, 64)])"),
         "the encoder uses Linear(64, 4): expected Linear(64, 100), Relu(), Linear(100, 4)."),
        (build("Sequential([Linear(64, 100), Relu(), Linear(100, 4)])",
               "Sequential([Linear(2, 100), Relu(), Linear(100, 64), Relu()])"),
         "the decoder uses Linear(2, 100), Relu(), Linear(100, 64), Relu(): expected"),
        ("def build(*args): return Sequential([])", "returns a Sequential: expected the pair"),
        (build("Sequential([Linear(64, 100), Relu(), Linear(100, 4)])",
               "Sequential([Linear(2, 100), Relu(), Linear(100, 64), Activation('sigmoid')])",
               "from scratchvae import Activation"),
         "The decoder ends in a sigmoid: the loss takes logits, which may be any number."),
        (build("Sequential([Linear(64, 100), Relu(), Linear(100, 4), Activation('tanh')])",
               "Sequential([Linear(2, 100), Relu(), Linear(100, 64)])",
               "from scratchvae import Activation"),
         "The encoder gives other numbers than its Linear(64, 100), Relu(), Linear(100, 4) do"),
    ],
}  # fmt: skip


# A reader's own right answers, which are not the lines of the package: what each replaces.
RIGHT = {
    "01_relu": [
        ("raise NotImplementedError", "return dy * (y > 0)"),
    ],
    "02_sigmoid": [
        ("raise NotImplementedError", "return dy * y * (1 - y)"),
    ],
    "03_linear": [
        ("raise NotImplementedError", "return dy @ W.T, x.T @ dy, dy.sum(0)"),
    ],
    "04_draw": [
        ("raise NotImplementedError", "return dz, dz * eps * sigma / 2"),
    ],
    "05_length": [
        ("raise NotImplementedError", "return np.sqrt(n)"),
    ],
    "06_sigma": [
        ("np.exp(logvar)\n", "np.exp(logvar / 2)\n"),
        ("return dz, dz * eps * sigma\n", "return dz, dz * eps * sigma / 2\n"),
        (
            "raise NotImplementedError",
            """n = 200000
    rng = np.random.default_rng()
    for logvar in (-2.0, 1.0):
        z, _ = reparameterize(0.0, logvar, rng.standard_normal(n))
        assert abs(np.std(z) - np.exp(logvar / 2)) < 0.02 * np.exp(logvar / 2)""",
        ),
    ],
    "07_kl": [
        (
            "raise NotImplementedError",
            "return dkl[:, None] * mu, dkl[:, None] * (np.exp(logvar) - 1) / 2",
        ),
    ],
    "08_nats": [
        ("raise NotImplementedError", "return np.log(1 / sigma)"),
    ],
    "09_kl_mean": [
        (".mean(axis=1)", ".sum(axis=1)"),
        ("dkl[:, None] / mu.shape[1]", "dkl[:, None]"),
        (
            "raise NotImplementedError",
            """one, _ = kl_standard_normal(np.ones((1, 1)), np.zeros((1, 1)))
    two, _ = kl_standard_normal(np.ones((1, 2)), np.zeros((1, 2)))
    assert np.allclose(two, 2 * one)""",
        ),
    ],
    "10_kl_sign": [
        ("- 1 + logvar)", "- 1 - logvar)"),
        ("(np.exp(logvar) + 1)", "(np.exp(logvar) - 1)"),
        (
            "raise NotImplementedError",
            """rng = np.random.default_rng()
    kl, _ = kl_standard_normal(rng.standard_normal((500, 2)) * 0.1, rng.standard_normal((500, 2)))
    assert (kl >= 0).all()""",
        ),
    ],
    "11_bernoulli": [
        ("raise NotImplementedError", "return dnll[:, None] * (1 / (1 + np.exp(-logits)) - x)"),
    ],
    "12_untrained": [
        ("raise NotImplementedError", "return D * np.log(2)"),
    ],
    "13_probabilities": [
        (
            """    y = 1 / (1 + np.exp(-logits))
    nll = -(x * np.log(y + 1e-9) + (1 - x) * np.log(1 - y + 1e-9)).sum(axis=1)
    return nll, (x, y)""",
            """    nll = (np.logaddexp(0, logits) - x * logits).sum(axis=1)
    return nll, (x, 1 / (1 + np.exp(-logits)))""",
        ),
        (
            """    dy = -x / (y + 1e-9) + (1 - x) / (1 - y + 1e-9)
    return dnll[:, None] * dy * y * (1 - y)""",
            "    return dnll[:, None] * (y - x)",
        ),
        (
            "raise NotImplementedError",
            """nll, _ = bernoulli_nll(np.array([[1.0]]), np.array([[-50.0]]))
    assert abs(nll[0] - 50) < 0.1""",
        ),
    ],
    "14_pixel_mean": [
        (".mean(axis=1)", ".sum(axis=1)"),
        ("dnll[:, None] / x.shape[1]", "dnll[:, None]"),
        (
            "raise NotImplementedError",
            """nll, _ = bernoulli_nll(np.zeros((1, 10)), np.zeros((1, 10)))
    assert abs(nll[0] - 10 * np.log(2)) < 1e-6""",
        ),
    ],
    "15_density": [
        (
            "raise NotImplementedError",
            """d = dlogp[:, None]
    dz = -d * diff * precision
    return dz, -dz, d * (diff**2 * precision - 1) / 2""",
        ),
    ],
    "16_variance": [
        (
            "raise NotImplementedError",
            """d = dnll[:, None]
    return -d * diff * precision, np.array([(d * (1 - diff**2 * precision) / 2).sum()])""",
        ),
    ],
    "17_constant": [
        ("0.5 * (logvar +", "0.5 * (np.log(2 * np.pi) + logvar +"),
        (
            "raise NotImplementedError",
            """nll, _ = gaussian_nll(np.zeros((1, 3)), np.zeros((1, 3)), np.zeros(1))
    assert abs(nll[0] - 1.5 * np.log(2 * np.pi)) < 1e-9""",
        ),
    ],
    "18_adam": [
        (
            "raise NotImplementedError",
            """m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    mhat, vhat = m / (1 - beta1**t), v / (1 - beta2**t)
    return value - lr * mhat / (np.sqrt(vhat) + eps), m, v""",
        ),
    ],
    "19_backward": [
        (
            "raise NotImplementedError",
            """doutput = self.nll_backward(dloss, nll_cache)
        dz = self.decoder.backward(doutput, decoder_cache)
        dmu1, dlogvar1 = self.reparameterize_backward(dz, z_cache)
        dmu2, dlogvar2 = self.kl_backward(self.beta * dloss, kl_cache)
        dcode = np.concatenate([dmu1 + dmu2, dlogvar1 + dlogvar2], axis=1)
        self.encoder.backward(dcode, encoder_cache)""",
        ),
    ],
    "20_loop": [
        (
            "raise NotImplementedError",
            """order = rng.permutation(len(x))
        for batch in np.array_split(x[order], 30):
            model.loss_and_grad(batch)
            optimizer.step()""",
        ),
    ],
    "21_beta": [
        ("answer = None", "answer = 0"),
    ],
    "22_nll": [
        (
            "raise NotImplementedError",
            """top = log_w.max(axis=0)
    return -(top + np.log(np.mean(np.exp(log_w - top), axis=0)))""",
        ),
    ],
    "23_settings": [
        ('"latent_dim": 2', '"latent_dim": 5'),
        ('"epochs": 30', '"epochs": 100'),
        ('"batch_size": 128', '"batch_size": 50'),
        ('"lr": 1e-3', '"lr": 2e-3'),
    ],
    "24_your_vae": [
        (
            "raise NotImplementedError",
            """encoder = Sequential([Linear(64, 100), Relu(), Linear(100, 2 * latent_dim)])
    decoder = Sequential([Linear(latent_dim, 100), Relu(), Linear(100, 64)])
    return encoder, decoder""",
        ),
    ],
}


def appended(sheet, text):
    """Return the sheet with the answer below it; a good test, where only that is meant."""
    return f"{sheet.text}\n{textwrap.dedent(text).strip()}\n"


# Unusual ways to be right: the sheet's name, and what is appended to its solution.
UNUSUAL = {
    "keywords": ("09_kl_mean", """
def find_the_bug(kl_standard_normal):
    kl, _ = kl_standard_normal(mu=np.ones((1, 3)), logvar=np.zeros((1, 3)))
    assert abs(kl[0] - 1.5) < 1e-9
"""),
    "pytest.fail": ("06_sigma", """
def find_the_bug(reparameterize):
    import pytest

    z, _ = reparameterize(np.zeros(9), np.full(9, 2.0), np.ones(9))
    if abs(z[0] - np.e) > 1e-9:
        pytest.fail("sigma is not exp(logvar / 2)")
"""),
    "a dataclass": ("01_relu", """
from __future__ import annotations
from dataclasses import dataclass

@dataclass
class Step:
    at: float = 0.0

def relu_backward(dy, cache):
    return dy * (cache > Step().at)
"""),
    "a list": ("22_nll", """
def nll(log_w):
    return [float(-np.logaddexp.reduce(w) + np.log(len(w))) for w in log_w.T]
"""),
    "in place": ("20_loop", """
def train(model, optimizer, x, epochs, rng):
    for _ in range(epochs):
        rng.shuffle(x)
        for i in range(0, len(x), 50):
            model.loss_and_grad(x[i : i + 50])
            optimizer.step()
"""),
}  # fmt: skip
