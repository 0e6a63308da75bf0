"""`gap-mllm data`: the data sources that can be read, a look into one, its conversion, and labels for any video.

The options of a source are flags, too; which there are is known only after the source is named, so that a command line
with further flags is parsed a second time (`parse_with_options`).
"""

import argparse

from .options import add_option_flags, given_options, read_words


def add_data(subparsers, name: str | None = None) -> None:
    """Declare `gap-mllm data list|inspect|convert|label`.

    Args:
        subparsers: of the `gap-mllm` parser.
        name (`str`, *optional*): source whose options become flags of inspect and convert.
    """
    parser = subparsers.add_parser("data", help="list, inspect and convert data sources, label videos")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_list(commands)
    _add_inspect(commands, name)
    _add_convert(commands, name)
    _add_label(commands, with_options=name is not None)


def _add_list(commands):
    parser = commands.add_parser("list", help="the sources that can be read, or all about one of them")
    parser.add_argument("name", nargs="?", metavar="NAME", help="a source: its layout and options")
    parser.set_defaults(run=run_list)


def _add_inspect(commands, name):
    parser = commands.add_parser(
        "inspect",
        help="counts, missing files, broken records and a contact sheet of a source",
        description="Read all records of a source and say what is there and what is broken. Further flags are options "
        "of the source; `gap-mllm data list NAME` names them.",
        allow_abbrev=False,
    )
    _add_source_flags(parser, name)
    parser.add_argument(
        "--output", metavar="DIR", help="for inspection.json and contact_sheet.png; default: outputs/inspection/NAME"
    )
    parser.add_argument(
        "--num", type=int, default=6, metavar="N", help="rows on the sheet, whose pictures are decoded"
    )
    parser.add_argument("--all", action="store_true", help="decode the pictures of all rows")
    parser.add_argument("--seed", type=int, default=0, help="which rows")
    parser.add_argument(
        "--strict",
        action="store_true",
        help="exit with 1 if a problem was found: a broken file, record or picture, a missing file, odd intrinsics, "
        "a point that its depth map contradicts, an Euler order that is not as stored, or no rows; normal markers are "
        "none",
    )
    parser.set_defaults(run=run_inspect)


def _add_convert(commands, name):
    parser = commands.add_parser(
        "convert",
        help="write a source as parquet with pictures inside and a dataset card, ready for the Hub",
        description="Write a source as data/<split>-*.parquet with pictures inside and README.md. Further flags are "
        "options of the source; `gap-mllm data list NAME` names them.",
        allow_abbrev=False,
    )
    _add_source_flags(parser, name)
    parser.add_argument("output", metavar="OUT", help="folder to write; must not exist or be empty")
    parser.add_argument("--max-shard-size", default="500MB", metavar="SIZE", help="of a parquet file")
    parser.add_argument("--no-check", action="store_true", help="do not decode the pictures first")
    parser.add_argument("--license", metavar="ID", help="for the card, as the Hub names licences")
    parser.add_argument("--skip-bad-samples", action="store_true", help="leave bad records out and list them")
    parser.add_argument("--report", metavar="FILE", help="list of what was left out; default: OUT.report.jsonl")
    parser.add_argument("--cache-dir", metavar="DIR", help="where rows are prepared; default: a temporary folder")
    parser.add_argument("--num-proc", type=int, metavar="P", help="processes; each reads whole files")
    parser.set_defaults(run=run_convert)


def _add_source_flags(parser, name):
    parser.add_argument("name", metavar="NAME", help="the source; `gap-mllm data list` names them")
    parser.add_argument("--data-dir", metavar="DIR", help="folder of the source, as it is downloaded")
    parser.add_argument("--split", help="only this one")
    parser.add_argument("--tasks", type=read_words, metavar="A,B", help="only rows of these tasks")
    parser.add_argument("--max-views", type=int, metavar="N", help="of a row; of videos, frames to store")
    parser.add_argument(
        "--refresh", action="store_true", help="read the files again in any case (inspect always reads them)"
    )
    parser.set_defaults(has_options=True)
    if name is not None:
        from gap_mllm.processing.data.loading import source_builder_class, source_options

        add_option_flags(parser, source_builder_class(name).BUILDER_CONFIG_CLASS, source_options(name))


