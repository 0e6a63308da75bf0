"""A folder that an earlier version published loads with its own code, and with that of today, and answers the same."""

import json
import shutil
import tarfile

import pytest
from PIL import Image
from transformers import AutoModel, AutoProcessor

from gap_mllm import GapMllmForConditionalGeneration, GapMllmProcessor
from gap_mllm.processing import Mark
from gap_mllm.processing.data.rooms.layout import room_seed
from gap_mllm.processing.data.rooms.renderer import render_room
from tests.examples.test_frozen_answers import ROOT, read_rows


ASSETS = ROOT / "examples" / "assets"
ASK = """
from PIL import Image

folder, questions, out = sys.argv[1:]
model = transformers.AutoModel.from_pretrained(folder, trust_remote_code=True).float().eval()
processor = transformers.AutoProcessor.from_pretrained(folder, trust_remote_code=True)
chats = []
for asked in json.load(open(questions)):
    views = processor.apply_visual_prompt([Image.open(path) for path in asked["views"]], asked["mark"])
    chats.append(processor.build_messages("reconstruction", views, prompt=asked["question"]))
json.dump(processor.ask(model, chats, task="reconstruction", max_new_tokens=48), open(out, "w"))
"""
EARLIER = ROOT / "tests" / "fixtures" / "published_8b6e7dd.tar.xz"  # code and settings, as of that commit


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    """The folder, with the weights and the tokenizer of the shipped one, which are the same."""
    folder = tmp_path_factory.mktemp("published") / "tiny_gap_mllm"
    with tarfile.open(EARLIER) as archive:
        archive.extractall(folder, filter="data")
    for name in ("model.safetensors", "tokenizer.json"):
        shutil.copyfile(ASSETS / "tiny_gap_mllm" / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def asked():
    """Four marked rooms: their views, what was asked, and what was answered then."""
    rows, views = read_rows(4), []
    for row in rows:
        pictures = render_room(room_seed("test", row["room"])).images
        views.append([Image.fromarray(picture) for picture in pictures])
    return rows, views


@pytest.mark.parametrize(
    "kinds", [(GapMllmForConditionalGeneration, GapMllmProcessor), (AutoModel, AutoProcessor)], ids=["own", "auto"]
)
def test_the_code_of_today_answers_the_same(earlier, asked, kinds):
    model, processor = (kind.from_pretrained(earlier) for kind in kinds)
    rows, chats = asked[0], []
    for row, views in zip(*asked, strict=True):
        marked = processor.apply_visual_prompt(views, [Mark(row["view"], row["pixel"], "red")])
        chats.append(processor.build_messages("reconstruction", marked, prompt=row["question"]))
    texts = processor.ask(model.float().eval(), chats, task="reconstruction", max_new_tokens=48)
    assert texts == [row["answer"] for row in rows]


def test_its_own_code_answers_the_same(earlier, asked, tmp_path, run_without_package):
    questions = []
    for row, views in zip(*asked, strict=True):
        paths = [tmp_path / f"{row['room']}_{index}.png" for index in range(len(views))]
        for path, view in zip(paths, views, strict=True):
            view.save(path)
        questions.append(
            {"views": list(map(str, paths)), "mark": [row["view"], *row["pixel"]], "question": row["question"]}
        )
    (tmp_path / "questions.json").write_text(json.dumps(questions), encoding="utf-8")
    texts = run_without_package(ASK, earlier, tmp_path / "questions.json")
    assert texts == [row["answer"] for row in asked[0]]
