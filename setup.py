"""Package metadata. The source folders at the top level become `gap_mllm`, and its command beside it `gap_mllm_cli`.

Ranges stand here, the exact versions that were tested in constraints.txt, and tool settings in pyproject.toml.
"""

from pathlib import Path

from setuptools import setup


# Import name -> folder. Folders below them follow by themselves.
ROOTS = {
    "gap_mllm": "modeling_gap_mllm",
    "gap_mllm.processing": "processing",
    "gap_mllm.training": "training",
    "gap_mllm.evaluation": "evaluation",
    "gap_mllm_cli": "modeling_gap_mllm/commands",  # beside gap_mllm, so that `gap-mllm --help` imports no torch
}


def nested_packages(roots):
    """Find every folder with Python files under the roots; setuptools cannot where names differ from folders."""
    packages = {}
    for name, root in roots.items():
        for folder in sorted({file.parent for file in Path(root).rglob("*.py")}):
            if folder == Path(root) or folder.as_posix() not in roots.values():
                packages[".".join([name, *folder.relative_to(root).parts])] = folder.as_posix()
    return packages


PACKAGES = nested_packages(ROOTS)

REQUIREMENTS = [
    "torch>=2.6",
    "transformers>=5.19.0,<6",
    "numpy>=1.26",
    "pillow>=10.1",
    "safetensors>=0.8",
    "huggingface_hub>=1.31",
    "tqdm>=4.60",
]
DATA = ["av>=12.0", "datasets>=5.0", "ijson>=3.2", "xxhash>=3.0"]
EVAL = [*DATA, "accelerate>=1.10", "evaluate>=0.4.6", "matplotlib>=3.8", "scipy>=1.11"]
EXTRAS = {
    "data": DATA,
    "train": [*DATA, "accelerate>=1.10", "matplotlib>=3.8", "peft>=0.18", "pyyaml>=6.0", "trl>=1.0"],
    "eval": EVAL,
    "caption": ["pycocoevalcap>=1.2"],  # METEOR also needs Java
    "demo": [*DATA, "accelerate>=1.10", "matplotlib>=3.8", "pyyaml>=6.0"],
    "video": ["av>=12.0"],
    "heic": ["pillow-heif>=0.18"],  # photographs of iPhones
    "view": [*DATA, "scipy>=1.11", "trimesh>=4.4"],  # GLB and COLMAP; the page and PLY need the data extra alone
    "colmap": [*DATA, "pycolmap>=3.12", "scipy>=1.11"],  # binary models; text needs the view extra alone
    "rerun": [*DATA, "rerun-sdk>=0.24"],
    "viser": [*DATA, "viser>=1.0"],
    "serving": ["transformers[serving]>=5.19.0,<6"],
    "space": [*EVAL, "gradio>=6.0", "trimesh>=4.4"],  # gradio 6.31 asks for pillow below 13, constraints.txt has 13
    "depth-anything": ["depth-anything-3>=0.1.1"],  # brings torchvision, and asks for numpy below 2
    "flash": ["flash-attn>=2.7; platform_system == 'Linux'"],
    "tensorboard": ["tensorboardX>=2.6"],  # for report_to; the package tensorboard serves as well
    "quantization": ["bitsandbytes>=0.46.1"],  # QLoRA, beside train
    "grammar": ["xgrammar>=0.2.8"],  # constrained answers; its metadata asks for triton, which it needs on GPUs alone
    "lint": ["pyright[nodejs]>=1.1.414"],  # not in dev: it brings node, and only `make lint` needs it
}
EXTRAS["dev"] = sorted(
    {
        *EXTRAS["train"],
        *EXTRAS["eval"],
        *EXTRAS["caption"],
        *EXTRAS["demo"],
        *EXTRAS["serving"],
        *EXTRAS["tensorboard"],
        *EXTRAS["view"],
        *EXTRAS["heic"],
        "hypothesis>=6.100",
        "ipykernel>=6.29",
        "manifold3d>=3.0",
        "nbclient>=0.10",
        "pytest>=8.0",
        "pytest-xdist>=3.6",
        "ruff==0.17.5",
        "setuptools>=77",
    }
)

setup(
    name="gap-mllm",
    version="0.1.0",
    description="GAP-MLLM: geometry-aligned multimodal language models on Qwen3-VL and VGGT, for transformers",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",  # transformers asks for it from 5.21 on
    packages=list(PACKAGES),
    package_dir=PACKAGES,
    package_data={
        "gap_mllm.processing.scene_3d": ["viewer.html"],
        "gap_mllm.training": ["recipes/*.yaml", "accelerate/*.yaml"],
    },
    install_requires=REQUIREMENTS,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["gap-mllm = gap_mllm_cli:main"]},
)
