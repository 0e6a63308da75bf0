"""What a `gap-mllm` command line may hold: every command with its arguments, and the function that runs it.

`run` names that function, in the cli.py of the folder that the command is about; it is imported when the command runs.
The options of a source are flags, too; which there are is known only after the source is named, so that a command line
with further flags is parsed a second time (`parse_with_options`).

Differs: arguments are declared here and not in those files, since importing any of them imports gap_mllm, and with it
torch; `--help` and errors in a command line answer at once.
"""

import argparse

from .options import add_option_flags, read_words


def add_convert(subparsers: argparse._SubParsersAction) -> None:
    """Declare `gap-mllm convert`; see `convert_checkpoint` and `convert_base_models`."""
    parser = subparsers.add_parser(
        "convert",
        help="convert released weights to a GAP-MLLM folder",
        usage="gap-mllm convert [--geometry-config FILE] SRC OUT\n"
        "       gap-mllm convert --qwen DIR --vggt DIR [--fusion NAME] OUT",
        description="Convert a checkpoint of the reference release (SRC OUT), or join Qwen3-VL and VGGT "
        "(--qwen DIR --vggt DIR OUT), to a folder that from_pretrained loads.",
    )
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="SRC, the checkpoint; OUT, the folder to write")
    parser.add_argument(
        "--geometry-config", metavar="FILE", help="JSON with VGGT's sizes; default: read off the weights"
    )
    parser.add_argument("--qwen", metavar="DIR", help="folder of Qwen3-VL")
    parser.add_argument("--vggt", metavar="DIR", help="folder or file of VGGT's weights")
    parser.add_argument("--fusion", metavar="NAME", help="how geometry joins, as spatial_mllm; default: gated")
    parser.set_defaults(run="gap_mllm.conversion.cli:run_convert", takes_more="folders")


def add_train(subparsers: argparse._SubParsersAction) -> None:
    """Declare `gap-mllm train`; see `train_geometry_aligned`."""
    about = "geometry-aligned pre-training by a recipe, on your data or on rendered rooms"
    _add_recipe_command(subparsers, "train", about, "gap_mllm.training.cli:run_train", has_dry_run=True)


def add_train_geometry_encoder(subparsers: argparse._SubParsersAction) -> None:
    """Declare `gap-mllm train-geometry-encoder`; see `train_geometry_encoder`."""
    about, run = "train a VGGT by a recipe, on your data or on rendered rooms", "run_train_geometry_encoder"
    _add_recipe_command(subparsers, "train-geometry-encoder", about, f"gap_mllm.training.cli:{run}")


def add_train_grpo(subparsers: argparse._SubParsersAction) -> None:
    """Declare `gap-mllm train-grpo`; see `train_grpo`."""
    about = "train a model by the rewards of its answers (GRPO), on your data or on rendered rooms"
    _add_recipe_command(subparsers, "train-grpo", about, "gap_mllm.training.cli:run_train_grpo", has_dry_run=True)


def add_merge(subparsers: argparse._SubParsersAction) -> None:
    """Declare `gap-mllm merge`; see `merge_adapter`."""
    parser = subparsers.add_parser(
        "merge",
        help="merge LoRA adapters into their base model",
        description="Merge adapters into their base model, and write a folder that loads without PEFT.",
    )
    parser.add_argument("adapter", metavar="ADAPTER", help="folder of `gap-mllm train --lora` or of PEFT")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--base", metavar="DIR", help="base model; default: the one that the adapters name")
    parser.set_defaults(run="gap_mllm.training.cli:run_merge")


def _add_recipe_command(subparsers, name, text, run, has_dry_run=False):
    parser = subparsers.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}. Every key of a recipe is a flag, too."
    )
    if has_dry_run:
        parser.add_argument(
            "--dry_run",
            "--dry-run",
            action="store_true",
            help="train nothing; count parameters, memory, FLOPs and tokens of a step, without weights or data",
        )
    parser.add_argument("recipe", metavar="RECIPE", help="name of a recipe of the package, or a YAML file")
    parser.add_argument(
        "overrides", nargs=argparse.REMAINDER, metavar="--key value", help="values that replace the recipe's"
    )
    parser.set_defaults(run=run)


