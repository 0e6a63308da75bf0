"""Maps the four source folders at the top level to one import name, `gap_mllm` (everything else is in pyproject.toml)."""

from pathlib import Path

from setuptools import setup

PACKAGES = {
    "gap_mllm": "modeling_gap_mllm",
    "gap_mllm.processing": "processing",
    "gap_mllm.processing.data": "processing/data",
    "gap_mllm.training": "training",
    "gap_mllm.evaluation": "evaluation",
}

# Ranges, not pins: constraints.txt holds the exact versions that the tests ran with.
REQUIREMENTS = [
    "torch>=2.6",
    "transformers>=5.23.0,<5.24",
    "numpy>=1.26",
    "pillow>=10.0",
    "safetensors>=0.4.3",
    "huggingface_hub>=1.0",
    "tqdm>=4.60",
]
EXTRAS = {
    "train": ["accelerate>=1.10", "datasets>=5.0", "peft>=0.18", "trl>=1.0", "pyyaml>=6.0"],
    "eval": ["evaluate>=0.4.6", "datasets>=5.0", "scipy>=1.11", "matplotlib>=3.8"],
    "demo": ["accelerate>=1.10", "datasets>=5.0", "matplotlib>=3.8", "pyyaml>=6.0"],
    "video": ["torchvision>=0.20", "av>=12.0"],
    "flash": ["flash-attn>=2.7; platform_system == 'Linux'"],
    "dev": ["pytest>=8.0", "hypothesis>=6.100", "ruff==0.17.5", "scipy>=1.11", "nbclient>=0.10", "ipykernel>=6.29", "build>=1.2"],
}
EXTRAS["dev"] = sorted({*EXTRAS["dev"], *EXTRAS["train"], *EXTRAS["demo"]})

setup(
    name="gap-mllm",
    version="0.1.0",
    description="GAP-MLLM: geometry-aligned multimodal language models on Qwen3-VL and VGGT, for transformers",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=list(PACKAGES),
    package_dir=PACKAGES,
    package_data={"gap_mllm.training": ["recipes/*.yaml"]},
    install_requires=REQUIREMENTS,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["gap-mllm = gap_mllm.cli:main"]},
)
