"""The optimizers against the published algorithms, element by element."""

import math

import numpy as np
import pytest

from scratchvae import SGD, Adam, InputError, Parameter, Parameters
from scratchvae.optimizers import Optimizer

N = 40_001  # two blocks of 16,384 and a shorter one, with an odd length: every border is inside
RATES = [0.1, 0.1, 0.02, 0.3, 0.05]  # a rate may be set before every step


def vector(values):
    return Parameters([("p", Parameter(values))])


def gradients(rng):
    """Of sizes around Adam's eps and far from it, with zeros, and signs that change."""
    sizes = 10.0 ** rng.uniform(-6, 2, N)
    sizes[::100] = 0
    return rng.normal(size=(len(RATES), N)) * sizes


def textbook_adam(start, gradients, beta1, beta2, eps):
    """Algorithm 1 of Kingma and Ba, one number after the other."""
    out = []
    for theta, of_steps in zip(start, gradients.T, strict=True):
        m = v = 0.0
        for t, (alpha, g) in enumerate(zip(RATES, of_steps, strict=True), start=1):
            m = beta1 * m + (1 - beta1) * g
            v = beta2 * v + (1 - beta2) * g * g
            m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
            theta -= alpha * m_hat / (math.sqrt(v_hat) + eps)
        out.append(theta)
    return np.array(out)


@pytest.mark.proves("adam-bias", "adam-moments", "adam-step")
@pytest.mark.parametrize(
    "options", [{}, {"betas": (0.8, 0.95), "eps": 1e-3}, {"betas": (0.0, 0.9), "eps": 1e-3}]
)
def test_adam_is_the_textbooks(rng, options):
    start, grads = rng.normal(size=N), gradients(rng)
    params = vector(start.copy())
    adam = Adam(params, **options)
    for lr, g in zip(RATES, grads, strict=True):
        params.grad[...], adam.lr = g, lr
        adam.step()
    betas, eps = options.get("betas", (0.9, 0.999)), options.get("eps", 1e-8)
    expected = textbook_adam(start.tolist(), grads, *betas, eps)
    # A step is at most 3 lr = 1, and the folded form rounds some 20 times on the way to it, each
    # time 1e-16: 5 steps make 1e-14. m, where its summands cancel, has the error of the largest of
    # them, and no root of v is below a fifth of that: ten times as much.
    assert np.abs(params.value - expected).max() < 1e-13
    assert adam.steps == len(RATES)


def test_adams_default_rate_is_the_published_one():
    assert Adam(vector(np.zeros(2))).lr == 1e-3


@pytest.mark.proves("sgd")
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_is_the_textbooks(rng, momentum):
    start, grads = rng.normal(size=N), gradients(rng)
    params = vector(start.copy())
    sgd = SGD(params, lr=1.0, momentum=momentum)
    expected = start.tolist()
    velocity = [0.0] * N
    for lr, g in zip(RATES, grads, strict=True):
        params.grad[...], sgd.lr = g, lr
        sgd.step()
        for i, g_i in enumerate(g.tolist()):
            velocity[i] = momentum * velocity[i] + g_i
            expected[i] -= lr * velocity[i]
    # The same operations in the same order; a fused multiply-add may save one rounding in each of
    # 5 steps, whose terms add to less than 5 of the largest gradient, 500.
    assert np.allclose(params.value, expected, rtol=1e-14, atol=1e-12)
    assert sgd.steps == len(RATES)


@pytest.mark.proves("adam-bias")
def test_a_first_step_of_adam_has_the_size_of_the_rate():
    """Wrong by a constant factor if a bias correction is missing, as m is 0.1 g and v 0.001 g^2.

    Without both it would be 0.1 / sqrt(0.001) = 3.16 times as long, with that of m alone
    1 / sqrt(0.001) = 31.6 times, and with that of v alone a tenth.
    """
    params = vector(np.zeros(3))
    params.grad[...] = [5.0, -1e-3, 0.0]
    Adam(params, lr=0.01).step()
    # 1e-8 beside a gradient of 1e-3 shortens the step by 1e-5 of itself.
    assert np.allclose(params.value, [-0.01, 0.01, 0], rtol=2e-5, atol=0)


@pytest.mark.parametrize("optimizer", [Adam, SGD])
def test_float32_is_kept_and_gradients_are_left_alone(rng, optimizer):
    params = vector(rng.normal(size=9).astype("float32"))
    before, memory = params.value.copy(), params.value
    params.grad[...] = rng.normal(size=9)
    params.grad.setflags(write=False)  # whoever writes into it raises ValueError
    opt = optimizer(params, lr=np.float64(0.1))
    opt.step()
    assert params.value is memory
    assert params.value.dtype == np.float32
    assert opt.state
    assert all(a.dtype == np.float32 and a.shape == (9,) for a in opt.state.values())
    assert np.all(params.value != before)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("make", "shrinks"),
    [(lambda p: Adam(p, betas=(0.5, 0.6)), 0.6), (lambda p: SGD(p, lr=1e-3, momentum=0.7), 0.7)],
    ids=["Adam", "SGD"],
)
def test_means_of_a_gradient_that_became_zero_do_not_stay_subnormal(rng, make, shrinks, dtype):
    """Those of a dead unit would, for good, and a CPU computes with them many times slower."""
    params = vector(rng.normal(size=50).astype(dtype))
    opt, limits = make(params), np.finfo(dtype)
    params.grad[...] = rng.normal(size=50)
    opt.step()
    params.grad[::2] = 0  # every other unit dies
    # Until the slowest of them is below the smallest subnormal number, and some steps more.
    for _ in range(math.ceil(math.log(limits.smallest_subnormal) / math.log(shrinks)) + 100):
        opt.step()
    assert opt.steps >= 100
    for name, state in opt.state.items():
        assert np.all(state[::2] == 0), name
        assert np.all(np.abs(state[1::2]) > limits.tiny), name


