"""What only a GPU can show, in one table: `python examples/benchmarks/gpu_checks.py --output outputs/gpu_checks`.

Weights are random: at the published widths with few layers where numbers are compared, at the published size where
memory and speed are. A further check is a function that yields rows, and its line in `STEPS`. `--dry-run` runs every
step on the CPU, tiny and without what it would measure; sizes come from the meta device either way.
"""

import argparse
import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from gap_mllm import GapMllmConfig, GapMllmForConditionalGeneration, GapMllmForPreTraining, best_attn_implementation
from gap_mllm.pretrained_gap_mllm import PARTS, set_attention
from gap_mllm.processing.data.scene_sample import SceneSample, View
from gap_mllm.processing.tiny_tokenizer import build_tiny_processor
from gap_mllm.training import SceneCollator, add_lora
from gap_mllm.training.geometry_aligned_trainer import LEARNING_RATE_FACTORS
from gap_mllm.training.module_groups import assign_groups, freeze_groups
from gap_mllm.training.provenance import describe_run
from gap_mllm.training.scene_collator import LOSS_FIELDS


ROOT = Path(__file__).parents[2]
GIB = 2**30
# A number of bfloat16 has 8 bits, so that a rounding changes it by up to 2^-9; tens of them follow one another between
# pixels and logits. Two kernels or layouts that round the same inputs differ less than bfloat16 from float32.
BF16_LIMIT, KERNEL_LIMIT = 0.05, 0.02
SHALLOW = {  # published widths; four levels need four layers
    "text_config": {"num_hidden_layers": 4},
    "vision_config": {"depth": 4, "deepstack_visual_indexes": [0, 1, 2]},
    "geometry_config": {"num_hidden_layers": 4, "patch_embed_depth": 2},
}
TINY = {  # weights that are large enough for each part to count
    "text_config": {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000,
            "mrope_section": [4, 2, 2],
            "mrope_interleaved": True,
        },
        "initializer_range": 0.1,
    },
    "vision_config": {
        "depth": 2,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_heads": 4,
        "out_hidden_size": 64,
        "deepstack_visual_indexes": [0],
        "initializer_range": 0.1,
    },
    "geometry_config": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "tap_layers": [0, 1],
        "image_size": 56,
        "patch_embed_depth": 1,
        "patch_embed_num_heads": 2,
        "initializer_range": 0.1,
    },
}


@dataclass
class Machine:
    """Where the steps run, and models and inputs of the size that suits it."""

    device: torch.device
    is_dry: bool

    @property
    def processor(self):
        return build_tiny_processor(96 * 64 if self.is_dry else 512 * 384)

    @property
    def view_counts(self):
        return (1, 2) if self.is_dry else (1, 4, 16, 32)

    def config(self, is_full: bool = False, fusion: str = "gated") -> GapMllmConfig:
        """The published sizes, with few layers unless `is_full`; tiny in a dry run."""
        default, processor = GapMllmConfig(), self.processor
        parts = {part: getattr(default, part).to_dict() for part in ("text_config", "vision_config")}
        parts["geometry_config"] = {"model_type": "gap_mllm_vggt"}
        for change in ([] if is_full else [SHALLOW]) + ([TINY] if self.is_dry else []):
            parts = {part: {**parts[part], **change.get(part, {})} for part in parts}
        if self.is_dry:
            parts["text_config"]["vocab_size"] = len(processor.tokenizer)
        ids = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
        parts["gap_fusion_config"] = {"method": fusion, "init": "reference"}  # the geometry counts
        return GapMllmConfig(**parts, **{name: getattr(processor, name) for name in ids})

    def model(
        self, model_class: type = GapMllmForPreTraining, dtype: torch.dtype = torch.float32, **options: bool | str
    ) -> PreTrainedModel:
        """A model of random weights, the same each time; options of `config`."""
        torch.manual_seed(0)
        torch.set_default_dtype(dtype)
        try:
            with self.device:
                return model_class(self.config(**options)).eval()
        finally:
            torch.set_default_dtype(torch.float32)

    def pictures(self, num_views: int) -> list[np.ndarray]:
        shape = (64, 96, 3) if self.is_dry else (384, 512, 3)
        return list(np.random.default_rng(0).integers(0, 256, (num_views, *shape), dtype=np.uint8))

    def batch(self, layout: str = "padded", num_views: int = 2, num_questions: int = 2) -> dict[str, torch.Tensor]:
        """Questions of unlike length about one scene, as a training takes them."""
        views = tuple(View(picture=picture) for picture in self.pictures(num_views))
        texts = [("What is this?", "a chair"), ("How many chairs are there in the room?", "4")][:num_questions]
        samples = [SceneSample(id=text, views=views, question=text, answer=answer) for text, answer in texts]
        batch = SceneCollator(self.processor, layout, for_pretraining=True)([samples])
        return {name: value.to(self.device) for name, value in batch.items() if name not in LOSS_FIELDS}

    def free(self):
        gc.collect()
        if not self.is_dry:
            torch.cuda.empty_cache()

    def seconds(self, run: Callable, repeats: int = 10) -> float | None:
        """Time of a call, the mean of several after one that is not counted; None in a dry run, which makes none."""
        if self.is_dry:
            return None
        run()
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(repeats):
            run()
        torch.cuda.synchronize()
        return (time.perf_counter() - start) / repeats

    def peak(self, run: Callable, num_views: int) -> float | None:
        """GiB that a call with a batch of one scene needs at most, weights included; None in a dry run."""
        batch = self.batch(num_views=num_views)
        if not self.is_dry:
            torch.cuda.reset_peak_memory_stats()
        run(batch)
        return None if self.is_dry else torch.cuda.max_memory_allocated() / GIB


