"""`make gpu-check` does run, and finds what is wrong: rehearsed on the stand-in for a GPU."""

import contextlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
import types
from pathlib import Path

import cuda_on_host
import numpy as np
import pytest
import standin

from scratchvae import (
    activations,
    datasets,
    free_bits,
    fused,
    gaussian,
    kernels,
    likelihoods,
    optimizers,
)
from scratchvae.kernels import cuda

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "demos" / "benchmarks"
MODULES = (activations, datasets, fused, gaussian, likelihoods, optimizers)


@pytest.fixture
def gpu_check(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setitem(sys.modules, "cupy", standin.cupy)
    monkeypatch.setitem(sys.modules, "cupyx", standin.cupyx)
    import gpu_check

    return gpu_check


def run(*arguments, cwd, root=ROOT, path=""):
    """Run a check in a process of its own, with the kernels, which conftest has switched off."""
    command = [sys.executable, str(root / "demos/benchmarks/gpu_check.py"), *arguments]
    env = {k: v for k, v in os.environ.items() if k != "SCRATCHVAE_COMPILED"}
    env |= {"PYTHONPATH": path} if path else {}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=env)


def test_a_rehearsal_writes_what_it_found(tmp_path, gpu_check):
    names = ["parity", "capture", "log-likelihood", "MNIST"]
    done = run("--rehearse", "--out", str(tmp_path), "--only", *names, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert results.keys() == {"machine", *names}
    table = (tmp_path / "gpu.md").read_text()
    assert table == gpu_check.markdown(results)
    missing = [line for line in table.splitlines() if "not measured |" in line]
    checks = [name for name in gpu_check.CHECKS if not name.startswith("speed")]
    assert len(missing) == len(checks) - 4


@pytest.mark.slow
def test_a_whole_rehearsal(tmp_path, gpu_check):
    done = run("--rehearse", "--out", str(tmp_path), "--minutes", "10", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert results.keys() == {"machine", *gpu_check.CHECKS}
    table = (tmp_path / "gpu.md").read_text()
    assert table == gpu_check.markdown(results)
    missing = [line for line in table.splitlines() if "not measured |" in line]
    assert all(" (busy) |" in line for line in missing)  # which only a GPU could tell
    rows = [line for line in table.splitlines() if line.startswith("| scratchvae")]
    assert len(rows) == 8  # with and without kernels, float32 and TF32; the time, and how long busy


PLANTED = [
    (
        "parity",
        "kernels/kernels.cu",
        "dz[i] + (real)dkl * code[mu]",
        "dz[i] - (real)dkl * code[mu]",
        "code_gradient",
    ),
    (
        "float32",
        "kernels/kernels.cu",
        "dz[i] + (real)dkl * code[mu]",
        "dz[i] - (real)dkl * code[mu]",
        "as it is trained",
    ),
    (
        "waits",
        "fused.py",
        "batch_means(nll, kl, model.beta, n)",
        "batch_means(nll, kl, float(model.beta + 0 * nll[0]), n)",
        "DeviceSynchronized",
    ),
    ("resume", "training.py", 'self.optimizer.steps = values["step"]', "pass", "parameters differ"),
]


@pytest.mark.slow
@pytest.mark.skipif(not cuda_on_host.COMPILER, reason="no C++ compiler")
@pytest.mark.parametrize(("check", "file", "old", "new", "said"), PLANTED)
def test_a_rehearsal_finds_an_error_in_what_a_gpu_runs(check, file, old, new, said, tmp_path):
    for folder in "scratchvae", "demos/benchmarks":
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "tests").mkdir()
    for name in "cuda_on_host.py", "cupy_record.json", "cupy_record.py", "standin.py":
        shutil.copy(ROOT / "tests" / name, tmp_path / "tests")
    text = (tmp_path / "scratchvae" / file).read_text()
    assert text.count(old) == 1
    (tmp_path / "scratchvae" / file).write_text(text.replace(old, new))
    arguments = "--rehearse", "--out", str(tmp_path), "--only", check
    done = run(*arguments, cwd=tmp_path, root=tmp_path, path=str(tmp_path))
    assert done.returncode == 1, done.stderr
    assert f"{check}: **failed**" in done.stderr
    assert said in done.stderr


HIDDEN = ("jax", "matplotlib", "nvmath", "pooch", "safetensors", "scipy", "threadpoolctl")
HIDDEN += ("torch", "tqdm")
ONLY_NUMPY = f"""
import sys
sys.path = [p for p in sys.path if p != {str(ROOT)!r}]  # scratchvae is not installed

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HIDDEN}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hide())
"""


def test_it_runs_from_the_source_tree_with_numpy_alone(tmp_path):
    """`sitecustomize` hides the other libraries, in every process that keeps its PYTHONPATH."""
    (tmp_path / "sitecustomize.py").write_text(ONLY_NUMPY)
    names = ["parity", "float32", "noise", "resume", "beside the CPU", "draws", "MNIST"]
    names += ["speed 128 float32"]
    arguments = ["--rehearse", "--out", str(tmp_path), "--only", *names]
    done = run(*arguments, cwd=tmp_path, path=str(tmp_path))
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert results.keys() == {"machine", *names}
    assert not [name for name in names if "absent" in results[name]]
    lacking = results["speed 128 float32"]["lacking"]
    assert lacking["PyTorch, its example"] == "torch is not installed"
    assert lacking["JAX lax.scan"] == "jax is not installed"
    assert "JAX lax.scan: jax is not installed." in (tmp_path / "gpu.md").read_text()


def test_a_check_in_another_process_finds_what_the_callers_path_leads_to(
    gpu_check, monkeypatch, tmp_path
):
    (tmp_path / "sitecustomize.py").write_text("import os; os.environ['FOUND'] = 'there'")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert gpu_check.answer(gpu_check.start("os.environ['FOUND']", True, {})) == "there"


def test_in_a_rehearsal_the_gradients_are_checked_beside_the_rest(
    gpu_check, monkeypatch, tmp_path, capsys
):
    """Nothing is timed then. An error of that process is the check's."""
    started = []

    def start(call, small, extra):
        started.append(call)
        return beside("no_such_function()", small, extra)

    beside = gpu_check.start
    monkeypatch.setattr(gpu_check, "start", start)
    checks = {name: gpu_check.CHECKS[name] for name in ("gradients", "capture")}
    monkeypatch.setattr(gpu_check, "CHECKS", checks)
    monkeypatch.setattr(sys, "argv", ["gpu_check", "--rehearse", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="Failed: gradients"):
        gpu_check.main()
    assert started == ["gradients(True)"]
    told = capsys.readouterr().err
    assert told.index("capture: ") < told.index("gradients: **failed**")
    assert "no_such_function" in told
    assert gpu_check.started[-1].poll() is not None


def test_a_check_that_lacks_a_library_says_so_and_has_not_failed(
    gpu_check, monkeypatch, tmp_path, capsys
):
    def lacks(small):
        """Lacks something."""
        import no_such_library  # noqa: F401

    monkeypatch.setattr(gpu_check, "CHECKS", {"one": lacks})
    monkeypatch.setattr(sys, "argv", ["gpu_check", "--rehearse", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        gpu_check.main()
    assert stopped.value.code == 0
    text = "| Lacks something. | not measured: No module named 'no_such_library' |"
    assert text in (tmp_path / "gpu.md").read_text()


def test_when_the_time_is_over_the_check_that_runs_is_stopped(gpu_check, monkeypatch, tmp_path):
    """Though it takes every exception for its own, as the check of captures does."""

    def endless(small):
        """Endless."""
        while True:
            with contextlib.suppress(Exception):
                time.sleep(0.01)

    monkeypatch.setattr(gpu_check, "CHECKS", {"one": lambda small: {"found": 1}, "two": endless})
    gpu_check.CHECKS["one"].__doc__ = "One."
    arguments = ["--rehearse", "--minutes", "0.002", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["gpu_check", *arguments])
    with pytest.raises(SystemExit) as stopped:
        gpu_check.main()
    assert stopped.value.code == 0
    assert json.loads((tmp_path / "gpu.json").read_text()).keys() == {"machine", "one"}


def test_it_takes_six_and_a_half_minutes_unless_told_otherwise(tmp_path):
    assert "no check runs beyond so many (default: 6.5)" in run("--help", cwd=tmp_path).stdout


@pytest.mark.parametrize("minutes", ["nan", "inf", "1e20", "0", "-1", "two"])
def test_minutes_that_are_none_are_refused(minutes, tmp_path):
    done = run("--rehearse", "--minutes", minutes, "--out", str(tmp_path), cwd=tmp_path)
    assert done.returncode == 2
    assert f"argument --minutes: invalid minutes value: {minutes!r}" in done.stderr
    assert not list(tmp_path.iterdir())


def test_where_there_was_no_time_for_any_check_nothing_is_said_to_be_written(tmp_path):
    out = tmp_path / "out"
    done = run(
        "--rehearse", "--minutes", "1e-9", "--only", "parity", "--out", str(out), cwd=tmp_path
    )
    assert done.returncode == 1
    assert done.stderr.endswith("Nothing was checked: --minutes gives it too little time.\n")
    assert not out.exists()


def test_results_that_cannot_be_written_are_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "out"
    done = run("--rehearse", "--only", "capture", "--out", str(out), cwd=tmp_path)
    assert done.returncode == 1
    sentence = f"gpu_check: the results cannot be written into {out}: Not a directory\n"
    assert done.stderr.endswith(sentence)


class FakeWorker:
    """A contestant whose step takes a millisecond, and 30 seconds where it has to compile."""

    def __init__(self, name):
        self.name, self.asked, self.compiled = name, [], set()

    def send(self, what, value):
        pass

    def receive(self):
        return 0.0

    def ask(self, what, n):
        self.asked.append((what, n))
        assert n % 10 == 0, "a scan of another length is compiled anew"
        return n / 1000


def test_every_turn_is_whole_scans_and_begins_with_steps_that_are_not_timed(gpu_check, monkeypatch):
    workers = [FakeWorker("scratchvae"), FakeWorker("JAX lax.scan")]
    monkeypatch.setattr(gpu_check, "team", lambda precision, small: workers)
    found = gpu_check.CHECKS["speed 128 TF32"](False)
    assert found["times"]["scratchvae"] == pytest.approx([1] * 5)
    calls = [n for what, n in workers[0].asked if what == "wall"]
    assert calls == [10, *[100, 200] * 5]
    assert workers[0].asked[-1] == ("busy", 50)


def test_a_worker_keeps_its_process_for_all_batch_sizes(gpu_check, tmp_path):
    worker = gpu_check.Worker("scratchvae", "float32", True, tmp_path / "log")
    try:
        for batch in (8, 16):
            worker.send("build", gpu_check.Case((784, 4, 2), "relu", batch, "rehearsal", 64))
            assert worker.receive() == 0, (tmp_path / "log").read_text()
            assert worker.ask("wall", 10) > 0
        worker.send("build", gpu_check.Case((784, 4), "no such", 8, "rehearsal", 64))
        assert worker.receive() == {
            "failed": "InputError: unknown activation 'no such': expected one of "
            + ", ".join(activations.ACTIVATIONS)
        }
    finally:
        worker.end()


@pytest.mark.parametrize(
    ("device", "backend"), [("cuda", "cupy"), ("rehearsal", "cupy"), ("cpu", "numpy")]
)
def test_our_steps_are_timed_on_the_device_that_is_asked_for(gpu_check, device, backend):
    step = gpu_check.ON_A_GPU["scratchvae"][0](gpu_check.Case((784, 4, 2), "relu", 8, device, 64))
    trainer = step.args[0]
    assert trainer.model.backend.name == backend


def test_scans_are_of_ten_steps(gpu_check, monkeypatch):
    """As `tens` counts them; a scan of another length would be compiled inside the clock."""
    asked = {}
    monkeypatch.setattr(
        gpu_check.contestants, "_jax", lambda case, **options: asked.update(options)
    )
    gpu_check.contestants.jax_scan(None)
    assert asked == {"steps_at_once": 10} == {"steps_at_once": gpu_check.tens(1)}


def test_a_draw_with_a_new_key_has_one(gpu_check, monkeypatch):
    seeds = []
    seed = standin.RandomState.seed

    def count(self, key=None):
        seeds.append(key)
        return seed(self, key)

    monkeypatch.setattr(standin.RandomState, "seed", count)
    found = gpu_check.draws(True)["microseconds"]
    assert found.keys() == {"with a new key", "without"}
    assert len(set(seeds) - {0}) == 11  # ten that are timed, and one before


def test_the_library_that_is_loaded_is_found(gpu_check):
    assert Path(gpu_check.loaded("libc.so")).exists()
    with pytest.raises(AssertionError, match=r"libcublas\.so is not loaded"):
        gpu_check.loaded("libcublas.so")


def test_a_right_model_in_tf32_passes(gpu_check, monkeypatch):
    """Products of numbers that are rounded to the 11 bits of TF32, as a GPU makes them."""

    def tf32(a):
        bits = np.ascontiguousarray(a, np.float32).view(np.uint32)
        return ((bits + 0x1000) & 0xFFFFE000).view(np.float32)

    def product(a, b, out=None):
        return standin._wrapped(np.matmul(*(tf32(standin._unwrapped(x)) for x in (a, b)),
                                          out=standin._unwrapped(out)))  # fmt: skip

    monkeypatch.setattr(standin.DeviceArray, "__matmul__", product)
    monkeypatch.setattr(standin.cupy, "matmul", product, raising=False)
    found = gpu_check.model_gradients(5e-3)
    # Both ways they were rounded.
    assert min(found["largest relative difference"].values()) > 1e-5


def test_kernels_that_are_not_used_are_not_called_right(gpu_check, monkeypatch):
    with pytest.raises(AssertionError, match="no kernel is used on this GPU"):
        gpu_check.parity(False)  # the stand-in's arrays are not those of a GPU


def test_each_library_is_told_of_tf32(gpu_check):
    exact, rounded = (gpu_check.PRECISIONS[name] for name in ("float32", "TF32"))
    assert exact.keys() == rounded.keys() == {"CUPY_TF32", "JAX_DEFAULT_MATMUL_PRECISION"}
    assert all(exact[name] != rounded[name] for name in exact)


@pytest.mark.parametrize(("error", "said"), [(6e-4, None), (6e-7, "no TF32")])
def test_products_that_are_exact_are_not_called_tf32(gpu_check, monkeypatch, error, said):
    """Else the times under that name would be those of float32."""
    asked = []

    found = {"largest relative difference": {"as it is trained": error}}
    monkeypatch.setattr(gpu_check, "start", lambda call, small, extra: asked.append(extra))
    monkeypatch.setattr(gpu_check, "answer", lambda process: found)
    with pytest.raises(gpu_check.Absent, match=said) if said else contextlib.nullcontext():
        gpu_check.tf32_model(False)
    assert asked == [gpu_check.PRECISIONS["TF32"]]


def test_a_wait_is_found(gpu_check, monkeypatch):
    assert gpu_check.waits(True) == {"steps without a wait": 98}

    def flush(*vectors):
        for vector in vectors:
            vector[standin.cupy.abs(vector) < 1e-38] = 0

    monkeypatch.setattr(optimizers, "flush_subnormals", flush)  # once in 64 steps
    with pytest.raises(standin.DeviceSynchronized):
        gpu_check.waits(True)


def test_a_run_that_does_not_go_on_as_it_was_is_found(gpu_check, monkeypatch):
    restore = gpu_check.Trainer.restore

    def wrong(self, *args):
        restore(self, *args)
        self.optimizer.state["v"] *= 1 + 1e-5

    monkeypatch.setattr(gpu_check.Trainer, "restore", wrong)
    with pytest.raises(AssertionError, match="parameters differ after the run went on"):
        gpu_check.resume(True)


def test_what_stands_in_the_documentation_is_what_was_found(gpu_check):
    folder = ROOT / "docs" / "benchmark"
    results = json.loads((folder / "gpu.json").read_text())
    assert (folder / "gpu.md").read_text() == gpu_check.markdown(results)


def test_every_pair_of_functions_takes_part(gpu_check, rng):
    backwards = {
        value
        for module in (activations, free_bits, gaussian, likelihoods)
        for name, value in vars(module).items()
        if name.endswith("_backward") and value.__module__ == module.__name__
    }
    assert backwards == {f_backward for _, _, f_backward, _ in gpu_check.pairs(rng)}


def test_a_step_that_is_wrong_only_as_it_is_trained_is_found(gpu_check, monkeypatch):
    right = fused.code_gradient
    monkeypatch.setattr(fused, "code_gradient", lambda *args: 1.001 * right(*args))
    with pytest.raises(AssertionError, match="as it is trained, loss or gradient differs by"):
        gpu_check.model_gradients(1e-5)


@pytest.mark.parametrize(
    ("function", "check"),
    [("expm1", "parity"), ("sqrt", "parity"), ("exp", "beside_the_cpu"), ("divide", "parity")],
)
def test_a_function_that_is_a_little_wrong_on_the_device_is_found(
    gpu_check, monkeypatch, function, check
):
    right = getattr(standin.cupy, function)
    monkeypatch.setattr(
        standin.cupy, function, lambda *args, **kw: right(*args, **kw) * 1.0001, raising=False
    )
    with pytest.raises(AssertionError, match=r"differs?\b"):
        getattr(gpu_check, check)(True)


def test_noise_that_repeats_is_found(gpu_check, monkeypatch):
    draw, fresh = standin.RandomState.standard_normal, np.random.default_rng

    def use(seed):
        def always(self, size, dtype):
            return draw(standin.RandomState(seed()), size, dtype)

        monkeypatch.setattr(standin.RandomState, "standard_normal", always)

    use(lambda: 1)
    with pytest.raises(AssertionError, match="the correlation of two draws is off by"):
        gpu_check.noise(True)
    use(lambda: int(fresh().integers(2**32)))
    with pytest.raises(AssertionError, match="one seed gives different noise"):
        gpu_check.noise(True)


def repeated(x, ndim, axis):
    """Give every slice of noise of so many axes the numbers of the first, along one of them."""
    return np.take(x, [0] * x.shape[axis], axis) if x.ndim == ndim else x


def opposed(x, ndim, axis, *, halves):
    """Make the second half minus the first, or every second slice minus the one before.

    The mean stays what it is.
    """
    if x.ndim != ndim:
        return x
    x = np.moveaxis(x.copy(), axis, 0)
    n = len(x) // 2
    first, second = (
        (slice(n), slice(n, 2 * n)) if halves else (slice(0, 2 * n, 2), slice(1, 2 * n, 2))
    )
    x[second] = -x[first]
    return np.moveaxis(x, 0, axis)


UNLIKE = itertools.cycle([1, 0.999, 0.998])  # factors: no draw is like the one before


@pytest.mark.parametrize(
    ("method", "wrong", "said"),
    [
        ("random_sample", lambda x: np.where(x > 0.9, 1, x), "uniform noise in float32 lies outs"),
        ("random_sample", lambda x: 0 * x + 0.5, "the moment 2 is off by"),
        ("random_sample", lambda x: 0.9 * x, "the mean is off by"),
        ("random_sample", lambda x: next(UNLIKE) * x, "one seed gives"),
        ("standard_normal", lambda x: np.tile(x[: len(x) // 2], 2), "a draw's halves is off by"),
        ("standard_normal", lambda x: repeated(x, 2, 0), "of shape (10001, 100): the"),
        ("standard_normal", lambda x: repeated(x, 2, 1), "of shape (10001, 100): the"),
        ("standard_normal", lambda x: repeated(x, 3, 0), "of shape (51, 201, 101): the"),
        (
            "standard_normal",
            lambda x: opposed(x, 2, 0, halves=False),
            "correlation along axis 0 is off by",
        ),
        (
            "standard_normal",
            lambda x: opposed(x, 3, 2, halves=False),
            "correlation along axis 2 is off by",
        ),
        (
            "standard_normal",
            lambda x: opposed(x, 2, 0, halves=True),
            "correlation of the halves of axis 0 is",
        ),
        (
            "standard_normal",
            lambda x: opposed(x, 3, 1, halves=True),
            "correlation of the halves of axis 1 is",
        ),
        ("standard_normal", lambda x: 1.01 * x, "the moment 2 is off by"),
        ("standard_normal", lambda x: x * (x.dtype == "float32"), "noise in float64: the moment 2"),
        ("standard_normal", lambda x: np.abs(x), "the mean is off by"),
        ("standard_normal", lambda x: np.sign(x), "the moment 4 is off by"),
    ],
)
def test_wrong_noise_is_found(gpu_check, monkeypatch, method, wrong, said):
    draw = getattr(standin.RandomState, method)

    def drawn(self, size, dtype):
        x = draw(self, size, dtype)._hidden
        return standin.DeviceArray(wrong(x).astype(x.dtype))

    monkeypatch.setattr(standin.RandomState, method, drawn)
    with pytest.raises(AssertionError, match=re.escape(said)):
        gpu_check.noise(True)


def test_right_noise_passes(gpu_check):
    assert gpu_check.noise(True)["draws"] == 1_000_000


def test_a_wrong_gradient_is_found(gpu_check, monkeypatch):
    report = gpu_check.sv.gradcheck.Report("tanh", 0.5, 1e-7, 1, message="wrong", verdict="wrong")
    monkeypatch.setattr(gpu_check.sv.gradcheck, "suite", lambda backend: [report])
    with pytest.raises(AssertionError, match=r"^wrong$"):
        gpu_check.gradients(True)


def test_a_bound_that_is_not_finite_is_found(gpu_check, monkeypatch):
    def bound(*args, **options):
        return np.full(20, np.nan)

    monkeypatch.setattr(gpu_check, "importance_weighted_bound", bound)
    with pytest.raises(AssertionError, match="not a finite bound each"):
        gpu_check.log_likelihood(True)


def test_a_bound_that_is_wrong_is_found(gpu_check, monkeypatch):
    bound = gpu_check.importance_weighted_bound

    def wrong(model, *args, **options):
        return bound(model, *args, **options) + 3 * (model.backend.name == "cupy")

    monkeypatch.setattr(gpu_check, "importance_weighted_bound", wrong)
    with pytest.raises(AssertionError, match=r"differs from the CPU's by [234]\.\d\d nats"):
        gpu_check.log_likelihood(True)


@pytest.mark.parametrize("loss", [104.9, 106.6, np.nan])
def test_a_training_that_ends_elsewhere_is_found(gpu_check, monkeypatch, loss):
    def run(self, epochs):
        assert epochs == 10
        self.metrics.append({"test_loss": loss})

    monkeypatch.setenv("SCRATCHVAE_DATA", "there")
    digits = gpu_check.datasets.load("digits")
    monkeypatch.setattr(gpu_check.datasets, "load", {"mnist": digits}.__getitem__)
    monkeypatch.setattr(gpu_check.Trainer, "run", run)
    with pytest.raises(AssertionError, match=r"expected 105 to 106\.5"):
        gpu_check.mnist(False)


@pytest.mark.parametrize("grown", [0, 2**20, 2**20 + 1])
def test_memory_that_grows_is_found(gpu_check, monkeypatch, grown):
    taken = []
    monkeypatch.setattr(gpu_check, "take_steps", lambda t, n: taken.append(n))
    pool = types.SimpleNamespace(total_bytes=lambda: 5 + grown * (len(taken) == 2))
    monkeypatch.setattr(standin.cupy, "get_default_memory_pool", lambda: pool, raising=False)
    with (
        pytest.raises(AssertionError, match=r"1,048,577 bytes more")
        if grown > 2**20
        else contextlib.nullcontext()
    ):
        assert gpu_check.memory(False)["grown bytes"] == grown
    assert taken == [1000, 9000]


def test_what_pytorch_puts_around_its_kernels_is_no_work_of_the_gpu(gpu_check, monkeypatch):
    profiler = pytest.importorskip("torch.profiler", reason="PyTorch is not installed")
    from torch.autograd.profiler_util import DeviceType, FunctionEvent

    # Microseconds: what the host does, two kernels, and a span from before the one to behind both.
    cpu, cuda_ = DeviceType.CPU, DeviceType.CUDA
    times = [(cpu, 0, 50, False), (cuda_, 10, 160, False), (cuda_, 250, 300, False)]
    times += [(cuda_, 0, 300, True)]
    events = [
        FunctionEvent(i, "event", 0, start, end, use_device="cuda", device_type=on,
                      is_user_annotation=around)
        for i, (on, start, end, around) in enumerate(times)
    ]  # fmt: skip
    seen = types.SimpleNamespace(events=lambda: events)
    monkeypatch.setattr(profiler, "profile", lambda **_: contextlib.nullcontext(seen))
    steps = []
    assert gpu_check.busy_seconds(steps.append, 7) == pytest.approx(200e-6)
    assert steps == [7]


def test_a_check_that_fails_is_told_and_the_next_one_runs(gpu_check, monkeypatch, tmp_path, capsys):
    def fail(small):
        raise AssertionError("it differs")

    monkeypatch.setattr(gpu_check, "CHECKS", {"one": fail, "two": lambda small: {"found": 0.5}})
    monkeypatch.setattr(sys, "argv", ["gpu_check", "--rehearse", "--out", str(tmp_path)])
    fail.__doc__ = "One."
    gpu_check.CHECKS["two"].__doc__ = "Two."
    with pytest.raises(SystemExit, match="Failed: one"):
        gpu_check.main()
    assert "two: found: 0.5" in capsys.readouterr().err
    assert "| One. | **failed**: AssertionError: it differs |" in (tmp_path / "gpu.md").read_text()


def test_a_difference_is_relative_to_the_largest_number_and_nan_is_infinite(gpu_check):
    a = np.array([1.0, -4.0])
    assert gpu_check.apart(np.array([1.0, -4.2]), a) == pytest.approx(0.05)
    assert gpu_check.apart(np.array([np.nan, -4.0]), a) == np.inf
    with pytest.raises(AssertionError, match="shape"):
        gpu_check.apart(np.zeros(3), a)


def test_without_a_gpu_one_sentence_says_so(tmp_path):
    done = run("--out", str(tmp_path), "--only", "parity", cwd=tmp_path)
    if done.returncode == 0:
        pytest.skip("there is a GPU")
    assert done.stderr.startswith("gpu_check: the cupy backend needs an NVIDIA GPU")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", list(cuda_on_host.declarations(cuda.source())))
def test_a_wrong_kernel_is_found(gpu_check, monkeypatch, name):
    (definition,) = (getattr(m, name) for m in MODULES if hasattr(m, name))

    def wrong(*args):
        found = definition.__wrapped__(*args)
        changed = args[0] if found is None else found[0] if isinstance(found, tuple) else found
        changed *= 1 + 1e-4
        return found

    def find(asked, x):
        return wrong if asked == name and isinstance(x, standin.DeviceArray) else None

    monkeypatch.setattr(kernels, "find", find)
    with pytest.raises(AssertionError, match=r"differs\b"):
        gpu_check.parity(True)
