"""The CUDA kernels without a GPU: NVRTC compiles them, and as host code they give what NumPy gives.

What only a device could show is not shown here: how its exp rounds, and that its barriers hold.
"""

import ctypes
import functools
import importlib.util
import inspect
import os
import re
from pathlib import Path

import cuda_on_host
import numpy as np
import pytest
from cuda_on_host import guarded
from hypothesis import given
from hypothesis import strategies as st
from strategies import generators

import scratchvae as sv
from scratchvae import activations, datasets, fused, gaussian, kernels, likelihoods, optimizers
from scratchvae.kernels import cuda

REQUIRED = os.environ.get("SCRATCHVAE_REQUIRE_CUDA_CHECK")
KERNELS = list(cuda_on_host.declarations(cuda.source()))
MODULES = (activations, datasets, fused, gaussian, likelihoods, optimizers)
DTYPES = ("float32", "float64")


def need(found, what):
    if not found:
        if REQUIRED:
            pytest.fail(f"SCRATCHVAE_REQUIRE_CUDA_CHECK is set, and there is no {what}")
        pytest.skip(f"no {what}")


def definition(name):
    """Return the NumPy code of a function; where it calls others that are marked, theirs too."""
    (found,) = (getattr(m, name) for m in MODULES if hasattr(m, name))

    @functools.wraps(found.__wrapped__)
    def alone(*args):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kernels, "find", lambda name, x: None)
            return found.__wrapped__(*args)

    return alone


# ---- the text ------------------------------------------------------------------------------------


def test_every_marked_function_has_a_kernel_and_every_kernel_a_function():
    marked = {
        name
        for module in MODULES
        for name, f in inspect.getmembers(module, inspect.isfunction)
        if f.__code__.co_filename == kernels.__file__ and f.__module__ == module.__name__
    }
    assert marked == set(KERNELS), (
        f"{', '.join(sorted(marked ^ set(KERNELS)))}: write the kernel in kernels/kernels.cu and "
        "what launches it in kernels/cuda.py, or take the mark @compiled away: the function then "
        "runs as it stands, on a GPU too"
    )
    for name in marked:
        parameters = inspect.signature(getattr(cuda, name)).parameters
        assert list(parameters) == list(inspect.signature(definition(name)).parameters), name


def nvrtc():
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(p) for p in spec.submodule_search_locations] if spec else []
    found = [
        path
        for folder in folders
        for path in sorted(folder.glob("*/lib/libnvrtc.so.*"))
        if "alt" not in path.name
    ]
    need(found, "NVRTC: pip install --group cuda-check")
    return ctypes.CDLL(str(found[-1]))


def compiled_by_nvrtc(dtype, architecture):
    """Return the kernels as the machine code of a GPU, and as the text that it was made from."""
    library, program, size = nvrtc(), ctypes.c_void_p(), ctypes.c_size_t()
    text = cuda.source().encode()
    assert (
        library.nvrtcCreateProgram(ctypes.byref(program), text, b"kernels.cu", 0, None, None) == 0
    )
    options = [o.encode() for o in (*cuda.options(dtype), f"--gpu-architecture={architecture}")]
    failed = library.nvrtcCompileProgram(
        program, len(options), (ctypes.c_char_p * len(options))(*options)
    )

    def get(what):
        assert getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)) == 0
        content = ctypes.create_string_buffer(size.value)
        assert getattr(library, f"nvrtcGet{what}")(program, content) == 0
        return content.raw

    log = get("ProgramLog").rstrip(b"\0").decode()
    assert (failed, log) == (0, ""), log  # no warning either
    return get("CUBIN"), get("PTX").decode()


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_100"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nvrtc_compiles_the_kernels(dtype, architecture):
    binary, _ = compiled_by_nvrtc(dtype, architecture)
    # An ELF file has a section .text.NAME for each kernel.
    assert set(re.findall(rb"\.text\.(\w+)\0", binary)) == {k.encode() for k in KERNELS}


