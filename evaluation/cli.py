"""What the commands `gap-mllm evaluate` and `probe` do."""

import argparse
import json

from gap_mllm_cli.options import read_option

from ..processing.argument_checks import check_device
from ..processing.input_checks_gap_mllm import check_count
from . import runner
from .runner.card import check_card, update_card
from .runner.processes import is_launched, launch


def run_evaluate(args: argparse.Namespace) -> None:
    """Evaluate, in several processes if asked for. Raises ValueError where an argument does not fit."""
    check_count("--processes", args.processes)
    if args.update_card:
        check_card(args.update_card)
    options = dict(read_option(text) for text in args.option)
    settings = {
        "benchmark": args.benchmark,
        "data": args.data,
        "data_dir": args.data_dir,
        "output": args.output,
        "split": args.split,
        "limit": args.limit,
        "batch_size": args.batch_size,
        "seed": args.seed,
        "baselines": args.baselines,
        "without_geometry": args.without_geometry,
        "threads": args.threads,
        "device": args.device,
        "dtype": args.dtype,
        "sampling": args.sampling,
        "points_from": args.points_from,
        "answer_convention": args.answer_convention,
        "duplicates_iou": args.remove_duplicates,
        "constrained": args.constrained,
        "engine": args.engine,
        "engine_options": dict(read_option(text) for text in args.engine_option),
        "attn_implementation": _name_or_parts(args.attn_implementation),
        "cache_dir": args.cache_dir,
        "refresh": args.refresh,
        "with_report": not args.no_report,
    }
    if args.processes > 1 and not is_launched():
        _relaunch(args)
    else:
        metrics = runner.evaluate_model(args.model, predictions=args.predictions, **settings, **options)
        if not metrics:
            return  # not the main process
        print(f"wrote {args.output}: {metrics['headline']} {metrics['scores']['model'][metrics['headline']]}")
    if args.update_card:
        update_card(args.update_card, args.output)
        print(f"wrote the results into {args.update_card}")


def run_probe(args: argparse.Namespace) -> None:
    """Probe a model, print a table and write files. Raises ValueError where an argument does not fit."""
    from .probing.probe_command import probe_into_folder

    options, names = vars(args).copy(), ("run", "option", "at")
    options["source_options"] = dict(read_option(text) for text in args.option)
    print(probe_into_folder(**{name: value for name, value in options.items() if name not in names}))


def _relaunch(args):
    """Run this very command in several processes; the card is written by this one."""
    on_cpu = check_device(args.device).type == "cpu"
    code = launch(["evaluate", *_words(args)], args.processes, on_cpu, args.threads or 1)
    if code:
        raise ValueError(f"the processes ended with exit code {code}; the reason stands above. Run again to resume.")


def _words(args):
    """The command line that parses to these arguments, without what concerns the first process only."""
    words = []
    for name, value in vars(args).items():
        flag = f"--{name.replace('_', '-')}"
        if name in ("run", "processes", "update_card") or value is None or value is False:
            continue
        if name in ("option", "engine_option"):
            words += [f"{flag}={text}" for text in value]
        elif isinstance(value, list):
            words += [flag, *value]
        else:
            words += [flag] if value is True else [f"{flag}={value}"]
    return words


def _name_or_parts(text):
    """A kernel, or those of parts of the model as JSON."""
    if text is None or not text.startswith("{"):
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"--attn-implementation {text!r} is neither a name nor JSON: {error}.") from None