def add_evaluate(subparsers: argparse._SubParsersAction) -> None:
    """Declare `gap-mllm evaluate`; see `evaluate_model`."""
    parser = subparsers.add_parser(
        "evaluate",
        help="measure a model on a benchmark, beside baselines",
        description="Answer a benchmark's questions, score them beside baselines, and write predictions, metrics and "
        "a report into a folder. The same command again resumes.",
    )
    parser.add_argument("--model", metavar="MODEL", help="folder, or repository of the Hub")
    parser.add_argument("--predictions", metavar="FILE", help="score these answers (JSON lines: id, text) instead")
    parser.add_argument(
        "--answer-convention",
        metavar="NAME",
        help="in which boxes or points are answered, as qwen3-vl-text; default: ours",
    )
    parser.add_argument(
        "--remove-duplicates",
        type=float,
        metavar="IOU",
        help="leave out boxes that overlap an earlier one of their label so far; default: all count",
    )
    parser.add_argument(
        "--constrained", action="store_true", help="allow only tokens of a valid answer (needs the extra grammar)"
    )
    parser.add_argument("--engine", default="transformers", help="what generates: transformers (default) or vllm")
    parser.add_argument(
        "--engine-option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="of vllm.LLM, as tensor_parallel_size=2; VALUE is JSON or text",
    )
    parser.add_argument("--benchmark", default="synthetic_rooms", help="name; an unknown one lists them")
    parser.add_argument("--data-dir", metavar="DIR", help="the benchmark's data; synthetic_rooms needs none")
    parser.add_argument(
        "--data", metavar="rooms", help="rooms: ask about rendered rooms instead, which need no data-dir"
    )
    parser.add_argument("--output", default="outputs/evaluation", metavar="DIR", help="folder for the results")
    parser.add_argument("--split", help="instead of the benchmark's")
    parser.add_argument("--limit", type=int, metavar="N", help="an even, seeded subset of N questions")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0, help="of the subset and of the intervals")
    parser.add_argument("--processes", type=int, default=1, metavar="P", help="start P of them with accelerate")
    parser.add_argument(
        "--threads", type=int, help="CPU threads of a process; part of the plan, 1 on the CPU; not of vllm"
    )
    parser.add_argument("--device", help="such as cpu or cuda:0")
    parser.add_argument("--dtype", default="auto", help="of the model, such as bfloat16; default: the checkpoint's")
    parser.add_argument(
        "--attn-implementation",
        metavar="NAME",
        help='such as sdpa, or JSON by part as {"text_config": "sdpa"}; default: the best for device and dtype',
    )
    parser.add_argument("--sampling", metavar="RULE", help="of the frames of videos: uniform (default) or space_aware")
    parser.add_argument("--points-from", metavar="DIR", help="model or VGGT for space_aware; default: the model")
    parser.add_argument("--baselines", nargs="*", metavar="NAME", help="default: all that apply")
    parser.add_argument("--without-geometry", metavar="MODEL", help="a model trained without geometry, asked as well")
    parser.add_argument("--cache-dir", metavar="DIR", help="of datasets")
    parser.add_argument("--refresh", action="store_true", help="prepare the data again, whether it changed or not")
    parser.add_argument("--no-report", action="store_true", help="metrics and predictions only")
    parser.add_argument("--update-card", metavar="FILE", help="write the results into this model card's metadata")
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="of the data source; VALUE is JSON or text"
    )
    parser.set_defaults(run="gap_mllm.evaluation.cli:run_evaluate")


def _all_tokens(text: str) -> str:
    """The one value that is left of a flag, "tokens"."""
    if text == "marks":
        raise argparse.ArgumentTypeError(f"marks: they are probed by {SCRIPTS['probe --at marks']}")
    if text != "tokens":
        raise argparse.ArgumentTypeError(f"{text!r}; expected tokens")
    return text


