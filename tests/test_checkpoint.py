"""Checkpoints: whole or absent, exact, and refused with one sentence when they do not fit."""

import errno
import os
import subprocess
import sys
import time

import numpy as np
import pytest

import scratchvae as sv
from scratchvae import checkpoint


def test_arrays_and_values_come_back_bit_by_bit(rng, tmp_path):
    arrays = {
        "a": rng.standard_normal((3, 4)).astype(np.float32),
        "transposed": rng.standard_normal((3, 4)).T,  # safetensors alone would scramble it
        "strided": rng.standard_normal(10)[::2],
    }
    values = {"epoch": 3, "best": 0.1, "rng": np.random.default_rng().bit_generator.state}
    checkpoint.save(tmp_path / "c.safetensors", arrays, values)
    arrays_back, values_back = checkpoint.load(tmp_path / "c.safetensors")
    assert values_back == values
    assert set(arrays_back) == set(arrays)
    for name, a in arrays.items():
        assert arrays_back[name].dtype == a.dtype
        np.testing.assert_array_equal(arrays_back[name], a)
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]


def test_any_program_that_knows_safetensors_can_open_it(rng, tmp_path):
    from safetensors.numpy import load_file

    a = rng.standard_normal((3, 4))
    checkpoint.save(tmp_path / "c.safetensors", {"a": a}, {"epoch": 3})
    np.testing.assert_array_equal(load_file(tmp_path / "c.safetensors")["a"], a)
    assert b"pickle" not in (tmp_path / "c.safetensors").read_bytes()


def test_a_failure_while_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "f.txt"
    path.write_text("old")

    def fail(temporary):
        temporary.write_text("half")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        checkpoint.write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_content_is_on_the_disk_before_the_name_points_to_it(tmp_path, monkeypatch):
    path, done = tmp_path / "f.txt", []

    def fsync(descriptor):
        done.append(("on the disk", os.fstat(descriptor).st_ino, os.fstat(descriptor).st_size))

    def replace(old, new, rename=os.replace):
        done.append(("named", os.stat(old).st_ino, new))
        rename(old, new)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    checkpoint.write_atomically(path, lambda file: file.write_text("whole"))
    inode = path.stat().st_ino
    assert done == [("on the disk", inode, 5), ("named", inode, path)]


def test_a_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(sv.InputError, match=r"missing/c\.safetensors: cannot be written"):
        checkpoint.save(tmp_path / "missing" / "c.safetensors", {}, {})


WRITER = """
import sys, numpy as np
from scratchvae import checkpoint
a = np.zeros(300_000, dtype=np.float32)
n = 0
while True:
    n += 1
    a[:] = n
    checkpoint.save(sys.argv[1], {"a": a}, {"n": n})
    print(n, flush=True)
"""


def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(rng, tmp_path):
    path = tmp_path / "c.safetensors"
    for _ in range(5):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
        )
        with writer:
            writer.stdout.readline()  # at least one has been written
            time.sleep(float(rng.uniform(0, 0.05)))
            writer.kill()
        arrays, values = checkpoint.load(path)
        assert (arrays["a"] == values["n"]).all()


def test_truncated_at_any_length_it_is_refused_in_one_sentence(rng, tmp_path):
    path = tmp_path / "c.safetensors"
    checkpoint.save(path, {"a": np.arange(5.0)}, {"n": 1})
    whole = path.read_bytes()
    cut = tmp_path / "cut.safetensors"
    for n in range(len(whole)):
        cut.write_bytes(whole[:n])
        with pytest.raises(sv.InputError) as error:
            checkpoint.load(cut)
        message = str(error.value)
        assert message.startswith(f"{cut}: truncated or not a checkpoint")
        assert "\n" not in message


@pytest.mark.parametrize("content", [b"hello", b"\x89PNG\r\n" * 9, os.urandom(500)])
def test_what_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "c.safetensors"
    path.write_bytes(content)
    with pytest.raises(sv.InputError, match="truncated or not a checkpoint"):
        checkpoint.load(path)


def test_a_safetensors_file_of_somebody_else_is_refused(tmp_path):
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(2)}, tmp_path / "c.safetensors")
    with pytest.raises(sv.InputError, match="not a checkpoint of this version: found 'no format"):
        checkpoint.load(tmp_path / "c.safetensors")


