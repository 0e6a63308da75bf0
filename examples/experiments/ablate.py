"""Train arms of a recipe with several seeds, and compare them on rooms never trained on.

    python examples/experiments/ablate.py geometry_terms --output_dir outputs/geometry_terms \\
        --geometry_encoder_path examples/assets/tiny_geometry_encoder

What an ablation is, docs/ablations.md says; those of this folder are ablations/*.yaml.
"""

import argparse
from collections.abc import Sequence

from ablations import run_ablation
from ablations.ablation import read_flags


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Train each arm of an ablation with each seed, score all on the same rooms, and write report.md, "
        "curves.png and ablation.json. The same command again goes on. Further flags are keys of the recipe, for all "
        "arms.",
        allow_abbrev=False,
    )
    parser.add_argument("ablation", metavar="ABLATION", help="name of an ablation of this folder, or a YAML file")
    parser.add_argument("--output_dir", required=True, metavar="DIR", help="folder for the runs and the report")
    parser.add_argument("--arms", nargs="+", metavar="NAME", help="only these; default: all")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="instead of the ablation's")
    args, overrides = parser.parse_known_args(words)
    try:
        run_ablation(args.ablation, args.output_dir, read_flags(overrides), seeds=args.seeds, arms=args.arms)
    except (FileExistsError, FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    print(f"wrote {args.output_dir}/report.md")


if __name__ == "__main__":
    main()