def bodies_by_nvrtc(dtype):
    """Return what each kernel became in PTX, by its name."""
    _, ptx = compiled_by_nvrtc(dtype, "sm_90")
    _, *parts = re.split(r"\.entry (\w+)\(", ptx)
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
def test_on_a_gpu_an_element_is_counted_in_64_bits(dtype):
    """A batch may hold more than 2^31 numbers. A block's and a thread's own place are 32 bits."""
    bodies = bodies_by_nvrtc(dtype)
    for name, body in bodies.items():
        # Widened is the place of the thread, and nothing that was computed in 32 bits.
        assert body.count("cvt.s64.s32") == 1, name
        cut = re.search(r"shl\.b64 \t(%rd\d+), %rd\d+, 32;\s*shr\.s64 \t%rd\d+, \1,", body)
        assert not cut, f"{name}: {cut}"  # the upper half is pushed out, the lower one widened
    for name in ("relu_backward", "tanh_backward", "gather"):  # no function brings other integers
        narrow = re.findall(r"\b(?:add|sub|shl|mul\.lo|mad\.lo)\.[sub]32.*", bodies[name])
        assert not narrow, f"{name}: {narrow[0]}"


@pytest.mark.parametrize("dtype", DTYPES)
def test_on_a_gpu_a_product_is_rounded_before_it_is_added_to(dtype):
    """As NumPy rounds it; else Adam would not be the same to the last bit."""
    for name in ("adam_update", "batch_means", "silu_backward"):  # exp has such additions inside
        assert "fma." not in bodies_by_nvrtc(dtype)[name], name


@pytest.mark.parametrize("dtype", DTYPES)
def test_on_a_gpu_a_thread_knows_its_place_and_waits_where_it_reads_of_others(dtype):
    """These few lines of the text are another text on the host, where nothing else runs them."""
    bodies = bodies_by_nvrtc(dtype)
    assert bodies.keys() == set(KERNELS)
    for name, body in bodies.items():
        places = set(re.findall(r"%(?:n?ctaid|n?tid)\.\w", body))
        one_block = name == "batch_means"
        assert places == {"%tid.x"} | (set() if one_block else {"%ctaid.x", "%nctaid.x"}), name
        # In the order of the text: no read of shared memory without a barrier since the last write
        # there, and a barrier after the last access, since a block may go on with another row.
        written = accessed = False  # since the last barrier
        for line in body.splitlines():
            if "bar.sync" in line or "barrier.sync" in line:
                written = accessed = False
            assert not ("ld.shared" in line and written), f"{name}: {line.strip()}"
            written |= "st.shared" in line
            accessed |= "st.shared" in line or "ld.shared" in line
        assert not accessed, name


# ---- the values ----------------------------------------------------------------------------------


@pytest.fixture(params=[(), ("-DSTEP=-1",)], ids=["forwards", "backwards"])
def launched(request, monkeypatch, rng):
    """The kernels in place of NumPy's functions; the threads of a block in either order.

    What one thread reads of another without a barrier in between differs in the two.
    """
    need(cuda_on_host.COMPILER, "C++ compiler")
    monkeypatch.setattr(cuda, "MAX_BLOCKS", 3)  # so that small arrays are larger than a grid
    return cuda_on_host.put_in_place_of_numpy(monkeypatch, rng, request.param)


columns = st.sampled_from([0, 1, 2, 20, 127, 128, 129, 300])  # about the 128 threads of a block
rows = st.integers(0, 8)
gaps = st.sampled_from([0, 1, 7])
samples = st.sampled_from([None, 1, 3])


def draws(rng, shape, dtype, most=3.0):
    """Normal numbers, with a few of the size `most` among them."""
    a = rng.standard_normal(shape)
    extreme = rng.random(shape) < 0.1
    return np.where(extreme, np.copysign(most, a), a).astype(dtype)


def agree(found, expected64, dtype, ulps, size=None):
    """Compare with a float64 result, to so many roundings of the largest term, `size`."""
    assert found.dtype == dtype
    assert found.shape == np.shape(expected64)
    eps = np.finfo(dtype).eps
    size = np.abs(expected64) if size is None else size
    bound = ulps * eps * size + np.finfo(dtype).tiny
    off = np.abs(np.asarray(found, np.float64) - expected64)
    assert (off <= bound).all(), f"off by {(off / np.maximum(bound, 1e-300)).max()} of the bound"


