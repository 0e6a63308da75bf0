"""The text sets of the fixtures on ScanNet frames, and how their tests load and change them."""

import json
import shutil

from gap_mllm.processing.data import load_multiview
from tests.processing.data.formats import FORMATS


POSED = FORMATS / "scannet_posed_images"
FRAMES = {"posed_root": str(POSED)}
INFOS = tuple(str(FORMATS / "embodiedscan" / f"embodiedscan_infos_{split}.pkl") for split in ("train", "val"))
FOLDERS = {name: name for name in ("scanrefer", "multi3drefer", "nr3d", "scanqa", "sqa3d")} | {"scan2cap": "scanrefer"}


def load(name, cache, split=None, folder=None, **options):
    """A set of the fixtures, or another folder with its layout."""
    folder = FORMATS / FOLDERS[name] if folder is None else folder
    return load_multiview(name, folder, split, cache_dir=cache / "cache", **options)


def change_set(name, file, change, folder):
    """Copy a set into a folder and change the content of one of its JSON files; returns the folder."""
    shutil.copytree(FORMATS / FOLDERS[name], folder)
    content = json.loads((folder / file).read_text())
    change(content)
    (folder / file).write_text(json.dumps(content))
    return folder
