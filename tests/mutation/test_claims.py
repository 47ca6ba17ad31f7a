"""What `make claims` plants: something for every label, in the lines of that label alone."""

import ast
import shutil

import claims
import pytest
import semantic

BLOCKS = claims.labels.read(semantic.ROOT).blocks


def test_every_label_has_an_error_of_1_percent():
    missing, more = set(BLOCKS) - set(claims.WRONG), set(claims.WRONG) - set(BLOCKS)
    assert not missing, (
        f"tests/mutation/claims.py does not say what to make wrong at {', '.join(sorted(missing))}"
    )
    assert not more, f"labels that the code does not have: {', '.join(sorted(more))}"


@pytest.mark.parametrize(
    ("label", "marked"), [(label, m) for label, texts in claims.WRONG.items() for m in texts]
)
def test_it_changes_the_lines_of_its_label_and_nothing_else(tmp_path, label, marked):
    block = BLOCKS[label]
    path = tmp_path / block.path
    path.parent.mkdir(parents=True)
    shutil.copy(semantic.ROOT / block.path, path)
    before = path.read_text("utf-8").splitlines()
    claims.plant(block, marked, tmp_path)
    after = path.read_text("utf-8").splitlines()
    ast.parse("\n".join(after))
    changed = [n for n, (a, b) in enumerate(zip(before, after, strict=True), 1) if a != b]
    assert changed
    ends = [other.first for other in BLOCKS.values() if other.path == block.path]
    end = min((n for n in ends if n > block.first), default=len(before) + 1)
    assert all(block.first < n < end for n in changed)
