"""`gap-mllm evaluate`: a model, a benchmark, and a folder of results; see `gap_mllm.evaluation.runner`."""

import argparse


def add_evaluate(subparsers) -> None:
    """Declare `gap-mllm evaluate`; see `evaluate_model`."""
    parser = subparsers.add_parser(
        "evaluate",
        help="measure a model on a benchmark, beside baselines",
        description="Answer a benchmark's questions, score them beside baselines, and write predictions, metrics and "
        "a report into a folder. The same command again resumes.",
    )
    parser.add_argument("--model", metavar="MODEL", help="folder, or repository of the Hub")
    parser.add_argument("--predictions", metavar="FILE", help="score these answers (JSON lines: id, text) instead")
    parser.add_argument("--benchmark", default="synthetic_rooms", help="name; an unknown one lists them")
    parser.add_argument("--data-dir", metavar="DIR", help="the benchmark's data; synthetic_rooms needs none")
    parser.add_argument("--output", default="outputs/evaluation", metavar="DIR", help="folder for the results")
    parser.add_argument("--split", help="instead of the benchmark's")
    parser.add_argument("--limit", type=int, metavar="N", help="an even, seeded subset of N questions")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0, help="of the subset and of the intervals")
    parser.add_argument("--processes", type=int, default=1, metavar="P", help="start P of them with accelerate")
    parser.add_argument("--threads", type=int, help="CPU threads of a process; part of the plan, 1 on the CPU")
    parser.add_argument("--device", help="such as cpu or cuda:0")
    parser.add_argument("--dtype", default="auto", help="of the model, such as bfloat16")
    parser.add_argument("--baselines", nargs="*", metavar="NAME", help="default: all that apply")
    parser.add_argument("--without-geometry", metavar="MODEL", help="a model trained without geometry, asked as well")
    parser.add_argument("--cache-dir", metavar="DIR", help="of datasets")
    parser.add_argument("--refresh", action="store_true", help="prepare the data again, whether it changed or not")
    parser.add_argument("--no-report", action="store_true", help="metrics and predictions only")
    parser.add_argument("--update-card", metavar="FILE", help="write the results into this model card's metadata")
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="of the data source; VALUE is JSON or text"
    )
    parser.set_defaults(run=run_evaluate)


def run_evaluate(args: argparse.Namespace) -> None:
    """Evaluate, in several processes if asked for. Raises ValueError where an argument does not fit."""
    from gap_mllm.evaluation.runner import evaluate_model
    from gap_mllm.evaluation.runner.card import check_card, update_card
    from gap_mllm.evaluation.runner.processes import is_launched, launch
    from gap_mllm.processing.argument_checks import check_count

    check_count("--processes", args.processes)
    if args.update_card:
        check_card(args.update_card)
    options = dict(_option(text) for text in args.option)
    settings = {
        "benchmark": args.benchmark,
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
        "cache_dir": args.cache_dir,
        "refresh": args.refresh,
        "with_report": not args.no_report,
    }
    if args.processes > 1 and not is_launched():
        _relaunch(args, launch)
    else:
        metrics = evaluate_model(args.model, predictions=args.predictions, **settings, **options)
        if not metrics:
            return  # not the main process
        print(f"wrote {args.output}: {metrics['headline']} {metrics['arms']['model'][metrics['headline']]}")
    if args.update_card:
        update_card(args.update_card, args.output)
        print(f"wrote the results into {args.update_card}")


def _relaunch(args, launch):
    """Run this very command in several processes; the card is written by this one."""
    from gap_mllm.processing.argument_checks import check_device

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
        if name == "option":
            words += [f"--option={text}" for text in value]
        elif isinstance(value, list):
            words += [flag, *value]
        else:
            words += [flag] if value is True else [f"{flag}={value}"]
    return words


def _option(text):
    import json

    key, found, value = text.partition("=")
    if not found or not key.isidentifier():
        raise ValueError(f"--option {text!r} is not KEY=VALUE.")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


__all__ = ["add_evaluate", "run_evaluate"]
