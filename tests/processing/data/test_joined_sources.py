"""Sources that `datasets` joins: what each says of itself is text, with a licence or without."""

import itertools

import datasets
import pytest

from gap_mllm.processing.data import SOURCES, load_multiview
from gap_mllm.processing.data.loading import source_builder_class
from tests.processing.data.source_cases import CASES, copy_case


NAMES = ("chat", "cv_bench", "gap_mllm")  # without a licence, with one, without one


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """A function (name, streaming) -> rows of a source."""
    folder, places = tmp_path_factory.mktemp("joined"), {}

    def load_rows(name, streaming):
        if name == "synthetic_rooms":
            return load_multiview(name, split="train", streaming=streaming, num_train=1, cache_dir=folder / "cache")
        if name not in places:
            places[name] = copy_case(name, folder / name)
        (data_dir, options), split = places[name], CASES[name].split
        return load_multiview(name, data_dir, split, streaming, cache_dir=folder / "cache", **options)

    return load_rows


def test_what_every_source_says_of_itself_is_text():
    for name in SOURCES:
        builder_class = source_builder_class(name)
        info = builder_class._info(builder_class.__new__(builder_class))
        assert {type(getattr(info, field)) for field in ("description", "license", "citation", "homepage")} == {str}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("names", [*itertools.permutations(NAMES, 2), NAMES, NAMES[::-1]])
def test_sources_are_concatenated_and_interleaved(load, names, streaming):
    sources = [load(name, streaming) for name in names]
    ids = [[row["id"] for row in source.remove_columns("views")] for source in sources]
    joined = datasets.concatenate_datasets(sources)
    assert [row["id"] for row in joined.remove_columns("views")] == sum(ids, [])
    assert joined.info.license == ("apache-2.0" if "cv_bench" in names else "")
    mixed = datasets.interleave_datasets(sources)
    taken = [row["id"] for row in mixed.remove_columns("views")]
    assert taken[: len(sources)] == [first for first, *_ in ids]


@pytest.mark.parametrize("names", [("synthetic_rooms", "chat"), ("chat", "synthetic_rooms")])
def test_rendered_rooms_are_concatenated_with_data(load, names):
    sources = [load(name, False) for name in names]
    assert len(datasets.concatenate_datasets(sources)) == sum(map(len, sources))
    assert datasets.interleave_datasets(sources).info.license == "apache-2.0"