def _add_label(commands, with_options):
    parser = commands.add_parser(
        "label",
        help="make training data from a video that has no annotation",
        description="Let a geometry model reconstruct a video, and write questions about what it is sure of as "
        "data/<split>-*.parquet, with a report and a picture. Further flags are the fields of LabelOptions.",
        allow_abbrev=False,
    )
    parser.add_argument("source", metavar="VIDEO_OR_FOLDER", help="a video file, or a folder of frames")
    parser.add_argument(
        "--teacher",
        required=True,
        metavar="DIR",
        help="folder of a VGGT with its heads, as `gap-mllm train-geometry-encoder` writes it, or its name on the Hub",
    )
    parser.add_argument("--output", metavar="DIR", help="default: outputs/labels/<name of the video>")
    parser.add_argument(
        "--scale",
        metavar="FACTOR_OR_FOLDER",
        help="metres of one unit of the teacher, or 16-bit depth maps to compare; without it and --distance, lengths "
        "stay in the teacher's units, which is said, and `is_metric` is false in report and rows",
    )
    parser.add_argument(
        "--distance",
        nargs=3,
        metavar=("VIEW", "VIEW", "METRES"),
        help="known distance between the cameras of two views",
    )
    parser.add_argument("--scene-id", metavar="NAME", help="default: name of the video")
    parser.add_argument("--device", help="such as cpu or cuda:0")
    parser.add_argument("--overwrite", action="store_true", help="remove what an earlier call wrote for the split")
    parser.add_argument(
        "--skip-bad-samples", action="store_true", help="leave pictures out that cannot be read, and list them"
    )
    parser.add_argument("--report", metavar="FILE", help="list of what was left out; default: OUTPUT.report.jsonl")
    parser.set_defaults(run=run_label, has_options=True)
    if with_options:
        from gap_mllm.processing.data.video_labels import LabelOptions

        add_option_flags(parser, LabelOptions, [name for name in LabelOptions.__dataclass_fields__ if name != "rules"])


# Options known only at run time


def parse_with_options(words: list[str], args: argparse.Namespace) -> argparse.Namespace:
    """Parse a command line again, now with the options of the source, or of labelling, as flags.

    Args:
        words (`list[str]`): the command line.
        args (`argparse.Namespace`): of the first parse; says which source.
    Returns:
        `argparse.Namespace`.
    Raises:
        ValueError: if there is no such source.
        SystemExit: on a flag that it does not have, as argparse does.
    """
    parser = argparse.ArgumentParser(prog="gap-mllm")
    add_data(parser.add_subparsers(), getattr(args, "name", "synthetic_rooms"))
    return parser.parse_args(words)


def _options(args):
    shared = {name: getattr(args, name) for name in ("tasks", "max_views") if getattr(args, name, None) is not None}
    return {**shared, **given_options(args)}


# What the commands do


def run_list(args: argparse.Namespace) -> None:
    """Print all sources, or what there is to know of one. Raises ValueError if there is none of that name."""
    from gap_mllm.processing.data import SOURCES
    from gap_mllm.processing.data.loading import source_builder_class, source_options

    for name in SOURCES if args.name is None else [args.name]:
        builder = source_builder_class(name)
        print(name)
        print(f"  tasks: {', '.join(_tasks(builder))}")
        print(f"  layout: {getattr(builder, 'LAYOUT', '') or 'none; nothing is read'}")
        print(f"  licence: {_licence(name, builder)}")
        if args.name is not None:
            print("  options: " + (", ".join(f"--{key.replace('_', '-')}" for key in source_options(name)) or "none"))
            print(_indented(builder.__doc__), _indented(builder.BUILDER_CONFIG_CLASS.__doc__), sep="\n\n")