def test_a_missing_file_or_a_folder_in_its_place_is_refused(tmp_path):
    with pytest.raises(sv.InputError, match="no such file"):
        checkpoint.load(tmp_path / "none.safetensors")
    with pytest.raises(sv.InputError, match="truncated or not a checkpoint"):
        checkpoint.load(tmp_path)


def test_parameters_of_another_model_are_refused_by_name_and_change_nothing(rng):
    small, large = (sv.VAE(6, hidden=(h,), latent_dim=2, rng=0) for h in (4, 5))
    arrays = {name: small.params[name].value for name in small.params.names}
    before = large.params.value.copy()
    with pytest.raises(sv.InputError, match=r"encoder\.0\.W is float32 \(6, 4\), expected .*6, 5"):
        checkpoint.load_parameters(large.params, arrays, "c.safetensors")
    with pytest.raises(sv.InputError, match=r"encoder\.0\.W is nothing"):
        checkpoint.load_parameters(large.params, {}, "c.safetensors")
    arrays = {name: 0 * large.params[name].value for name in large.params.names}
    arrays["decoder.2.b"] = arrays["decoder.2.b"][1:]  # only the last one does not fit
    with pytest.raises(sv.InputError, match=r"decoder\.2\.b is float32 \(5,\), expected"):
        checkpoint.load_parameters(large.params, arrays, "c.safetensors")
    np.testing.assert_array_equal(large.params.value, before)


def test_it_knows_no_model():
    """Arrays and values only: a model that somebody else has written is saved as well as ours."""
    program = "import sys, scratchvae.checkpoint as c; print(*vars(c))"
    names = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout
    assert not {"VAE", "Autoencoder", "Trainer", "vae", "training"} & set(names.split())


# --- what a file says is believed only if it is whole and can be so ---


def rewritten(path, arrays, values):
    """Write a checkpoint whose digest is right, whatever it says."""
    checkpoint.save(path, arrays, values)
    return path


@pytest.fixture
def state(rng):
    model = sv.VAE(6, (5,), 2, rng=0)
    trainer = sv.Trainer(model, sv.Adam(model.params), rng.uniform(size=(20, 6)), batch_size=7)
    trainer.run(1)
    return trainer, *trainer.state()


