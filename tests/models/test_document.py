"""docs/models.md is what the command writes, and papers.json agrees with the other tables."""

from pathlib import Path

import pytest

from pycv import models
from pycv.models import document, published

from ..seed import SEED

TEXT = Path(__file__).parents[2].joinpath(document.PATH).read_text(encoding="utf-8")
HINT = "python -m pycv.models.document writes it anew"


def test_lines_of_some_models():
    """A sixth of them, drawn by the seed; and nothing else stands in the table."""
    names = sorted(document._facts()["models"])
    assert names == models.list_models()
    assert sorted(line.split("`")[1] for line in TEXT.splitlines() if line.startswith("| `")) == names
    for name in names[SEED % 6 :: 6]:
        assert document.row(name) in TEXT, HINT


@pytest.mark.full
def test_the_checked_in_file_is_what_the_command_writes(tmp_path, capsys):
    document.main([str(tmp_path / "models.md")])
    assert (tmp_path / "models.md").read_text(encoding="utf-8") == TEXT, HINT
    assert f"{len(models.list_models())} models" in capsys.readouterr().out


def test_text_around_the_table():
    before, after = TEXT.split("| `", 1)[0], TEXT.rsplit(" |\n", 1)[1]
    assert before == document.HEAD, HINT
    assert after.startswith(document.TAIL.format(**document._computed())), HINT
    for figure in ("1,327,488", "663,936", "15,237,608", "60.95 MB", "138,344,128", "13,416", "6,624,904", "26.2 %"):
        assert figure in after


def test_published_by_torchvision_is_what_can_be_fetched():
    facts = document._facts()["models"]
    assert {name for name, (_, *rest) in facts.items() if rest[1:] == ["torchvision"]} == set(published.FILES)
    assert {paper for paper, *_ in facts.values()} == set(document._facts()["papers"])