def in64(*arrays):
    return [np.asarray(a, np.float64) for a in arrays]


given_shapes = given(
    rng=generators(), b=rows, d=columns, gap=gaps, k=samples, dtype=st.sampled_from(DTYPES)
)


@pytest.mark.parametrize("name", [n for n in KERNELS if n in dir(activations)])
def test_the_backward_of_an_activation(name, launched):
    """To 8 roundings of the largest term: exp makes two at most, each of 5 operations a half."""
    forward = getattr(activations, name.removesuffix("_backward"))

    @given_shapes
    def check(rng, b, d, gap, k, dtype):
        x = draws(rng, (b, d), dtype, 100.0)
        _, cache = forward(x)
        cache = tuple(map(guarded, cache)) if isinstance(cache, tuple) else guarded(cache)
        dy = guarded(draws(rng, (b, d), dtype))
        found = getattr(activations, name)(dy, cache)
        cache64 = tuple(in64(*cache)) if isinstance(cache, tuple) else in64(cache)[0]
        expected = definition(name)(*in64(dy), cache64)
        # silu's terms may cancel; y may be 1 but for its rounding, and 1 - y is then all rounding
        size = np.abs(np.asarray(dy, np.float64)) * (np.abs(np.asarray(x, np.float64)) + 1)
        agree(found, expected, dtype, 8, size if name != "softplus_backward" else None)

    check()


def test_bernoulli(launched):
    @given_shapes
    def check(rng, b, d, gap, k, dtype):
        shape = (b, d) if k is None else (k, b, d)
        x = guarded((rng.random((b, d)) < 0.5).astype(dtype), gap)
        logits = guarded(draws(rng, shape, dtype, 100.0), gap if k is None else 0)
        nll, cache = likelihoods.bernoulli_nll(x, logits)
        expected, cache64 = definition("bernoulli_nll")(*in64(x, logits))
        # Each term is softplus(l) - x l, of size |l| + 1; the sum itself is made in float64.
        size = (np.abs(in64(logits)[0]) + 1).sum(axis=-1)
        agree(nll, expected, dtype, 4, size)
        dnll = guarded(draws(rng, nll.shape, dtype)) if nll.ndim else None
        dlogits = likelihoods.bernoulli_nll_backward(dnll, cache)
        expected = definition("bernoulli_nll_backward")(*in64(dnll), cache64)
        # s(l) and x are at most 1. The definition loses |l| roundings in exp(l - softplus(l)).
        size = np.abs(in64(dnll)[0])[..., None] * np.ones(shape)
        agree(dlogits, expected, dtype, 8 if dtype == "float32" else 400, size)
        # The kernel's backward takes the cache of the definition's forward too.
        again = cuda.bernoulli_nll_backward(dnll, definition("bernoulli_nll")(x, logits)[1])
        np.testing.assert_array_equal(again, dlogits)

    check()


def heads(rng, b, z, dtype, gap):
    """mu and logvar (B, Z), as the model splits its code (B, 2Z) or two arrays unlike in layout."""
    code = draws(rng, (b, 2 * z), dtype, 80.0) * rng.choice([1, 1e-4]).astype(dtype)
    if rng.random() < 0.5:
        code = guarded(code, gap)
        return code[:, :z], code[:, z:]
    return guarded(code[:, :z], gap), guarded(code[:, z:], 3)


def test_reparameterize(launched):
    @given_shapes
    def check(rng, b, d, gap, k, dtype):
        mu, logvar = heads(rng, b, d, dtype, gap)
        shape = (b, d) if k is None else (k, b, d)
        eps = guarded(draws(rng, shape, dtype), gap if k is None else 0)
        z, (sigma, _) = gaussian.reparameterize(mu, logvar, eps)
        z64, (sigma64, eps64) = definition("reparameterize")(*in64(mu, logvar, eps))
        agree(sigma, sigma64, dtype, 4)
        agree(z, z64, dtype, 8, np.abs(in64(mu)[0]) + sigma64 * np.abs(eps64))
        dz = guarded(draws(rng, shape, dtype))
        dmu, dlogvar = gaussian.reparameterize_backward(dz, (sigma, guarded(eps)))
        expected = definition("reparameterize_backward")(*in64(dz), tuple(in64(sigma, eps)))
        many = k or 1  # terms in the sum over K, which the definition makes

        def over_samples(a):
            return a if k is None else a.sum(axis=0)  # (B, Z)

        agree(dmu, expected[0], dtype, 4 * many, over_samples(np.abs(in64(dz)[0])))
        size = over_samples(np.abs(in64(dz)[0] * eps64 * 0.5 * in64(sigma)[0]))
        agree(dlogvar, expected[1], dtype, 4 * many, size)

    check()


