"""Every error of semantic.toml and of the zoo, planted in a copy, makes a test fail."""

import os

import pytest
import semantic


@pytest.fixture(scope="module")
def verdicts(request):
    """What became of each selected mutant and of an unchanged copy; on all cores at once."""
    seed = int(os.environ["SCRATCHVAE_TEST_SEED"]) % 2**32  # of the run, as the option takes it
    selected = [item for item in request.session.items if item.module is request.module]
    mutants = [item.callspec.params["mutant"] for item in selected if hasattr(item, "callspec")]
    with semantic.pool() as pool:
        futures = {m.name: pool.submit(semantic.killer, m, seed) for m in mutants}
        futures["nothing"] = pool.submit(semantic.passes, seed)
        futures["the right VAE"] = pool.submit(semantic.killer, semantic.RIGHT, seed)
        yield seed, futures


def test_every_error_can_be_planted():
    texts = {path.name: path.read_text("utf-8") for path in semantic.PACKAGE.glob("*.py")}
    for mutant in semantic.load():
        for edit in mutant.edits:
            assert texts[edit.file].count(edit.old) == 1, (mutant.name, edit.old)


@pytest.mark.slow
def test_with_nothing_planted_the_tests_pass(verdicts):
    seed, futures = verdicts
    passed, output = futures["nothing"].result()
    assert passed, f"seed {seed}\n{output}"


@pytest.mark.slow
def test_with_the_right_vae_planted_the_tests_pass(verdicts):
    """What finds a model of the zoo finds its formula, not that it is another class."""
    seed, futures = verdicts
    found = futures["the right VAE"].result()
    assert found is None, f"seed {seed}: {found}"


@pytest.mark.slow
@pytest.mark.parametrize("mutant", semantic.load(), ids=lambda mutant: mutant.name)
def test_a_planted_error_is_found(verdicts, mutant):
    seed, futures = verdicts
    assert futures[mutant.name].result(), f"no test finds it with seed {seed}: {mutant.error}"
