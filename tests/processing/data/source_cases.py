"""A folder for every source of the registry, and an edit of one file of it that changes its rows."""

import csv
import json
import pickle
import shutil
from dataclasses import dataclass, field

import pyarrow.ipc
import pyarrow.parquet

from gap_mllm.processing.data import load_multiview
from gap_mllm.processing.data.parquet_export import convert_to_parquet
from tests.processing.data.formats import FORMATS


EMBODIED = "embodiedscan/embodiedscan_infos_train.pkl"
SCANNET = {"posed_root": "scannet_posed_images"}
TEXTS = {**SCANNET, "infos_file": EMBODIED}


@dataclass
class SourceCase:
    """What to load of a source, and which file an edit changes; paths of options start at the folder of fixtures."""

    folder: str
    split: str
    edited: str
    paths: dict = field(default_factory=dict)
    options: dict = field(default_factory=dict)


CASES = {
    "parquet": SourceCase("parquet", "train", "data/train-00000-of-00001.parquet"),
    "scanrefer": SourceCase("scanrefer", "train", "ScanRefer_filtered_train.json", TEXTS),
    "scan2cap": SourceCase("scanrefer", "val", "ScanRefer_filtered_val.json", SCANNET),
    "multi3drefer": SourceCase("multi3drefer", "train", "multi3drefer_train.json", SCANNET),
    "nr3d": SourceCase("nr3d", "train", "nr3d.csv", SCANNET),
    "scanqa": SourceCase("scanqa", "train", "ScanQA_v1.0_train.json", SCANNET),
    "sqa3d": SourceCase("sqa3d", "val", "sqa_task/balanced/v1_balanced_sqa_annotations_val_scannetv2.json", SCANNET),
    "video3dllm": SourceCase(
        "video3dllm_processed", "train", "processed/scanrefer_vg_train_llava_style.json", SCANNET
    ),
    "vlm3r": SourceCase(
        "vlm3r", "train", "processed_data/ScanNet/metadata/train/scannet_metadata_train.json", options={"max_views": 2}
    ),
    "gap_mllm": SourceCase("gap_mllm", "val", "data/evaluation/threedod/scannet_det_val_4frames.json"),
    "vgllm": SourceCase("vgllm", "train", "data/train/spar_7m.jsonl", {"media_dir": "gap_mllm/data/media"}),
    "spar": SourceCase("spar", "train", "spar/scannet/qa_jsonl/train/depth_prediction_oc/fill/fill_1.jsonl"),
    "vsibench": SourceCase("vsibench", "test", "test.jsonl"),
    "vstibench": SourceCase("vstibench", "test", "test.json"),
    "ca_vqa": SourceCase("ca_vqa", "val", "binary/data-00000-of-00001.arrow"),
    "vsi590k": SourceCase("vsi590k", "train", "vsi_590k.jsonl", options={"max_views": 2}),
    "chat": SourceCase("chat", "train", "mine_train.json", {"media_dir": "vsi590k"}, {"max_views": 2}),
    "cv_bench": SourceCase("cv_bench", "test", "test_3d.parquet"),
    "blink": SourceCase("blink", "val", "Relative_Depth/val-00000-of-00001.parquet"),
    "mmsi": SourceCase("mmsi", "test", "MMSI_Bench.parquet"),
    "scannet": SourceCase("scannet_sens_export", "train", "scans/scene9000_00/pose/0.txt"),
    "scannet_posed": SourceCase("scannet_posed_images", "train", "scannet/posed_images/scene9000_00/00000.txt"),
    "embodiedscan": SourceCase("embodiedscan", "train", "embodiedscan_infos_train.pkl"),
    "arkitscenes": SourceCase("arkitscenes", "train", "raw/Training/99000001/lowres_wide.traj"),
}


def copy_case(name, folder):
    """Copy the fixtures of a source into `folder`; returns (data_dir, options of `load_multiview`)."""
    case = CASES[name]
    for needed in {case.folder, *(path.split("/")[0] for path in case.paths.values())}:
        if needed == "parquet":
            convert_to_parquet("scannet", _two_scans(folder), folder / "parquet", cache_dir=folder / "made")
        else:
            shutil.copytree(FORMATS / needed, folder / needed)
    return folder / case.folder, {**case.options, **{key: str(folder / path) for key, path in case.paths.items()}}


def _two_scans(folder):
    """Scans to make parquet of."""
    scan = FORMATS / "scannet_sens_export" / "scans" / "scene9000_00"
    for name in ("scene9000_00", "scene9001_00"):
        shutil.copytree(scan, folder / "made_of" / "scans" / name)
    return folder / "made_of"


def load_case(name, data_dir, options, cache, **others):
    """The split of a case, as plain rows (pictures as they are stored)."""
    rows = load_multiview(name, data_dir, CASES[name].split, cache_dir=cache, **options, **others)
    return rows.with_format("arrow")[:].to_pylist()


def edit(file):
    """Change a file so that the rows that are made of it change."""
    if file.suffix == ".json":
        content = json.loads(file.read_text())
        _shorten(content)
        file.write_text(json.dumps(content))
    elif file.suffix == ".jsonl":
        file.write_text("".join(line + "\n" for line in file.read_text().splitlines()[:-1]))
    elif file.suffix == ".csv":
        with open(file, newline="") as stream:
            rows = list(csv.reader(stream))
        with open(file, "w", newline="") as stream:
            csv.writer(stream).writerows([rows[0], *rows[2:]])
    elif file.suffix == ".parquet":
        table = pyarrow.parquet.read_table(file)
        pyarrow.parquet.write_table(table.slice(0, len(table) - 1), file)
    elif file.suffix == ".arrow":
        table = pyarrow.ipc.open_stream(file.read_bytes()).read_all()
        with pyarrow.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table.slice(1))
    elif file.suffix == ".pkl":
        content = pickle.loads(file.read_bytes())
        content["data_list"] = content["data_list"][1:]
        file.write_bytes(pickle.dumps(content))
    else:  # a pose: the camera moves by a metre, in as many characters
        lines = [line.split() for line in file.read_text().splitlines() if line.strip()]
        for line in lines[:3] if len(lines[0]) == 4 else lines:
            line[-1] = f"{float(line[-1]) + 1:.6f}"
        file.write_text("\n".join(" ".join(line) for line in lines) + "\n")


def _shorten(content):
    if isinstance(content, list):
        content.pop()
    elif isinstance(content.get("annotations"), list):
        content["annotations"][0]["answers"][0]["answer"] = "another"
    else:  # scenes by their names
        next(iter(content.values()))["room_size"] = 1.0