def test_kl(launched):
    @given_shapes
    def check(rng, b, d, gap, k, dtype):
        mu, logvar = heads(rng, b, d, dtype, gap)
        kl, cache = gaussian.kl_standard_normal(mu, logvar)
        mu64, logvar64 = in64(mu, logvar)
        expected, cache64 = definition("kl_standard_normal")(mu64, logvar64)
        size = (0.5 * (mu64**2 + np.abs(np.expm1(logvar64)) + np.abs(logvar64))).sum(axis=-1)
        agree(kl, expected, dtype, 4, size)
        dkl = guarded(draws(rng, (b,), dtype))
        found = gaussian.kl_standard_normal_backward(dkl, cache)
        expected = definition("kl_standard_normal_backward")(*in64(dkl), cache64)
        for one, other in zip(found, expected, strict=True):
            agree(one, other, dtype, 4)

    check()


def test_adam_is_the_same_to_the_last_bit(launched):
    """Its operations are all rounded alike, and they are the definition's in its order."""

    @given(
        rng=generators(),
        n=st.sampled_from([0, 1, 127, 128, 129, 383, 384, 385, 2000]),
        dtype=st.sampled_from(DTYPES),
        numbers=st.tuples(*[st.floats(0, 0.999)] * 2, st.floats(0, 1), st.floats(1e-8, 1e-3)),
    )
    def check(rng, n, dtype, numbers):
        value, g, m = (guarded(draws(rng, n, dtype, 1e4)) for _ in range(3))
        v = guarded(draws(rng, n, dtype) ** 2)
        copies = [np.array(a) for a in (value, g, m, v)]
        optimizers.adam_update(value, g, m, v, *numbers)
        definition("adam_update")(*copies, *numbers)
        for one, other in zip((value, g, m, v), copies, strict=True):
            np.testing.assert_array_equal(np.asarray(one), other)

    check()


@pytest.mark.usefixtures("launched")
def test_adams_numbers_may_be_integers_or_numpys(rng):
    """CuPy passes an int as 8 bytes of an integer and a float32 as 4; the kernel reads doubles."""
    arrays = [guarded(draws(rng, 5, "float64") ** 2) for _ in range(4)]
    copies, numbers = [np.array(a) for a in arrays], (0, np.float32(0.75), 1, np.float32(0.5))
    optimizers.adam_update(*arrays, *numbers)
    definition("adam_update")(*copies, *map(float, numbers))
    for one, other in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(np.asarray(one), other)


def test_gather_is_the_same_to_the_last_bit(launched):
    @given_shapes
    def check(rng, b, d, gap, k, dtype):
        n = int(rng.integers(1, 9))
        images = guarded(rng.integers(0, 256, (n, d), dtype=np.uint8), gap)
        chosen = guarded(rng.integers(-n, n, b))
        scale = float(rng.choice([255.0, 16.0, 1.0]))
        found = datasets.gather(images, chosen, scale, np.dtype(dtype))
        expected = definition("gather")(np.array(images), np.array(chosen), scale, np.dtype(dtype))
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(np.asarray(found), expected)

    check()


@pytest.mark.usefixtures("launched")
def test_a_row_that_does_not_exist_becomes_nan(rng):
    images = guarded(rng.integers(0, 256, (3, 5), dtype=np.uint8))
    found = datasets.gather(images, guarded(np.array([3, 0, -4])), 255.0, np.dtype("float32"))
    assert np.isnan(found[[0, 2]]).all()
    assert np.isfinite(found[1]).all()


# Of those in fused.py the size is that of the terms which are added; gaps they were not made for.