def row(what: str, value: float | None, unit: str, limit: float | None = None) -> dict:
    """A line of the table; a value above its limit, or that is no number, is a failure."""
    return {"what": what, "value": value, "unit": unit, "limit": limit, "ok": limit is None or value <= limit}


def difference(tensor: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference, as a share of that of what is expected."""
    return ((tensor.float() - expected.float()).norm() / expected.float().norm()).item()


def sizes(machine: Machine) -> Iterator[dict]:
    """The published size, counted on the meta device: weights, and what a training by the published recipe keeps."""
    with torch.device("meta"):
        model = GapMllmForPreTraining(GapMllmConfig())
    parameters, groups = dict(model.named_parameters()), assign_groups(model)
    counts = {group: sum(parameters[name].numel() for name in names) for group, names in groups.items()}
    for group, count in counts.items():
        yield row(f"{group}: parameters", count / 1e6, "million")
    trained = sum(count for group, count in counts.items() if LEARNING_RATE_FACTORS[group])
    yield row("all weights in bfloat16", 2 * sum(counts.values()) / GIB, "GiB")
    # float32 weights, gradients and both moments of AdamW; the frozen encoder in bfloat16, the frozen tower in float32
    kept = 16 * trained + 2 * counts["geometry"] + 4 * counts["vision"]
    yield row("training: weights, gradients, AdamW", kept / GIB, "GiB")


def precision(machine: Machine) -> Iterator[dict]:
    """Forward and backward in bfloat16 against float32."""
    model, batch = machine.model(), machine.batch()
    half = machine.model(dtype=torch.bfloat16)  # not .to(), which rounds the frequencies of rotary positions, too
    half.load_state_dict(model.state_dict())
    outputs = [each(**batch) for each in (model, half)]
    for output in outputs:
        output.loss.backward()
    yield row("answer logits", difference(outputs[1].answer_logits, outputs[0].answer_logits), "relative", BF16_LIMIT)
    is_wrong = [p.grad is not None and not p.grad.isfinite().all() for p in half.parameters()]
    yield row("gradients that are not finite", float(sum(map(bool, is_wrong))), "tensors", 0)


def attention(machine: Machine) -> Iterator[dict]:
    """FlashAttention against SDPA, part by part and in the whole model; in a dry run eager attention stands for it."""
    dtype = torch.float32 if machine.is_dry else torch.bfloat16
    best = "eager" if machine.is_dry else best_attn_implementation(machine.device, dtype)
    if best == "sdpa":
        yield {**row("FlashAttention against SDPA", None, "relative"), "note": "no FlashAttention that runs here"}
        return
    model, batch = machine.model(dtype=dtype, fusion="cross_attention"), machine.batch()
    set_attention(model, "sdpa")
    with torch.no_grad():
        expected = model(**batch).answer_logits
        for part in PARTS:
            set_attention(model, {**dict.fromkeys(PARTS, "sdpa"), part: best})
            value = difference(model(**batch).answer_logits, expected)
            yield row(f"{best} against sdpa, {part}", value, "relative", KERNEL_LIMIT)
        set_attention(model, best)
        value = difference(model(**batch).answer_logits, expected)
        yield row(f"{best} against sdpa, everywhere", value, "relative", KERNEL_LIMIT)


def layouts(machine: Machine) -> Iterator[dict]:
    """Packed rows against padded ones, and against a mask of documents with SDPA: losses and gradients."""
    dtype = torch.float32 if machine.is_dry else torch.bfloat16
    model = machine.model(dtype=dtype)
    weight = model.model.language_model.layers[0].self_attn.q_proj.weight
    results = {}
    for layout, kernel in (("padded", None), ("packed", None), ("packed", "sdpa"), ("block_mask", "sdpa")):
        set_attention(model, kernel)
        output = model(**machine.batch(layout))
        output.loss.backward()
        results[f"{layout}, {kernel or 'best attention'}"] = (output.answer_logits.detach(), weight.grad)
        weight.grad = None
    (name, expected), *others = results.items()
    for other, result in others:
        for what, value, reference in zip(("logits", "gradient"), result, expected, strict=True):
            limit = BF16_LIMIT if what == "gradient" else KERNEL_LIMIT  # the backward pass rounds as often again
            yield row(f"{other} against {name}: {what}", difference(value, reference), "relative", limit)


@torch.no_grad()
def compiled(machine: Machine) -> Iterator[dict]:
    """torch.compile against eager execution: of language model and encoder, each in one graph, and of the whole model.

    A dry run traces the former two and makes no code; the whole model takes too long for it.
    """
    batch, backend = machine.batch(num_questions=1), "eager" if machine.is_dry else "inductor"
    model = machine.model(dtype=torch.float32 if machine.is_dry else torch.bfloat16)
    expected = model(**batch).answer_logits
    if not machine.is_dry:
        whole = torch.compile(model, backend=backend)
        yield row("the whole model", difference(whole(**batch).answer_logits, expected), "relative", KERNEL_LIMIT)
        torch.compiler.reset()
    for part in (model.model.language_model, model.model.geometry):
        part.compile(backend=backend)
    value = difference(model(**batch).answer_logits, expected)
    yield row("language model and encoder", value, "relative", KERNEL_LIMIT)


def training_step(machine: Machine, with_lora: bool = False, kernel: str | None = None) -> Callable:
    """A step of a batch: float32 weights, bfloat16 autocast, tower and encoder frozen, AdamW."""
    model = machine.model(is_full=not machine.is_dry).train()
    freeze_groups(model, LEARNING_RATE_FACTORS)
    model.model.geometry.to(torch.bfloat16)
    set_attention(model, kernel, machine.device, torch.bfloat16)
    if with_lora:
        model = add_lora(model, r=2 if machine.is_dry else 16)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.0)

    def step(batch):
        with torch.autocast(machine.device.type, torch.bfloat16):
            loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def training_memory(machine: Machine) -> Iterator[dict]:
    """Peak memory of a step by views."""
    step = training_step(machine)
    step(machine.batch())  # the moments are there from now on
    for num_views in machine.view_counts:
        yield row(f"step, {num_views} views", machine.peak(step, num_views), "GiB")


def training_speed(machine: Machine) -> Iterator[dict]:
    """Time and memory of a step, of all language weights and of LoRA's, and their share of the roofline.

    The roofline is what a large product of matrices in bfloat16 reaches on the device; SDPA, whose work is counted.
    """
    square = torch.ones(64 if machine.is_dry else 8192, device=machine.device, dtype=torch.bfloat16).diag()
    took = machine.seconds(lambda: square @ square)
    roofline = None if took is None else 2 * len(square) ** 3 / took
    yield row("roofline", roofline and roofline / 1e12, "TFLOP/s")
    num_views = machine.view_counts[-2]
    for name, with_lora in (("all weights", False), ("LoRA", True)):
        step, batch = training_step(machine, with_lora, "sdpa"), machine.batch(num_views=num_views)
        with FlopCounterMode(display=False) as counter:
            step(batch)
        work = counter.get_total_flops()
        what, took = f"{name}, {num_views} views", machine.seconds(partial(step, batch))
        yield row(f"{what}: work of a step", work / 1e12, "TFLOP")
        yield row(f"{what}: speed", took and 1 / took, "steps/s")
        yield row(f"{what}: share of the roofline", took and work / took / roofline, "")
        yield row(f"{what}: peak memory", machine.peak(step, num_views), "GiB")
        del step
        machine.free()


@torch.no_grad()
def forward_memory(machine: Machine) -> Iterator[dict]:
    """Peak memory of a forward pass in bfloat16 by views."""
    model = machine.model(dtype=torch.bfloat16, is_full=not machine.is_dry)
    set_attention(model)
    for num_views in machine.view_counts:
        peak = machine.peak(lambda batch: model(**batch), num_views)
        yield row(f"forward, {num_views} views", peak, "GiB")


def generation(machine: Machine) -> Iterator[dict]:
    """How fast answers come, with SDPA and with the best attention."""
    model = machine.model(GapMllmForConditionalGeneration, torch.bfloat16, is_full=not machine.is_dry)
    processor, num_tokens = machine.processor, 4 if machine.is_dry else 64
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    best = best_attn_implementation(machine.device, torch.bfloat16)
    for kernel in dict.fromkeys(("sdpa", best)):
        set_attention(model, kernel)
        for num_chats, num_views in ((1, 2),) if machine.is_dry else ((1, 4), (8, 4), (1, 16)):
            chats = [processor.build_messages("detection3d", machine.pictures(num_views))] * num_chats
            inputs = processor.apply_chat_template(
                chats, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
            ).to(machine.device)
            took = []
            for count in (1, 1, num_tokens):  # once to warm up
                start = time.perf_counter()
                model.generate(**inputs, max_new_tokens=count, min_new_tokens=count, do_sample=False)
                if not machine.is_dry:
                    torch.cuda.synchronize()
                took.append(None if machine.is_dry else time.perf_counter() - start)
            name = f"{kernel}, {num_chats} chats of {num_views} views"
            yield row(f"{name}: first token", took[1], "s")
            speed = None if machine.is_dry else num_chats * (num_tokens - 1) / (took[2] - took[1])
            yield row(f"{name}: then", speed, "tokens/s")


def marked_tests(machine: Machine) -> Iterator[dict]:
    """The tests that are marked gpu; without one they skip themselves."""
    files = [file for file in sorted((ROOT / "tests").rglob("test_*.py")) if "pytest.mark.gpu" in file.read_text()]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", *map(str, files)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    summary = (done.stdout.strip().splitlines() or [done.stderr[-500:]])[-1]
    yield {**row("exit code of pytest", float(done.returncode), "", 0), "note": summary}


STEPS = {
    "sizes": sizes,
    "precision": precision,
    "attention": attention,
    "layouts": layouts,
    "compiled": compiled,
    "training_memory": training_memory,
    "training_speed": training_speed,
    "forward_memory": forward_memory,
    "generation": generation,
    "marked_tests": marked_tests,
}


def run_steps(machine: Machine, names: list[str], seconds: float) -> list[dict]:
    """Rows of all steps; a step that fails is a row, as is one that there was no time for."""
    rows, start = [], time.perf_counter()
    for name in names:
        begun = time.perf_counter()
        if begun - start > seconds:
            rows.append({"step": name, **row("not run", None, ""), "ok": False, "note": f"{seconds} s were over"})
            continue
        try:
            for each in STEPS[name](machine):
                rows.append({"step": name, **each})
        except Exception as error:  # whatever it is, the other steps are still of use
            rows.append({"step": name, **row(type(error).__name__, None, ""), "ok": False, "note": str(error)[:500]})
        machine.free()
        rows.append({"step": name, **row("time", round(time.perf_counter() - begun, 1), "s")})
        print(table(rows[-1:]), flush=True)
    return rows


def table(rows: list[dict]) -> str:
    """The rows as lines of markdown."""
    lines = []
    for each in rows:
        value = "" if each["value"] is None else f"{each['value']:.4g} {each['unit']}"
        limit = "" if each["limit"] is None else f"at most {each['limit']:g}"
        verdict = "" if each["ok"] else "FAILED"
        lines.append(f"| {each['step']} | {each['what']} | {value} | {limit} | {verdict} {each.get('note', '')} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("outputs/gpu_checks"), help="folder for the table")
    parser.add_argument("--steps", nargs="*", default=list(STEPS), choices=list(STEPS))
    parser.add_argument("--seconds", type=float, default=480, help="after so many no further step is begun")
    parser.add_argument("--dry-run", action="store_true", help="every step on the CPU, tiny, nothing measured")
    args = parser.parse_args()
    if not args.dry_run and not torch.cuda.is_available():
        raise SystemExit("There is no CUDA device here; give --dry-run to try the steps on the CPU.")
    machine = Machine(torch.device("cpu" if args.dry_run else "cuda"), args.dry_run)
    rows = run_steps(machine, args.steps, args.seconds)
    about = describe_run({"command": " ".join(sys.argv), "dry_run": args.dry_run})
    about["device"] = "cpu" if args.dry_run else torch.cuda.get_device_name()
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "gpu_checks.json").write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    head = f"`{about['settings']['command']}` on {about['device']}; {versions}\n\n| step | what | value | limit | |\n"
    (args.output / "gpu_checks.md").write_text(f"{head}| --- | --- | --- | --- | --- |\n{table(rows)}\n")
    failed = [f"{each['step']}: {each['what']}" for each in rows if not each["ok"]]
    print(f"wrote {args.output}; {len(failed)} of {len(rows)} rows failed {failed}")
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
