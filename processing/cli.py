"""What `gap-mllm data`, `ask` and `show` do: sources are listed and converted, photos asked, scenes shown in 3D.

Arguments are in `gap_mllm_cli`.
"""

import argparse
from dataclasses import replace
from inspect import cleandoc
from itertools import islice
from pathlib import Path
from textwrap import indent

import torch

from gap_mllm_cli.options import given_options, read_option

from .argument_checks import check_counts, check_device, check_dtype, check_output_folder
from .data import SOURCES
from .data.inspection import inspect_source
from .data.loading import source_builder_class, source_options
from .data.parquet_export import convert_to_parquet
from .input_checks_gap_mllm import REPLACEMENT, whole_text


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


def run_ask(args: argparse.Namespace) -> None:
    """Ask about photos, a folder of them or a video, and write the answers; see `ask_session` and `write_answers`.

    Raises ValueError before anything is loaded if there are no views, or a mark, text or number is none.
    """
    from gap_mllm import GapMllmForConditionalGeneration, GapMllmVggtForReconstruction, SceneSession
    from gap_mllm.model_loading import load_pretrained, load_processor, model_folder
    from gap_mllm.pretrained_gap_mllm import set_attention

    from .answer_folder import write_answers
    from .photo_questions import ask_session, read_cameras, read_intrinsics_size, read_mark, read_places
    from .scene_3d.scene_files import check_forms
    from .scene_views_gap_mllm import open_views
    from .visual_prompt_gap_mllm import apply_visual_prompt

    device, dtype = check_device(args.device), check_dtype(args.dtype)
    for name in ("max_views", "max_new_tokens", "max_points"):
        check_counts(**{f"--{name.replace('_', '-')}": getattr(args, name)})
    check_output_folder("--output", args.output)
    check_forms(args.forms or ())
    if not all(text.strip() for text in (*args.question, *args.find)) or args.labels == []:
        raise ValueError("a question, description or label is empty; write what you want to know.")
    has_lost = _mend_words(args)
    cameras = [read_cameras(f"--{name}", getattr(args, name)) for name in ("intrinsics", "poses")]
    intrinsics_size = read_intrinsics_size(args.intrinsics)
    views = open_views(read_places(args.photos), *cameras, args.max_views, intrinsics_size)
    marks = [read_mark(text) for text in args.at]
    apply_visual_prompt(views.pictures, views.picture_marks(marks))  # refuses those outside of their view
    folder, source = model_folder(args.model), args.points_from and model_folder(args.points_from)
    print(f"{len(views)} view{'s' * (len(views) > 1)}; loading {args.model}", flush=True)
    model = load_pretrained(GapMllmForConditionalGeneration, folder, dtype=dtype).to(device).eval()
    set_attention(model)
    if source is not None:
        source = load_pretrained(GapMllmVggtForReconstruction, source).to(device).eval()
    options = {} if args.max_new_tokens is None else {"max_new_tokens": args.max_new_tokens}
    asked, answers = (args.question, marks, args.find, args.detect, args.labels, args.constrained), []
    with SceneSession(model, load_processor(folder), views, points_from=source) as session:
        for told in ask_session(session, *asked, **options):
            if isinstance(told, str):
                print(told, end="", flush=True)
            else:
                answers.append(told)
        title = Path(args.photos[0]).name
        written, notes = write_answers(session, answers, args.output, args.forms, args.max_points, title)
    if len(views) == 1:
        notes.append("with one view there is no parallax: all distances come from that picture alone")
    if has_lost:
        notes.append("what was asked held halves of characters, as texts do that were cut; they are U+FFFD now")
    if any(answer.truncated for answer in answers):
        notes.append("an answer was cut off; --max-new-tokens N allows longer ones")
    print("".join(f"\nnote: {note}" for note in notes))
    for path in written:
        print(f"wrote {path}")


def _mend_words(args) -> bool:
    """Make texts of what is asked whole, as they are no UTF-8 under LC_ALL=C; whether anything of them is lost."""
    given = "".join((*args.question, *args.find, *(args.labels or ())))
    for name in ("question", "find", "labels"):
        if getattr(args, name) is not None:
            setattr(args, name, [whole_text(text) for text in getattr(args, name)])
    asked = "".join((*args.question, *args.find, *(args.labels or ())))
    return asked.count(REPLACEMENT) > given.count(REPLACEMENT)


def run_show(args: argparse.Namespace) -> None:
    """Write a scene in 3D; see `write_scene`. ValueError if there is no such row, or nothing to show of it."""
    from .scene_3d import load_scene, serve_viser, write_scene
    from .scene_3d.scene_files import SCENE_FILE

    if (Path(args.name) / SCENE_FILE).is_file():
        scene = load_scene(Path(args.name) / SCENE_FILE)
    elif Path(args.name).is_dir():
        raise ValueError(f"{args.name} holds no {SCENE_FILE}; expected a folder that `gap-mllm ask` wrote.")
    else:
        scene = _scene_of_source(args)
    written = write_scene(scene, args.output, args.forms or ("glb", "ply", "colmap", "html"), args.max_points)
    boxes = len(scene.boxes)
    print(f"{scene.title}: {len(scene.views)} views, {scene.num_points} points, {boxes} boxes")
    for path in written.values():
        print(f"wrote {path}")
    if args.viser is not None:
        server = serve_viser(scene.sample_points(args.max_points), args.viser)
        print(f"open http://localhost:{args.viser}; Ctrl-C ends it")
        try:
            server.sleep_forever()
        except KeyboardInterrupt:
            server.stop()


def _scene_of_source(args):
    from .data import SceneSample
    from .data.loading import load_multiview
    from .data.sources import RENDERED
    from .scene_3d import scene_from_points, scene_from_sample

    if args.index < 0:
        raise ValueError(f"--index is {args.index}; expected 0 or more.")
    name = "rendered_rooms" if args.name == "rooms" else args.name
    options = dict(read_option(text) for text in args.option)
    if name in RENDERED:
        row = load_multiview(name, split=args.split, **{"num_rooms": args.index + 1, **options})[args.index]
    else:
        rows = load_multiview(name, args.data_dir, args.split, streaming=True, **options)
        row = next(islice(rows, args.index, None), None)
        if row is None:
            raise ValueError(f"--index is {args.index}, but split {args.split!r} of {name} has fewer rows.")
    sample = SceneSample.open([row], 0)
    if not sample.views:
        raise ValueError(f"row {args.index} of {name} has no views; of a video, give --option max_views=8.")
    scene = scene_from_sample(sample)
    if args.points_from is None:
        return scene
    from gap_mllm import GapMllmVggtForReconstruction
    from gap_mllm.model_loading import load_pretrained, model_folder

    from .scene_results_gap_mllm import SceneCameras, reconstruct
    from .scene_views_gap_mllm import open_views

    encoder = load_pretrained(GapMllmVggtForReconstruction, model_folder(args.points_from)).eval()
    views = open_views([view.picture for view in scene.views])
    with torch.no_grad():
        maps, intrinsics, poses = reconstruct(encoder, views)
    cameras = SceneCameras(tuple(intrinsics), tuple(poses), (maps.source,) * 2, (None,) * len(views))
    told = scene_from_points(views, maps, cameras, f"{scene.title}, points by {maps.source}")
    return replace(told, boxes=scene.boxes, marks=scene.marks, up=scene.up)


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