def test_bias_and_relu(launched):
    @given_shapes
    def check(rng, b, d, gap, k, dtype):
        y, bias = guarded(draws(rng, (b, d), dtype)), guarded(draws(rng, d, dtype))
        size = np.abs(in64(y)[0]) + np.abs(in64(bias)[0])
        agree(
            fused.bias_and_relu(y, bias),
            definition("bias_and_relu")(*in64(y, bias)),
            dtype,
            1,
            size,
        )

    check()


@pytest.mark.usefixtures("launched")
@pytest.mark.parametrize("dtype", DTYPES)
def test_relu_of_no_number_is_no_number(dtype):
    y = guarded(np.array([[np.nan, -np.inf, np.inf, 0]], dtype))
    found = fused.bias_and_relu(y, guarded(np.zeros(4, dtype)))
    np.testing.assert_array_equal(found, [[np.nan, 0, np.inf, 0]])


def test_code_and_kl(launched):
    @given_shapes
    def check(rng, b, d, gap, k, dtype):
        product = guarded(draws(rng, (b, 2 * d), dtype, 40.0) * rng.choice([1, 1e-4]).astype(dtype))
        bias, eps = guarded(draws(rng, 2 * d, dtype)), guarded(draws(rng, (b, d), dtype))
        found = fused.code_and_kl(product, bias, eps)
        # The definition begins with a sum, whose rounding exp would enlarge: from the code on.
        code = np.asarray(product) + np.asarray(bias)
        np.testing.assert_array_equal(np.asarray(found[0]), code)
        zero = np.zeros(2 * d)
        _, z, sigma, kl = definition("code_and_kl")(*in64(code), zero, *in64(eps))
        mu, logvar = in64(code[:, :d], code[:, d:])
        agree(found[1], z, dtype, 8, np.abs(mu) + sigma * np.abs(in64(eps)[0]))
        agree(found[2], sigma, dtype, 4)
        size = (0.5 * (mu**2 + np.abs(np.expm1(logvar)) + np.abs(logvar))).sum(axis=-1)
        agree(found[3], kl, dtype, 4, size)

    check()


def test_code_gradient(launched):
    @given_shapes
    def check(rng, b, d, gap, k, dtype):
        code = draws(rng, (b, 2 * d), dtype, 40.0) * rng.choice([1, 1e-4]).astype(dtype)
        dz, eps = (guarded(draws(rng, (b, d), dtype)) for _ in range(2))
        sigma = guarded(np.exp(0.5 * code[:, d:]))
        dkl = float(np.dtype(dtype).type(rng.uniform(-1, 1)))
        found = fused.code_gradient(dz, eps, guarded(code), sigma, dkl)
        wide = in64(dz, eps, code, sigma)
        expected = definition("code_gradient")(*wide, dkl)
        through_z = np.abs(np.hstack([wide[0], wide[0] * wide[1] * 0.5 * wide[3]]))
        through_kl = np.abs(dkl * np.hstack([wide[2][:, :d], 0.5 * np.expm1(wide[2][:, d:])]))
        agree(found, expected, dtype, 8, through_z + through_kl)

    check()


def test_bernoulli_nll_and_gradient(launched):
    @given_shapes
    def check(rng, b, d, gap, k, dtype):
        x = guarded((rng.random((b, d)) < 0.5).astype(dtype))
        product, bias = guarded(draws(rng, (b, d), dtype, 100.0)), guarded(draws(rng, d, dtype))
        dnll = float(np.dtype(dtype).type(rng.uniform(-1, 1)))
        nll, dlogits = fused.bernoulli_nll_and_gradient(x, product, bias, dnll)
        logits = in64(np.asarray(product) + np.asarray(bias))[0]
        zero = np.zeros(d)
        name = "bernoulli_nll_and_gradient"
        expected = definition(name)(*in64(x), logits, zero, dnll)
        agree(nll, expected[0], dtype, 4, (np.abs(logits) + 1).sum(axis=-1))
        # s(l) and x are at most 1. The definition loses |l| roundings in exp(l - softplus(l)).
        size = np.full((b, d), abs(dnll))
        agree(dlogits, expected[1], dtype, 8 if dtype == "float32" else 400, size)

    check()


