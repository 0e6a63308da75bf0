"""The README of a converted data set: metadata that the Hub reads, and what a stranger must know to use the rows."""

import re
from pathlib import Path

import datasets
from datasets.info import DatasetInfo, DatasetInfosDict
from huggingface_hub import DatasetCard, DatasetCardData

from .schema import scene_features


# Identifiers that the Hub knows, of those that sources state.
KNOWN_LICENSES = (
    "apache-2.0",
    "mit",
    "bsd-3-clause",
    "cc0-1.0",
    "cc-by-4.0",
    "cc-by-sa-4.0",
    "cc-by-nc-4.0",
    "cc-by-nc-sa-3.0",
    "cc-by-nc-sa-4.0",
    "other",
    "unknown",
)
HUB_TASKS = {
    "reconstruction": "image-text-to-text",
    "sparse_points": "image-text-to-text",
    "reasoning_segmentation": "image-segmentation",
    "detection3d": "object-detection",
    "grounding": "object-detection",
    "grounding_frame": "image-text-to-text",
    "grounding_box": "object-detection",
    "dense_caption": "image-text-to-text",
    "spatial_qa": "visual-question-answering",
    "scene_qa": "visual-question-answering",
    "video_qa": "video-text-to-text",
    "scene": "image-to-3d",
}
_SIZES = ((1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M"), (1e7, "1M<n<10M"))
_BODY = """# {title}

{num_rows} rows about views of 3D scenes, converted from the source `{name}` ({description}) with
`gap-mllm data convert`. Pictures and depth maps are inside the parquet files, byte for byte as the source has them.

| split | rows | tasks | files | size |
|---|---|---|---|---|
{table}

## Use

```python
from datasets import load_dataset

rows = load_dataset("{folder}", split="{split}")  # streaming=True works, too
row = rows[0]
row["views"][0]["image"], row["question"], row["answer"]
```

With the package `gap-mllm`, rows are checked and can be trained on (`data: {{name: parquet, data_dir: {folder}}}` in a
recipe); they become typed, and boxes and points come in the camera that is asked for:

```python
from gap_mllm.processing.data import SceneSample, load_multiview

row = load_multiview("parquet", "{folder}", split="{split}")[0]
sample = SceneSample.from_row(row)
boxes = [sample.box_in_view(box, 0) for box in sample.boxes]
```

## Fields

A row is one question about the views of one scene. What a source does not know is null or an empty list.

| field | what it holds |
|---|---|
| `id`, `source`, `split`, `task`, `scene_id`, `question_type` | names; rows of one scene share `scene_id` |
| `views` | in the order of the prompt; view 0 is the reference |
| `views[].image`, `image_path`, `frame_id`, `timestamp` | the picture, its path in the source, its number, seconds |
| `views[].depth`, `depth_scale` | 16-bit z-depth; metres = value / `depth_scale`; 0 marks no measurement |
| `views[].intrinsics`, `depth_intrinsics` | 3x3, of the picture and of the depth map, which may have other sizes |
| `views[].camera_to_world` | 4x4 pose in the world that `pose_frame` names |
| `world_to_aligned` | 4x4, from the scan world to the one with walls along the axes and +z up |
| `system`, `question`, `answer`, `references` | texts, verbatim; `<image>` tags, if any, fix the places of the views |
| `boxes[]` | `center`, full `size`, `euler` angles about z, x, y in `euler_order`; `frame` says where they are |
| `points[]` | `xyz` in `frame`, and the `pixel` of `view` that shows it |
| `marks[]` | to be drawn on `view` before a model sees it |
| `target_frame`, `choices`, `choice_index`, `number` | the answer, where it is of that kind |
| `video` | path on the machine of the conversion, where a video is not stored as views |
| `metadata` | everything else that the source says, as JSON |

Cameras are OpenCV's (+x right, +y down, +z forward). Units are metres, radians, and pixels with integer centres.
`frame` is "camera" (of view `frame_index`, for points of view 0), "scan" or "aligned". `euler_order` is "zxy"
(extrinsic) or "ZXY" (intrinsic), as scipy reads them.

## Licence

Of the source, as its reader states it: {license}. Pictures and annotations often have different terms, and many scans
must not be passed on: read those of the source before this folder is published or given to others.
"""


def write_dataset_card(
    output_dir: str | Path, name: str, builder_class: type, written: dict, license: str | None = None
) -> Path:
    """Write README.md for a folder of `write_parquet`.

    Args:
        output_dir (`str` or `Path`): the folder.
        name (`str`): key of the source.
        builder_class: its builder; the first line of its docstring describes it.
        written (`dict[str, ExportedSplit]`): what `write_parquet` returned.
        license (`str`, *optional*): identifier that the Hub knows. By default the source's for text alone; with
            pictures, which have their own terms, "other".
    Returns:
        `Path` of the card.
    """
    stated = getattr(builder_class, "LICENSE", "") or ("apache-2.0" if name == "synthetic_rooms" else "")
    title, num_rows = f"{name} in the rows of gap-mllm", sum(split.num_rows for split in written.values())
    data_files = [{"split": split, "path": f"data/{split}-*"} for split in written]
    data = DatasetCardData(
        pretty_name=title,
        task_categories=sorted({HUB_TASKS[task] for split in written.values() for task in split.tasks}),
        size_categories=[next((category for most, category in _SIZES if num_rows < most), "n>10M")],
        tags=["3d", "multi-view", "spatial-reasoning", "gap-mllm"],
        configs=[{"config_name": "default", "data_files": data_files}],
        **_license(name, stated, license, written),
    )
    _add_info(data, written)
    body = _BODY.format(
        title=title,
        num_rows=num_rows,
        name=name,
        description=(builder_class.__doc__ or "").strip().splitlines()[0].rstrip("."),
        table="\n".join(_table_row(split, facts) for split, facts in written.items()),
        folder="path/to/this/folder",
        split=next(iter(written)),
        license=stated or "not known",
    )
    path = Path(output_dir) / "README.md"
    DatasetCard(f"---\n{data.to_yaml()}\n---\n\n{body}").save(path)
    return path


def _license(name, stated, asked, written):
    if asked is not None:
        return {"license": asked}
    has_pictures = any(split.num_rows > split.num_without_views for split in written.values())
    if stated in KNOWN_LICENSES and (name == "synthetic_rooms" or not has_pictures):
        return {"license": stated}
    slug = re.sub(r"[^a-z0-9.]+", "-", stated.lower()).strip("-.")
    return {"license": "other", "license_name": slug or "unknown"}


def _add_info(data, written):
    """Features and sizes, in the form that datasets writes when it uploads."""
    splits = [
        {"name": split, "num_bytes": facts.num_bytes, "num_examples": facts.num_rows}
        for split, facts in written.items()
    ]
    size = sum(facts.num_bytes for facts in written.values())
    info = DatasetInfo(
        features=scene_features(),
        splits=datasets.SplitDict.from_split_dict(splits),
        download_size=size,
        dataset_size=size,
    )
    DatasetInfosDict({"default": info}).to_dataset_card_data(data)


def _table_row(split, facts):
    tasks = ", ".join(f"{count} {task}" for task, count in sorted(facts.tasks.items()))
    left_out = f" ({facts.num_left_out} left out)" if facts.num_left_out else ""
    size = f"{facts.num_bytes / 1e6:.1f} MB"
    return f"| {split} | {facts.num_rows}{left_out} | {tasks} | {len(facts.files)} | {size} |"