def add_probe(subparsers: argparse._SubParsersAction) -> None:
    """Declare `gap-mllm probe`; see `probe_model`."""
    parser = subparsers.add_parser(
        "probe",
        help="tell what depth and normals can be read off a model's visual tokens, layer by layer",
        description="Fit linear probes of depth and normals on the visual tokens of some scenes, after the vision "
        "tower, the fusion and each language layer, score them on others, beside what is told blindly, and write a "
        "table and a plot into a folder.",
    )
    parser.add_argument("model", metavar="MODEL", help="folder, or repository of the Hub")
    parser.add_argument("--data", default="rendered_rooms", metavar="NAME", help="a source with depth and intrinsics")
    parser.add_argument("--data-dir", metavar="DIR", help="folder of the source; rendered rooms need none")
    parser.add_argument("--train-split", default="train", help="scenes to fit on; default: train")
    parser.add_argument("--split", help="scenes to score on; default: test of rooms, else val")
    parser.add_argument("--train-limit", type=int, default=128, metavar="N", help="scenes to fit on; default: 128")
    parser.add_argument("--limit", type=int, default=64, metavar="N", help="scenes to score on; default: 64")
    parser.add_argument("--num-views", type=int, default=4, metavar="N", help="views of a scene; default: 4")
    parser.add_argument(
        "--layers",
        type=read_words,
        metavar="A,B",
        help="language layers, 0 for the embeddings; --layers=-1 is the last; default: all",
    )
    parser.add_argument(
        "--voxel-size", type=float, default=0.1, metavar="METRES", help="side of one spot, for correspondence"
    )
    parser.add_argument("--at", type=_all_tokens, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    parser.add_argument("--untrained", action="store_true", help="probe random weights of the model's config instead")
    parser.add_argument(
        "--gates", type=int, default=0, metavar="N", help="draw the gates of the fusion over the views of N scenes"
    )
    parser.add_argument(
        "--run",
        metavar="DIR",
        dest="evaluation",
        help="folder of gap-mllm evaluate: relate how alike tokens of one spot are to what answers were worth",
    )
    parser.add_argument("--run-data-dir", metavar="DIR", help="data of the benchmark of --run")
    parser.add_argument("--output", default="outputs/probes", metavar="DIR", help="folder for the results")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0, help="of views, shuffling and intervals")
    parser.add_argument("--device", help="such as cpu or cuda:0")
    parser.add_argument("--dtype", default="auto", help="of the model, such as bfloat16; default: the checkpoint's")
    parser.add_argument("--threads", type=int, help="CPU threads; default: 1 on the CPU")
    parser.add_argument("--cache-dir", metavar="DIR", help="of datasets")
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="of the data source; VALUE is JSON or text"
    )
    parser.set_defaults(run="gap_mllm.evaluation.cli:run_probe")


def add_push(subparsers: argparse._SubParsersAction) -> None:
    """Declare `gap-mllm push`; see `push_folder`."""
    parser = subparsers.add_parser(
        "push",
        help="check a folder and put it on the Hub",
        description="List what of a folder would go up and what would stay, check its card, and load it where this "
        "package is not installed. Only --yes uploads.",
    )
    parser.add_argument("folder", metavar="FOLDER", help="of a model, of a part of one, or of adapters")
    parser.add_argument("repo", metavar="REPO", help="repository of the Hub, OWNER/NAME; made if need be")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--dry-run", action="store_true", help="upload nothing (the default)")
    choice.add_argument("--yes", action="store_true", help="upload")
    parser.add_argument("--private", action="store_true", help="make a private repository; a public one is refused")
    parser.add_argument("--revision", metavar="BRANCH", help="branch to write to, made if need be; default: main")
    parser.add_argument("--message", metavar="TEXT", help="message of the commit")
    parser.add_argument("--license", metavar="ID", help="of the weights, as the Hub names it; default: the card's")
    parser.add_argument("--license-name", metavar="NAME", help="where the licence is other")
    parser.add_argument("--license-link", metavar="URL", help="where the licence is other")
    parser.set_defaults(run="gap_mllm.pushing.cli:run_push")