def test_batch_means(launched):
    """In float64 whatever the terms are; the loss of each example is rounded as it always is."""

    @given_shapes
    def check(rng, b, d, gap, k, dtype):
        nll, kl = (guarded(draws(rng, b * d, dtype, 100.0)) for _ in range(2))
        beta, n = float(np.dtype(dtype).type(rng.uniform(0, 2))), b * d + 1 + gap
        found = fused.batch_means(nll, kl, beta, n)
        expected = definition("batch_means")(*in64(nll, kl), beta, n)
        size = np.array([(np.abs(t) / n).sum() for t in in64(nll, kl)])
        size = np.array([size[0] + beta * size[1], *size])
        assert found.dtype == np.float64
        eps = np.finfo(dtype).eps * np.array([2, 0, 0]) + np.finfo(np.float64).eps * len(nll)
        assert (np.abs(found - expected) <= eps * size).all()

    check()


def test_rows_are_summed_in_float64(launched):
    """A thread that sums 2^25 and then ones in float32, whose neighbours are 4 apart, loses them.

    Each thread has 200 columns. What is right within a rounding is off by 4 at most.
    """
    n = 200 * cuda.THREADS
    ones, zeros = np.ones((1, n), "float32"), np.zeros((1, n), "float32")
    row = np.where(np.arange(n) == 0, np.float32(2**25), ones)  # (1, n)
    mu = np.sqrt(2 * row)  # mu^2 / 2 nats of KL each
    logits = np.where(row > 1, row, zeros)  # 2^25 nats for a pixel of 0, log 2 for the others
    (kl,), _ = gaussian.kl_standard_normal(guarded(mu), guarded(zeros))
    *_, (kl_too,) = fused.code_and_kl(
        guarded(np.hstack([mu, zeros])), guarded(np.zeros(2 * n, "float32")), guarded(zeros)
    )
    (nll,), _ = likelihoods.bernoulli_nll(guarded(zeros), guarded(logits))
    (nll_too,), _ = fused.bernoulli_nll_and_gradient(
        guarded(zeros), guarded(logits), guarded(zeros[0]), 1.0
    )
    means = fused.batch_means(guarded(row[0]), guarded(row[0]), 0.0, 1)
    assert launched
    for found, expected in (
        *((x, 2**25 + n - 1) for x in (kl, kl_too, *means)),
        *((x, 2**25 + (n - 1) * np.log(2)) for x in (nll, nll_too)),
    ):
        assert abs(float(found) - expected) <= 4


# ---- when a kernel steps aside -------------------------------------------------------------------


def aside(a):
    """One argument that the kernels were not made for, of each kind, in place of the array `a`."""
    yield "another dtype", a.astype(np.float16)
    if a.size and a.ndim > 1:
        yield "columns apart", np.repeat(a, 2, axis=-1)[..., ::2]
        yield "transposed", np.asfortranarray(a)


@pytest.mark.parametrize("name", [n for n in KERNELS if n not in ("adam_update", "gather")])
def test_the_definition_computes_what_a_kernel_was_not_made_for(name, launched, rng):
    b, z = (4, 5), rng.standard_normal
    arguments = {
        "silu_backward": (z(b), (z(b), z(b))),
        "bernoulli_nll": (z(b), z(b)),
        "bernoulli_nll_backward": (z(4), (z(b), z(b), z(b))),
        "reparameterize": (z(b), z(b), z(b)),
        "reparameterize_backward": (z(b), (z(b), z(b))),
        "kl_standard_normal": (z(b), z(b)),
        "kl_standard_normal_backward": (z(4), (z(b), z(b))),
        "bias_and_relu": (z(b), z(5)),
        "code_and_kl": (z((4, 10)), z(10), z(b)),
        "code_gradient": (z(b), z(b), z((4, 10)), z(b), 0.5),
        "bernoulli_nll_and_gradient": (z(b), z(b), z(5), 0.5),
        "batch_means": (z(4), z(4), 0.5, 4),
    }.get(name, (z(b), z(b)))
    kernel = getattr(cuda, name)
    assert kernel(*arguments) is not NotImplemented
    flat = [x for a in arguments for x in (a if isinstance(a, tuple) else (a,))]
    used = 3 if name == "bernoulli_nll_backward" else len(flat)  # softplus is not read
    for i in (i for i in range(used) if np.ndim(flat[i]) > 0):
        for why, other in aside(flat[i]):
            rest = iter([*flat[:i], other, *flat[i + 1 :]])
            changed = [
                tuple(next(rest) for _ in a) if isinstance(a, tuple) else next(rest)
                for a in arguments
            ]
            launched.clear()
            assert kernel(*changed) is NotImplemented, (i, why)
            assert not launched


