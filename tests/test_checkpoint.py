"""Checkpoints: whole or absent, exact, and refused with one sentence when they do not fit."""

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
