"""The picture of docs/conventions.md is drawn by code of ours, and stands beside the document."""

import runpy

from PIL import Image

from tests.test_structure import ROOT


def test_the_picture_of_the_document_is_drawn(tmp_path):
    draw_conventions = runpy.run_path(str(ROOT / ".ci" / "draw_conventions.py"))["draw_conventions"]
    draw_conventions(tmp_path / "conventions.png")
    drawn, shipped = (Image.open(file) for file in (tmp_path / "conventions.png", ROOT / "docs" / "conventions.png"))
    assert drawn.size == shipped.size
    assert len(drawn.convert("RGB").getcolors(1 << 20)) > 50  # axes in three colours, smoothed