@pytest.mark.usefixtures("launched")
def test_the_definition_never_meets_a_cache_that_it_cannot_read(rng):
    """Weights of rows that the backward kernel was not made for, after the forward kernel."""
    x, logits, dnll = rng.random((4, 5)), rng.standard_normal((4, 5)), rng.standard_normal((4, 2))
    _, cache = likelihoods.bernoulli_nll(x, logits)
    _, cache64 = definition("bernoulli_nll")(x, logits)
    for weights in (dnll[:, 0], dnll[:, 0].astype("float32"), np.array([0.5]), np.array(0.5)):
        found = likelihoods.bernoulli_nll_backward(weights, cache)
        expected = definition("bernoulli_nll_backward")(weights, cache64)
        size = np.abs(weights)[..., None] * np.ones((4, 5))  # of the terms: sigmoid and x
        agree(found, expected, np.dtype("float64"), 8, size)
    with pytest.raises(ValueError, match="shape"):
        likelihoods.bernoulli_nll_backward(np.ones(3), cache)


@pytest.mark.usefixtures("launched")
def test_shapes_that_a_kernel_was_not_made_for(rng):
    z = rng.standard_normal
    for name, *arguments in (
        ("relu_backward", z((4, 5)), z(5)),
        ("bernoulli_nll", z((4, 5)), z((1, 5))),
        ("bernoulli_nll", z(5), z(5)),
        ("bernoulli_nll_backward", z(1), (z((4, 5)), z((4, 5)), z((4, 5)))),
        ("reparameterize", z((4, 5)), z(()), z((4, 5))),
        ("reparameterize", z((4, 5)), z((1, 5)), z((4, 5))),
        ("reparameterize", z((4, 5)), z((4, 5)), z((1, 5))),
        ("reparameterize", z((4, 5)), z((4, 5)), z((0, 4, 5))),  # no block would fill sigma
        ("reparameterize", z((4, 5)), z((4, 5)), z((3, 5, 4)).swapaxes(1, 2)),
        ("reparameterize", z((4, 5)), z((4, 5)), z((4, 3, 5)).swapaxes(0, 1)),
        ("bernoulli_nll", z((4, 5)), z((4, 3, 5)).swapaxes(0, 1)),
        ("reparameterize_backward", z((3, 4, 5)), (z((4, 5)), z((3, 4, 5)))),
        ("kl_standard_normal", z((4, 5)), z((4, 1))),
        ("kl_standard_normal", z((2, 4, 5)), z((2, 4, 5))),
        ("kl_standard_normal_backward", z(1), (z((4, 5)), z((4, 5)))),
        ("adam_update", z(5), z(4), z(5), z(5), 0.9, 0.9, 0.1, 0.1),
        ("adam_update", *[z(10)[::2]] * 4, 0.9, 0.9, 0.1, 0.1),
        ("adam_update", z(5), z(5).astype("float32"), z(5), z(5), 0.9, 0.9, 0.1, 0.1),
        ("bias_and_relu", z((4, 5)), z(4)),
        ("bias_and_relu", z((4, 5)), z((4, 5))),
        ("bias_and_relu", z((3, 4, 5)), z((4, 5))),
        ("code_and_kl", z((4, 10)), z(10), z((2, 4, 5))),
        ("code_and_kl", z((3, 10)), z(10), z((4, 5))),
        ("code_and_kl", z((4, 10)), z(5), z((4, 5))),
        ("code_gradient", z((2, 4, 5)), z((2, 4, 5)), z((4, 10)), z((4, 5)), 0.5),
        ("code_gradient", z((4, 5)), z((4, 5)), z((4, 5)), z((4, 5)), 0.5),
        ("bernoulli_nll_and_gradient", z((4, 5)), z((2, 4, 5)), z(5), 0.5),
        ("bernoulli_nll_and_gradient", z((4, 5)), z((4, 5)), z(1), 0.5),
        ("batch_means", z((4, 5)), z((4, 5)), 0.5, 4),
        ("batch_means", z(4), z(1), 0.5, 4),
        ("gather", z((4, 5)), np.array([1]), 255.0, np.dtype("float32")),
        ("gather", np.zeros((4, 5), np.uint8), np.array([1], np.int32), 255.0, np.dtype("float32")),
        ("gather", np.zeros((4, 5), np.uint8), np.array([[1]]), 255.0, np.dtype("float32")),
        ("gather", np.zeros((4, 5), np.uint8), np.arange(4)[::2], 255.0, np.dtype("float32")),
        ("gather", np.zeros((4, 5), np.uint8), np.array([1]), 255.0, np.dtype("float16")),
    ):
        assert getattr(cuda, name)(*arguments) is NotImplemented, name