def test_subnormal_means_are_looked_for_every_64_steps():
    """At steps that the count alone decides, so that a run that is resumed does the same."""
    params = vector(np.zeros(3))
    opt, found = Adam(params), []
    for step in range(1, 200):
        opt.state["m"][...] = np.finfo(np.float64).tiny / 2
        opt.step()
        if not opt.state["m"].any():
            found.append(step)
    assert found == [64, 128, 192]


@pytest.mark.parametrize("optimizer", [Adam, SGD])
def test_a_rate_of_0_moves_nothing(rng, optimizer):
    start = rng.normal(size=9)
    params = vector(start.copy())
    params.grad[...] = 1
    optimizer(params, lr=0).step()
    assert np.array_equal(params.value, start)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: Adam(p, lr=-1e-3), "lr is -0.001: expected a finite number, 0 or larger"),
        (lambda p: Adam(p, lr=math.nan), "lr is nan"),
        (lambda p: SGD(p, lr=math.inf), "lr is inf"),
        (lambda p: Adam(p, betas=(0.9, 1.0)), r"betas is 1.0: expected a number in \[0, 1\)"),
        (lambda p: Adam(p, betas=(-0.1, 0.9)), "betas is -0.1"),
        (lambda p: Adam(p, betas=0.9), "betas is 0.9: expected a sequence of 2"),
        (lambda p: Adam(p, betas=(0.9,)), r"betas is \(0.9,\): expected a sequence of 2"),
        (lambda p: Adam(p, eps=0), "eps is 0: expected"),
        (lambda p: Adam(p, eps=math.inf), "eps is inf"),
        (lambda p: SGD(p, lr=1, momentum=1), r"momentum is 1: expected a number in \[0, 1\)"),
        (lambda p: SGD(p, lr=1, momentum=-0.5), "momentum is -0.5"),
    ],
)
def test_unusable_settings_are_named(make, message):
    with pytest.raises(InputError, match=message):
        make(vector(np.zeros(2)))


@pytest.mark.parametrize(
    ("make", "name", "value", "message"),
    [
        (SGD, "lr", "x", "lr is 'x': expected a finite number, 0 or larger"),
        (SGD, "lr", -1, "lr is -1: expected a finite number, 0 or larger"),
        (SGD, "lr", True, "lr is True: expected a finite number, 0 or larger"),
        (SGD, "momentum", 1, "momentum is 1: expected a number in [0, 1)"),
        (Adam, "lr", np.nan, "lr is nan: expected a finite number, 0 or larger"),
        (Adam, "betas", (0.9, 2), "betas is 2: expected a number in [0, 1)"),
        (Adam, "eps", 0, "eps is 0: expected a finite number larger than 0"),
    ],
)
def test_a_setting_changed_by_hand_is_refused_before_anything_moves(make, name, value, message):
    params = vector(np.array([1.0, 2.0]))
    optimizer = make(params, 0.1)
    params.grad[...] = 1
    setattr(optimizer, name, value)
    with pytest.raises(InputError) as error:
        optimizer.step()
    assert str(error.value) == message
    assert optimizer.steps == 0
    np.testing.assert_array_equal(params.value, [1, 2])


def test_an_optimizer_without_a_step_of_its_own_says_what_is_missing():
    class Own(Optimizer):
        pass

    with pytest.raises(
        NotImplementedError, match=r"^Own has no _move\(\), which changes params\.v"
    ):
        Own(vector(np.ones(3)), 0.1, ()).step()


def test_the_kinds_of_a_state_are_dtype_and_shape():
    optimizer = SGD(vector(np.ones(3)), 0.1)
    optimizer.state["count"] = np.zeros((), "int64")
    assert optimizer.kinds() == {"velocity": ("float64", (3,)), "count": ("int64", ())}


@pytest.mark.parametrize("value", [0, [1.0], np.int64(3), None])
def test_a_state_holds_arrays_alone(value):
    optimizer = SGD(vector(np.ones(3)), 0.1)
    optimizer.state["count"] = value
    with pytest.raises(InputError) as error:
        optimizer.kinds()
    assert str(error.value) == (
        f"state['count'] of SGD is a {type(value).__name__}: expected an array; a number may be an "
        "attribute of the optimizer, which a checkpoint holds too"
    )


def test_the_names_of_a_state_are_words():
    optimizer = SGD(vector(np.ones(3)), 0.1)
    optimizer.state[0] = np.ones(3)
    with pytest.raises(InputError) as error:
        optimizer.kinds()
    assert str(error.value) == (
        "the state of SGD has the name 0: expected a string, by which a checkpoint knows it"
    )


def test_an_optimizer_without_a_state_says_what_is_missing():
    class Own(Optimizer):
        def __init__(self):
            pass

    with pytest.raises(InputError) as error:
        Own().kinds()
    assert str(error.value) == (
        "Own has no state: expected its __init__ to begin with super().__init__(params, lr, "
        "names), the names of the arrays that it keeps"
    )


def test_what_is_in_no_file_is_neither_a_number_nor_held():
    optimizer = SGD(vector(np.ones(3)), 0.1)
    optimizer.kept, optimizer.count = np.ones(2), 3
    optimizer.rule = lambda g: g  # which cannot be pickled
    before = optimizer.unsaved()
    assert before.keys() == {"kept"}
    optimizer.kept[0] = 2
    assert optimizer.unsaved() != before
