"""What `gap-mllm data` does: list, inspect and convert sources, and label videos; arguments are in `gap_mllm_cli`."""

import argparse
from inspect import cleandoc
from pathlib import Path
from textwrap import indent

from gap_mllm_cli.options import given_options

from .data import SOURCES
from .data.inspection import inspect_source
from .data.loading import source_builder_class, source_options
from .data.parquet_export import convert_to_parquet


def run_list(args: argparse.Namespace) -> None:
    """Print all sources, or what there is to know of one. Raises ValueError if there is none of that name."""
    for name in SOURCES if args.name is None else [args.name]:
        builder = source_builder_class(name)
        print(name)
        print(f"  tasks: {', '.join(getattr(builder, 'TASKS', None) or builder.BUILDER_CONFIG_CLASS().tasks)}")
        print(f"  layout: {getattr(builder, 'LAYOUT', '') or 'none; nothing is read'}")
        known = "apache-2.0" if name == "synthetic_rooms" else "not known"
        print(f"  licence: {getattr(builder, 'LICENSE', '') or known}")
        if args.name is not None:
            print("  options: " + (", ".join(f"--{key.replace('_', '-')}" for key in source_options(name)) or "none"))
            print(_indented(builder.__doc__), _indented(builder.BUILDER_CONFIG_CLASS.__doc__), sep="\n\n")


def _indented(text):
    return indent(cleandoc(text or ""), "  ")


def run_inspect(args: argparse.Namespace) -> None:
    """Inspect a source and print the summary; see `inspect_source`. SystemExit(1) for problems with `--strict`."""
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
    from .data.video_labels import KnownBaseline, label_video
    from .data.video_labels.teacher_consistency import consistency_text

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


def _options(args):
    shared = {name: getattr(args, name) for name in ("tasks", "max_views") if getattr(args, name, None) is not None}
    return {**shared, **given_options(args)}


__all__ = ["run_convert", "run_inspect", "run_label", "run_list"]