def test_a_block_has_as_many_threads_as_cuda_allows():
    """At most 1,024 ("CUDA C++ Programming Guide", the table of compute capabilities)."""
    assert cuda.THREADS <= 1024
    assert cuda.THREADS & (cuda.THREADS - 1) == 0  # a power of two, as the sums of rows need


def test_numpy_arrays_and_others_do_not_reach_them():
    assert kernels.find("gather", np.zeros(1)) is None
    assert kernels.find("relu_backward", 1.0) is None


# ---- a whole step --------------------------------------------------------------------------------


@pytest.mark.parametrize("together", [False, True], ids=["apart", "together"])
@pytest.mark.parametrize("activation", list(activations.ACTIVATIONS))
def test_steps_on_kernels_are_the_definitions_steps(
    activation, together, launched, monkeypatch, rng
):
    """Three steps of Adam in float64, from the pixels on: data, model and optimizer.

    With a kernel for each function of the model's own text, and with those of fused.py.
    """
    seed, images = int(rng.integers(2**31)), rng.integers(0, 17, (9, 30), dtype=np.uint8)
    order, eps = rng.permutation(9), rng.standard_normal((3, 7, 4))
    step = fused.loss_and_grad if together else sv.VAE.loss_and_grad

    def train(step=sv.VAE.loss_and_grad):
        options = {"activation": activation, "dtype": "float64", "rng": seed}
        model = sv.VAE(30, hidden=(140,), latent_dim=4, beta=0.7, **options)
        adam, losses = sv.Adam(model.params, lr=0.01), []
        launched.clear()  # a model looks at its parts when it is built
        for noise in eps:
            x = datasets.gather(images, order[:7], 16.0, np.dtype("float64"))
            losses.append(np.array(step(model, x, noise), np.float64))
            adam.step()
        return losses, np.array(model.params.value)

    losses, value = train(step)
    own = {f"{activation}_backward"} & set(KERNELS)  # an activation need not have one
    if together:
        expected = {"code_and_kl", "code_gradient", "bernoulli_nll_and_gradient", "batch_means"}
        twice = own | ({"bias_and_relu"} if activation == "relu" else set())
        expected |= twice
    else:
        expected = own | {
            "reparameterize",
            "reparameterize_backward",
            "bernoulli_nll",
            "bernoulli_nll_backward",
            "kl_standard_normal",
            "kl_standard_normal_backward",
        }
        twice = own
    expected |= {"gather", "adam_update"}
    assert set(launched) == expected  # none stepped aside
    assert len(launched) == 3 * (len(expected) + len(twice))  # two hidden layers
    monkeypatch.setattr(kernels, "find", lambda name, x: None)
    losses_by_definition, value_by_definition = train()
    # 1e-12 is some thousand roundings; Adam makes a gradient near its eps, 1e-8, that much larger.
    np.testing.assert_allclose(losses, losses_by_definition, rtol=1e-12)
    np.testing.assert_allclose(value, value_by_definition, rtol=0, atol=1e-9)