def add_serve(subparsers: argparse._SubParsersAction) -> None:
    """Declare `gap-mllm serve`; see `gap_mllm.serving.serve`."""
    parser = subparsers.add_parser(
        "serve",
        help="answer OpenAI's chat API on this machine",
        description="Serve a model by OpenAI's chat API with transformers' server, until Ctrl-C. All pictures of a "
        "request are views of one scene.",
    )
    parser.add_argument("model", metavar="MODEL", help="folder, or repository of the Hub; requests name it so")
    parser.add_argument("--host", default="localhost", help="address to listen at; default: localhost")
    parser.add_argument("--port", type=int, default=8000, help="default: 8000")
    parser.add_argument("--device", default="auto", help="such as cpu or cuda:0; default: the best there is")
    parser.add_argument("--dtype", default="auto", help="such as bfloat16; default: the checkpoint's")
    parser.add_argument("--attn-implementation", metavar="NAME", help="such as sdpa; default: the best")
    levels = ("debug", "info", "warning", "error")
    parser.add_argument("--log-level", default="warning", choices=levels, help="of transformers; default: warning")
    parser.set_defaults(run="gap_mllm.serving.cli:run_serve")


def add_show(subparsers: argparse._SubParsersAction) -> None:
    """Declare `gap-mllm show`; see `write_scene`."""
    parser = subparsers.add_parser(
        "show",
        help="show a scene of a source, or what `gap-mllm ask` answered, in 3D",
        description="Write points, cameras and boxes of a scene as GLB, PLY, COLMAP text and an HTML page that opens "
        "offline.",
    )
    parser.add_argument("name", metavar="NAME", help="a source, as rooms; or a folder that `gap-mllm ask` wrote")
    parser.add_argument("--data-dir", metavar="DIR", help="folder of the source; rooms need none")
    parser.add_argument("--split", default="train", help="default: train")
    parser.add_argument("--index", type=int, default=0, metavar="N", help="row of the split, counted from 0")
    parser.add_argument("--points-from", metavar="DIR", help="VGGT that tells points and cameras instead of the data")
    _add_scene_output(parser, "outputs/scene")
    parser.add_argument("--viser", type=int, metavar="PORT", help="also serve the scene to browsers, until Ctrl-C")
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="of the source; VALUE is JSON or text"
    )
    parser.set_defaults(run="gap_mllm.processing.cli:run_show")


def add_ask(subparsers: argparse._SubParsersAction) -> None:
    """Declare `gap-mllm ask`; see `SceneSession` and `write_answers`."""
    parser = subparsers.add_parser(
        "ask",
        help="ask a model about your photos: answers, views with boxes and marks, the scene in 3D",
        description="Ask about pictures of one place, which are encoded once. Answers are printed as they come; "
        "answers.json, pictures of what was found, GLB, PLY, COLMAP text and an HTML page that opens offline are "
        "written. Questions, marks and descriptions can be given several times; without any, all objects are asked "
        "for.",
        allow_abbrev=False,
    )
    parser.add_argument("model", metavar="MODEL", help="folder, or repository of the Hub")
    parser.add_argument(
        "photos", nargs="+", metavar="PHOTO", help="pictures of one place, a folder of them, or a video"
    )
    parser.add_argument("--question", action="append", default=[], metavar="TEXT", help="ask in your words")
    parser.add_argument(
        "--at",
        action="append",
        default=[],
        metavar="VIEW,X,Y",
        help="what is at this pixel of a view, and where",
    )
    parser.add_argument("--detect", action="store_true", help="all objects, with their boxes")
    parser.add_argument("--labels", type=read_words, metavar="A,B", help="of all objects, these alone")
    parser.add_argument(
        "--find", action="append", default=[], metavar="TEXT", help="one object, as 'the red chair by the window'"
    )
    parser.add_argument(
        "--intrinsics",
        metavar="FX,FY,CX,CY[,WIDTH,HEIGHT]",
        help="of all pictures, in pixels, and the size they were measured on; or a JSON file of 3 x 3 numbers",
    )
    parser.add_argument(
        "--poses", metavar="FILE", help="JSON: 4 x 4 numbers for each picture, camera to world, metres"
    )
    parser.add_argument("--points-from", metavar="DIR", help="VGGT that tells points and cameras")
    parser.add_argument("--max-views", type=int, default=32, metavar="N", help="of a folder or video; default: 32")
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="of an answer; default: enough for its kind")
    parser.add_argument(
        "--constrained",
        action="store_true",
        help="allow only tokens of a valid answer, but for questions in your words (needs the extra grammar)",
    )
    parser.add_argument("--device", help="such as cpu or cuda:0")
    parser.add_argument("--dtype", default="auto", help="of the model, such as bfloat16; default: the checkpoint's")
    _add_scene_output(parser, "outputs/answers")
    parser.set_defaults(run="gap_mllm.processing.cli:run_ask", takes_more="photos")


