"""What `make claims` plants: something for every label, in the lines of that label alone."""

import ast
import shutil

import claims
import pytest
import semantic

BLOCKS = claims.labels.read(semantic.ROOT).blocks


def test_every_label_has_an_error_of_1_percent():
    for block in BLOCKS.values():
        assert claims.texts(block)
    more = set(claims.WRONG) - set(BLOCKS)
    assert not more, f"labels that the code does not have: {', '.join(sorted(more))}"


def test_where_there_is_no_value_the_table_must_say_what_is_wrong():
    block = claims.labels.Block("new", "scratchvae/a.py", 1, 3, "", "# [new]\nfor a in b:\n    c()")
    with pytest.raises(LookupError, match=r"^enter in WRONG of .*claims.py .* wrong at \[new\]$"):
        claims.texts(block)


@pytest.mark.parametrize("label", BLOCKS)
def test_it_changes_the_lines_of_its_label_and_nothing_else(tmp_path, label):
    block = BLOCKS[label]
    path = tmp_path / block.path
    path.parent.mkdir(parents=True)
    for marked in claims.texts(block):
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