def test_no_changed_bit_changes_what_is_loaded(rng, state, tmp_path):
    _, arrays, values = state
    path, changed = tmp_path / "c.safetensors", tmp_path / "changed.safetensors"
    checkpoint.save(path, arrays, values)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    for bit in rng.integers(8 * len(whole), size=300):
        data = whole.copy()
        data[bit // 8] ^= 1 << (bit % 8)
        changed.write_bytes(data.tobytes())
        with pytest.raises(sv.InputError) as error:
            checkpoint.load(changed)
        assert str(error.value).startswith(f"{changed}: ")
        assert "\n" not in str(error.value)


def test_a_checkpoint_of_an_older_version_is_loaded_and_said_to_have_no_digest(tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "c.safetensors"
    values = {"format": "scratchvae 1", "values": '{"best": Infinity}'}
    save_file({"a": np.arange(3.0)}, path, values)
    with pytest.warns(UserWarning, match=r"c\.safetensors: written by an older version, without a"):
        arrays, values = checkpoint.load(path)
    np.testing.assert_array_equal(arrays["a"], np.arange(3.0))
    assert values == {"best": np.inf}


@pytest.mark.parametrize("text", ["[" * 100_000, "[1", "3", "9" * 5000, '{"a": ' * 5000])
def test_values_that_are_no_values_are_refused(tmp_path, text):
    from safetensors.numpy import save_file

    path = tmp_path / "c.safetensors"
    metadata = {"format": checkpoint.FORMAT, "values": text, "sha256": checkpoint.digest({}, text)}
    save_file({}, path, metadata)
    with pytest.raises(sv.InputError, match="truncated or not a checkpoint") as error:
        checkpoint.load(path)
    assert "\n" not in str(error.value)


def test_the_optimizers_state_is_looked_at_like_parameters_and_nothing_is_changed(state, tmp_path):
    trainer, arrays, values = state
    before = trainer.model.params.value.copy(), trainer.optimizer.state["m"].copy()
    m, zeroed = arrays["optimizer.m"], {name: 0 * a for name, a in arrays.items()}
    for wrong, expected in (
        (m[:1], r"optimizer\.m is float32 \(1,\), expected"),
        (m.astype(np.float64), r"optimizer\.m is float64 "),
        (m.astype(np.int32), r"optimizer\.m is int32 "),
        (m > 0, r"optimizer\.m is bool "),
        (m * np.nan, r"optimizer\.m holds NaN or infinity: expected finite numbers"),
    ):
        with pytest.raises(sv.InputError, match=expected):
            trainer.restore({**zeroed, "optimizer.m": wrong}, values, "c")
    for name, wrong in (
        ("epoch", -1), ("epoch", "1"), ("epoch", 1.0), ("epoch", True), ("epoch", 2**64),
        ("batch", 4), ("step", None), ("totals", [1.0]), ("totals", [1.0, 2.0, "x"]),
        ("totals", 3), ("metrics", {}), ("metrics", [{}]), ("metrics", [3]), ("rng", []),
        ("rng", {}), ("rng", {**values["rng"], "state": {"state": -1, "inc": 2**200}}),
        ("rng", np.random.MT19937().state), ("seconds", float("inf")),
    ):  # fmt: skip
        with pytest.raises(sv.InputError, match=r"^c: ") as error:
            trainer.restore(arrays, {**values, name: wrong}, "c")
        assert "\n" not in str(error.value)
    for name in ("epoch", "rng", "metrics"):
        with pytest.raises(sv.InputError, match=f"the state lacks {name}"):
            trainer.restore(arrays, {k: v for k, v in values.items() if k != name}, "c")
    np.testing.assert_array_equal(trainer.model.params.value, before[0])
    np.testing.assert_array_equal(trainer.optimizer.state["m"], before[1])


# --- temporary files ---


def test_a_temporary_file_follows_no_link(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "urandom", lambda n: bytes(n))
    victim, path = tmp_path / "victim", tmp_path / "c.txt"
    victim.write_text("mine")
    (tmp_path / f".{os.getpid()}.00000000.tmp.txt").symlink_to(victim)
    with pytest.raises(sv.InputError, match=r"c\.txt: cannot be written \(File exists\)"):
        checkpoint.write_atomically(path, lambda file: file.write_text("new"))
    assert victim.read_text() == "mine"
    assert not path.exists()


def test_what_cannot_be_cleaned_up_hides_no_error(tmp_path):
    for name in ("x" * 300, "x." + "y" * 300):
        with pytest.raises(sv.InputError, match=r": cannot be written \(File name too long\)"):
            checkpoint.write_atomically(tmp_path / name, lambda file: file.write_text("new"))


def test_what_dead_processes_left_is_removed_and_nothing_else(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    ends = ("safetensors", "jsonl", "png", "svg", "html", "npy", "npz", "csv")
    gone = [f".{dead.pid}.00ff00ff.tmp.{end}" for end in ends]
    stay = [f".{os.getpid()}.00ff00ff.tmp.png", ".mine.tmp", "tmp", f"{dead.pid}.tmp"]
    stay += [f".notes.{dead.pid}.tmp.txt", f".{dead.pid}.tmp", f".a.{dead.pid}.00ff00ff.tmp.png"]
    stay += [f".{dead.pid}.00ff00ff.tmp.txt", f".{dead.pid}.00ff00ff.tmp.png.txt"]
    stay += [f".{dead.pid}.2024.tmp.png", f".checkpoint.{dead.pid}.tmp.safetensors"]
    for name in gone + stay:
        (tmp_path / name).write_text("")
    checkpoint.remove_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(stay)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_a_file_that_the_system_does_not_open_is_not_called_missing(number, tmp_path, monkeypatch):
    """Nor truncated: safetensors says of every file that it cannot open that there is none."""
    path = tmp_path / "c.safetensors"
    checkpoint.save(path, {}, {})

    def refuse(*args, **kwargs):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(sv.InputError) as caught:
        checkpoint.load(path)
    assert str(caught.value) == f"{path}: cannot be read ({os.strerror(number)})"


def test_a_parameter_of_no_dimension_comes_back(tmp_path):
    """Such as the one number by which a layer weighs its inner layer, or a temperature."""
    path = tmp_path / "c.safetensors"
    checkpoint.save(path, {"a": np.array(0.5, "float32")}, {})
    assert checkpoint.load(path)[0]["a"].shape == ()