def _add_scene_output(parser, folder):
    parser.add_argument("--output", default=folder, metavar="DIR", help=f"folder to write; default: {folder}")
    parser.add_argument(
        "--forms", type=read_words, metavar="A,B", help="of glb, ply, colmap, html, rrd; default: all but rrd"
    )
    parser.add_argument(
        "--max-points", type=int, default=500_000, metavar="N", help="most points; the page has at most 120,000"
    )


def add_data(subparsers: argparse._SubParsersAction, name: str | None = None) -> None:
    """Declare `gap-mllm data list|inspect|convert|label`.

    Args:
        subparsers: commands of the `gap-mllm` parser.
        name (`str`, *optional*): source whose options become flags of inspect and convert.
    """
    parser = subparsers.add_parser("data", help="list, inspect and convert data sources, label videos")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_list(commands)
    _add_inspect(commands, name)
    _add_data_convert(commands, name)
    _add_label(commands, with_options=name is not None)


def _add_list(commands):
    parser = commands.add_parser("list", help="the sources that can be read, or all about one of them")
    parser.add_argument("name", nargs="?", metavar="NAME", help="a source: its layout and options")
    parser.set_defaults(run="gap_mllm.processing.cli:run_list")


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
    parser.set_defaults(run="gap_mllm.processing.cli:run_inspect")


def _add_data_convert(commands, name):
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
    parser.set_defaults(run="gap_mllm.processing.cli:run_convert")


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
    parser.set_defaults(run="gap_mllm.processing.cli:run_label", has_options=True)
    if with_options:
        from gap_mllm.processing.data.video_labels import LabelOptions

        add_option_flags(
            parser, LabelOptions, [name for name in LabelOptions.__dataclass_fields__ if name != "margins"]
        )


def parse_with_options(words: list[str], args: argparse.Namespace) -> argparse.Namespace:
    """Parse a command line again, now with the options of the source, or of labelling, as flags.

    Args:
        words (`list[str]`): the command line.
        args (`argparse.Namespace`): result of the first parse; says which source.
    Returns:
        `argparse.Namespace`.
    Raises:
        ValueError: if there is no such source.
        SystemExit: on a flag that it does not have, as argparse does.
    """
    parser = argparse.ArgumentParser(prog="gap-mllm")
    add_data(parser.add_subparsers(), getattr(args, "name", "synthetic_rooms"))
    return parser.parse_args(words)


# What became scripts of the repository, which are not installed.
SCRIPTS = {
    "ablate": "python examples/experiments/ablate.py",
    "measure-rooms": "python examples/experiments/measure_rooms.py",
    "probe --at marks": "python examples/experiments/probe_marks.py",
}
SUBCOMMANDS = (add_convert, add_train, add_train_geometry_encoder, add_train_grpo)
SUBCOMMANDS += (add_merge, add_evaluate, add_probe, add_push)
SUBCOMMANDS += (add_ask, add_show, add_serve, add_data)
