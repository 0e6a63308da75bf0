"""What `gap-mllm push` does; figures of metrics.json are written into the card by evaluation, which ties this here."""

import argparse

from .upload_plan import METRICS, plan_upload
from .uploading import push_folder


def run_push(args: argparse.Namespace) -> None:
    """List what goes up, check the folder, and upload it with `--yes`. Raises as `push_folder`."""
    plan, update_card = plan_upload(args.folder), None
    where = f"{args.repo}{', branch ' + args.revision if args.revision else ''}{', private' if args.private else ''}"
    print(f"{plan.folder} -> {where}\n{plan}", flush=True)
    if METRICS in plan.files:
        from ..evaluation.runner import update_card  # which needs the extra eval
    changes = {name: getattr(args, name) for name in ("private", "revision", "message")}
    changes |= {name: getattr(args, name) for name in ("license", "license_name", "license_link")}
    report = push_folder(args.folder, args.repo, args.yes, update_card=update_card, **changes)
    loaded = report.loaded
    names = " with ".join(loaded[name] for name in ("model", "processor") if name in loaded)
    print(f"loads without this package: {names}, {loaded['parameters'] / 1e6:.1f} M parameters")
    for note in report.notes:
        print(f"note: {note}")
    print(f"uploaded: {report.url}" if report.url else "nothing was uploaded; --yes uploads")
