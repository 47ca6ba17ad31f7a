"""Every error of semantic.toml and of the zoo, planted in a copy, makes a test fail."""

import os

import pytest
import semantic


@pytest.fixture(scope="module")
def pool():
    """Processes in which to test copies; on all cores at once."""
    with semantic.pool() as processes:
        yield processes


@pytest.fixture(scope="module")
def verdicts(request, pool):
    """The seed of the run, and for each selected mutant which test finds it."""
    seed = int(os.environ["SCRATCHVAE_TEST_SEED"]) % 2**32  # as the option takes it
    selected = [item for item in request.session.items if item.module is request.module]
    params = [item.callspec.params for item in selected if hasattr(item, "callspec")]
    mutants = [p["mutant"] for p in params if "mutant" in p]
    return seed, {m.name: pool.submit(semantic.killer, m, seed) for m in mutants}


def test_every_error_can_be_planted():
    files = semantic.PACKAGE.rglob("*.py")
    texts = {p.relative_to(semantic.PACKAGE).as_posix(): p.read_text("utf-8") for p in files}
    for mutant in semantic.load():
        for edit in mutant.edits:
            assert texts[edit.file].count(edit.old) == 1, (mutant.name, edit.old)


@pytest.mark.slow
@pytest.mark.parametrize("mutant", semantic.load(), ids=lambda mutant: mutant.name)
def test_a_planted_error_is_found(verdicts, mutant):
    seed, futures = verdicts
    assert futures[mutant.name].result(), f"no test finds it with seed {seed}: {mutant.error}"


@pytest.mark.slow
@pytest.mark.parametrize("planted", [None, semantic.RIGHT], ids=["nothing", "the right VAE"])
def test_what_finds_errors_passes_where_there_is_none(verdicts, pool, planted):
    """What finds a model of the zoo finds its formula, not that it is another class."""
    seed, futures = verdicts
    finders = {f.result() for name, f in futures.items() if not planted or name.startswith("zoo.")}
    if finders := sorted(finders - {None}):
        failed, output = pool.submit(semantic.failures, finders, seed, planted).result()
        assert failed is None, f"seed {seed}\n{output}"
