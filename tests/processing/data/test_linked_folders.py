"""Data that is kept elsewhere and linked, as people keep ScanNet, is read as if it lay in the folder."""

import os
import shutil
from pathlib import Path

import pytest

from gap_mllm.processing.data import RecordError, load_multiview
from tests.processing.data.formats import FORMATS


SOURCES = {
    "gap_mllm": ("gap_mllm", {}),
    "vgllm": ("vgllm", {"max_views": 2, "skip_bad_samples": True}),
    "scannet": ("scannet_sens_export", {}),
    "scannet_posed": ("scannet_posed_images", {}),
    "arkitscenes": ("arkitscenes", {}),
    "embodiedscan": ("embodiedscan", {"media_dir": "{data}"}),
    "spar": ("spar", {}),
    "vlm3r": ("vlm3r", {"max_views": 2}),
    "vsi590k": ("vsi590k", {"max_views": 2}),
    "vsibench": ("vsibench", {"max_views": 2}),
    "scanrefer": ("scanrefer", {"posed_root": "{posed}"}),
    "video3dllm": ("video3dllm_processed", {"posed_root": "{posed}"}),
}


def link_folders(original, copy, depth):
    """A copy in which every folder below `depth` levels is a link to the original, nested links included."""
    copy.mkdir(parents=True)
    for path in original.iterdir():
        if path.is_dir() and depth > 0:
            link_folders(path, copy / path.name, depth - 1)
        else:
            (copy / path.name).symlink_to(path)


def link_files(original, copy):
    """A copy of real folders in which every file is a link to a link."""
    for path in original.rglob("*"):
        if path.is_file():
            target = copy / path.relative_to(original)
            target.parent.mkdir(parents=True, exist_ok=True)
            hop = target.with_name(f"{target.name}.hop")
            hop.symlink_to(path)
            target.symlink_to(hop.name)


def rows_of(source, folder, posed, cache, options):
    """Ids, answers and pixels of all rows."""
    places = {"data": str(folder), "posed": str(posed)}
    options = {key: value.format(**places) if isinstance(value, str) else value for key, value in options.items()}
    splits = load_multiview(source, folder, cache_dir=cache, **options)
    return {
        split: [
            (row["id"], row["answer"], [view["image"] and view["image"].tobytes() for view in row["views"]])
            for row in rows
        ]
        for split, rows in splits.items()
    }


@pytest.mark.parametrize("source", SOURCES)
def test_links_in_the_folder_are_followed(source, tmp_path):
    place, options = SOURCES[source]
    original, posed = FORMATS / place, FORMATS / "scannet_posed_images"
    expected = rows_of(source, original, posed, tmp_path / "cache", options)
    assert any(images for rows in expected.values() for *_, images in rows)
    for depth in (0, 1, 2):
        link_folders(original, tmp_path / f"linked{depth}", depth)
        link_folders(posed, tmp_path / f"posed{depth}", depth)
        folders = tmp_path / f"linked{depth}", tmp_path / f"posed{depth}"
        assert rows_of(source, *folders, tmp_path / "cache", options) == expected
    if source != "vsi590k":
        link_files(original, tmp_path / "files")
        assert rows_of(source, tmp_path / "files", posed, tmp_path / "cache", options) == expected
    (tmp_path / "data_dir").symlink_to(tmp_path / "linked1")
    assert rows_of(source, tmp_path / "data_dir", posed, tmp_path / "cache", options) == expected


def test_a_record_cannot_climb_out_even_where_links_lead_out(tmp_path):
    shutil.copytree(FORMATS / "gap_mllm" / "data" / "media", tmp_path / "disk" / "media")
    shutil.copytree(FORMATS / "gap_mllm" / "data" / "train", tmp_path / "data" / "train")
    (tmp_path / "data" / "media").symlink_to(tmp_path / "disk" / "media")
    (tmp_path / "disk" / "secret").symlink_to(tmp_path / "disk" / "media" / "scannet")
    assert len(load_multiview("gap_mllm", tmp_path / "data", "train", cache_dir=tmp_path / "cache")) == 12
    for path in ("../secret", str(tmp_path / "disk" / "secret")):
        for file in (tmp_path / "data" / "train").glob("*.json"):
            original = FORMATS / "gap_mllm" / "data" / "train" / file.name
            file.chmod(0o644)
            file.write_text(original.read_text().replace('"scannet/', f'"{path}/'))
        with pytest.raises(RecordError, match="leads out of"):
            load_multiview(
                "gap_mllm", tmp_path / "data", "train", cache_dir=tmp_path / path.strip("./").replace("/", "_")
            )


def test_a_loop_is_named(tmp_path):
    shutil.copytree(FORMATS / "gap_mllm" / "data" / "train", tmp_path / "train")
    (tmp_path / "media").mkdir()
    os.symlink("scannet", tmp_path / "media" / "scannet")
    with pytest.raises(RecordError, match="leads back to itself") as caught:
        load_multiview("gap_mllm", tmp_path, cache_dir=tmp_path / "cache")
    assert Path(caught.value.file).is_relative_to(tmp_path / "media" / "scannet")
    (tmp_path / "media" / "scannet").unlink()
    os.symlink("..", tmp_path / "train" / "again")
    with pytest.raises(RecordError, match="leads back to a folder that holds it"):
        load_multiview("gap_mllm", tmp_path, cache_dir=tmp_path / "cache2")