def _tasks(builder):
    return getattr(builder, "TASKS", None) or builder.BUILDER_CONFIG_CLASS().tasks


def _licence(name, builder):
    return getattr(builder, "LICENSE", "") or ("apache-2.0" if name == "synthetic_rooms" else "not known")


def _indented(text):
    from inspect import cleandoc
    from textwrap import indent

    return indent(cleandoc(text or ""), "  ")


def run_inspect(args: argparse.Namespace) -> None:
    """Inspect a source and print the summary; see `inspect_source`. SystemExit(1) for problems with `--strict`."""
    from gap_mllm.processing.data.inspection import inspect_source

    output = f"outputs/inspection/{args.name}" if args.output is None else args.output
    found = inspect_source(
        args.name,
        args.data_dir,
        args.split,
        output_dir=output,
        num_samples=args.num,
        decode_all=args.all,
        seed=args.seed,
        **_options(args),
    )
    print(found.summary())
    print(f"wrote {output}")
    if args.strict and found.problems:
        raise SystemExit(1)


def run_convert(args: argparse.Namespace) -> None:
    """Convert a source; see `convert_to_parquet`."""
    from gap_mllm.processing.data.parquet_export import convert_to_parquet

    written = convert_to_parquet(
        args.name,
        args.data_dir,
        args.output,
        split=args.split,
        max_shard_size=args.max_shard_size,
        check_pictures=not args.no_check,
        license=args.license,
        skip_bad_samples=args.skip_bad_samples,
        report_file=args.report,
        cache_dir=args.cache_dir,
        num_proc=args.num_proc,
        refresh=args.refresh,
        **_options(args),
    )
    for split, facts in written.items():
        notes = f", {facts.num_left_out} left out" if facts.num_left_out else ""
        notes += f", {facts.num_without_views} with a video and no pictures" if facts.num_without_views else ""
        print(f"{split}: {facts.num_rows} rows{notes}, {len(facts.files)} files of {facts.num_bytes / 1e6:.1f} MB")
    print(f"wrote {args.output}")


def run_label(args: argparse.Namespace) -> None:
    """Label a video; see `label_video`. ValueError if both a scale and a distance are given, or no numbers for it."""
    from pathlib import Path

    from gap_mllm.processing.data.video_labels import KnownBaseline, label_video
    from gap_mllm.processing.data.video_labels.teacher_consistency import consistency_text

    if args.scale is not None and args.distance is not None:
        raise ValueError("give --scale or --distance, not both")
    scale = _number_or_text(args.scale)
    if args.distance is not None:
        scale = KnownBaseline(*_distance(args.distance))
    output = f"outputs/labels/{Path(args.source).stem}" if args.output is None else args.output
    report = label_video(
        args.source,
        output,
        args.teacher,
        scale=scale,
        scene_id=args.scene_id,
        device=args.device,
        overwrite=args.overwrite,
        skip_bad_samples=args.skip_bad_samples,
        report_file=args.report,
        **_options(args),
    )
    if report["num_pictures_left_out"]:
        listed = f"{output}.report.jsonl" if args.report is None else args.report
        print(f"pictures left out: {report['num_pictures_left_out']}, listed in {listed}")
    units = "" if report["is_metric"] else " in the teacher's own units, not metres"
    print(consistency_text(report["consistency"]))
    print(f"wrote {output}: {report['num_rows']} rows of {report['num_views']} views{units}; look at labels.png")


def _distance(words):
    try:
        return int(words[0]), int(words[1]), float(words[2])
    except ValueError:
        raise ValueError(
            f"--distance is {' '.join(words)}; expected two numbers of views and the metres between their cameras, as "
            "0 5 0.42"
        ) from None


def _number_or_text(text):
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


__all__ = ["add_data", "parse_with_options", "run_convert", "run_inspect", "run_label", "run_list"]
