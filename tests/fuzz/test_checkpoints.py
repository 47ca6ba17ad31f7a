"""Changed checkpoints: what was saved is believed and nothing else; the rest is one sentence."""

import json
import math
from contextlib import suppress

import numpy as np
import pytest
from fuzzing import FACTOR, cases, changed_bytes
from hypothesis import given
from hypothesis import strategies as st

import scratchvae as sv
from scratchvae import checkpoint
from scratchvae.run import LAST

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return the folder of a small run that was stopped within its second epoch."""
    folder = tmp_path_factory.mktemp("checkpoints")
    rng = np.random.default_rng(0)  # what the run holds does not matter
    np.save(folder / "x.npy", rng.uniform(size=(30, 4)).astype(np.float32))
    options = sv.run.Options(str(folder / "x.npy"), hidden=(3,), latent=2, epochs=3, batch_size=8)
    run = sv.run.new(options, folder)

    def stop(terms):
        run.trainer.stop = run.trainer.optimizer.steps == 6

    run.train(stop)
    return folder


@pytest.fixture(scope="module")
def whole(folder):
    """Return bytes, arrays and values of its checkpoint."""
    return (folder / LAST).read_bytes(), *checkpoint.load(folder / LAST)


def require_same(found, whole):
    arrays, values = found
    assert values == whole[2]
    assert arrays.keys() == whole[1].keys()
    for name, a in arrays.items():
        np.testing.assert_array_equal(a, whole[1][name])


def test_a_changed_bit(rng, folder, whole, outcome):
    content = np.frombuffer(whole[0], np.uint8)
    path = folder / "changed.safetensors"
    for bit in rng.choice(8 * len(content), size=min(80 * FACTOR, 8 * len(content)), replace=False):
        data = content.copy()
        data[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(data.tobytes())
        found = outcome("checkpoint, one bit flipped", lambda: checkpoint.load(path))
        if found is not None:
            require_same(found, whole)


@cases(100)
@given(data=st.data())
def test_changed_bytes(data, folder, whole, outcome):
    path = folder / "changed.safetensors"
    path.write_bytes(data.draw(changed_bytes(whole[0])))
    found = outcome("checkpoint, changed bytes", lambda: checkpoint.load(path))
    if found is not None:
        require_same(found, whole)


TYPES = ["f2", "f8", "i4", "u1", "?"]
NUMBERS = st.sampled_from(
    [
        *(0, 1, 2, -1, 7, 30, 128, 10**6, 2 * 10**8, 2**31, 2**63, 2**64, 10**400),
        *(0.5, -0.5, 1e-300, 1e300, True, False),
    ]
)
TEXTS = st.sampled_from(["", "vae", "ae", "gaussian", "sgd", "shared", "cosine", "1:2", "digits"])
JSON = st.recursive(
    st.none() | NUMBERS | TEXTS | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)


def places(tree, way=()):
    """Yield the way to everything in a tree of dictionaries and lists."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield (*way, key)
        if isinstance(value, dict | list):
            yield from places(value, (*way, key))


@st.composite
def changed_state(draw, arrays, values):
    """Return a state that was saved as it should be, but says something else."""
    arrays, values = dict(arrays), json.loads(json.dumps(values))
    for _ in range(draw(st.integers(1, 3))):
        if draw(st.integers(0, 3)):
            *way, last = draw(st.sampled_from(sorted(places(values), key=str)))
            inner = values
            for key in way:
                inner = inner[key]
            how = draw(st.sampled_from(["replace", "remove", "double"]))
            if how == "remove":
                del inner[last]
            elif how == "replace" or not isinstance(inner[last], list):
                inner[last] = draw(JSON)
            else:
                inner[last] = inner[last] * 2
        else:
            name = draw(st.sampled_from(sorted(arrays)))
            a = arrays.pop(name)
            changes = {
                "type": lambda a: (100 * np.nan_to_num(abs(a)) % 50).astype(
                    draw(st.sampled_from(TYPES))
                ),
                "row": lambda a: a[:1],
                "flat": lambda a: a.reshape(-1),
                "empty": lambda a: a[:0],
                "nan": lambda a: a * np.float32(math.nan),
                "zero": lambda a: 0 * a,
            }
            how = draw(st.sampled_from([*changes, "remove", "rename"]))
            if how == "rename":
                arrays[draw(st.text(max_size=8))] = a
            elif how != "remove":
                arrays[name] = changes[how](a)
    return arrays, values


@pytest.mark.filterwarnings("ignore::scratchvae.errors.InputWarning")  # other data than before
@cases(100)
@given(data=st.data())
def test_a_checkpoint_that_says_something_else(data, folder, whole, outcome):
    arrays, values = data.draw(changed_state(*whole[1:]))
    (folder / "other").mkdir(exist_ok=True)
    path = folder / "other" / LAST
    checkpoint.save(path, arrays, values)

    def use():
        run = sv.run.open(path.parent, other_data=True)

        def stop(terms):
            run.trainer.stop = True

        with suppress(sv.NonFiniteError):  # a learning rate of 1e300 is one that was asked for
            run.trainer.run(run.options.epochs, stop)
        return run

    outcome("checkpoint that says something else, as a run", use)
    outcome("checkpoint that says something else, as a model", lambda: sv.load(path))
