"""What a recipe will take, without weights, data or a GPU: parameters, memory, work and tokens of a step.

The model is built on the meta device, and one batch of the recipe's shape goes through its forward and backward pass
there (meta_device.py).
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import Trainer

from ..configuration_gap_mllm import GapMllmConfig
from ..model_loading import check_kind, model_folder
from ..modeling_gap_mllm import GapMllmForConditionalGeneration
from ..pretraining_gap_mllm import GapMllmForPreTraining
from ..processing.argument_checks import check_dtype, check_names
from ..processing.data import RoomVariety
from ..processing.data.former_names import task_name
from ..processing.data.scene_sample import SceneSample, View
from ..processing.processing_gap_mllm import GapMllmProcessor, default_image_processor
from ..processing.tiny_tokenizer import build_tiny_tokenizer
from .adapters import add_lora, lora_options
from .geometry_aligned_trainer import GeometryAlignedTrainingArguments, bare_model, freeze
from .layouts import PADDING
from .meta_device import FUSED_ATTENTION, running_on_meta
from .module_groups import assign_groups
from .new_encoder import start_encoder_config
from .patch_embedding import linear_patch_embedding
from .recipe_data import open_recipe, training_rooms
from .recipe_sources import read_sources, sections_of, training_questions
from .rooms import RoomQuestionDataset, RoomQuestions
from .scene_collator import LOSS_FIELDS, SceneCollator
from .schedule import read_weights, value_at
from .teaching import set_training_heads
from .terms import make_terms
from .train_geometry_aligned import GeometryAlignedModelArguments, check_fusion, new_config, new_processor


COMMANDS = ("train", "train-grpo")
PICTURE = (480, 640)  # height and width of ScanNet's pictures
RELEASED_VIEWS = {  # of a row of the released sets
    "reconstruction": 4,
    "detection3d": 4,
    "grounding_frame": 32,
    "grounding_box": 19,
    "dense_caption": 32,
}
NUM_VIEWS, QUESTION_TOKENS, ANSWER_TOKENS = 4, 128, 128  # where neither recipe nor data say


def dry_run_recipe(recipe: str | Path, overrides: Sequence[str] = (), command: str = "train") -> dict:
    """Count what the training of a recipe will take; weights and data need not be there.

    Without `model_path` sizes are those of `model_config`, and the published ones (Qwen3-VL-2B, VGGT-1B) where it
    says nothing. Rooms are rendered and asked; rows of other sources are stood in for by blank pictures and texts of
    a fixed length, which `assumptions` tells. Counts are those of one process.

    Args:
        recipe (`str` or `Path`), overrides (`list[str]`, defaults to `()`): arguments of `train_geometry_aligned`.
        command (`str`, defaults to "train"): "train", or "train-grpo" for a recipe of rewards.
    Returns:
        `dict` of JSON values: "parameters" by group ("total", "trainable", "learning_rate"), "total_parameters",
        "trainable_parameters", "dtype", "computes_in", "attention", "layout", "batch" (of one micro-batch: "items",
        "views", "view_size", "visual_tokens", "tokens"; of several sources the longest),
        "gradient_accumulation_steps", "tokens_per_step" and "flops" ("forward", "backward" of a micro-batch;
        "per_step"; means over the sources), "sources" (of several: "share", "batch" and "flops" of each),
        "memory_bytes" ("weights", "gradients", "optimizer", "activations_estimate", "total_estimate") and
        "assumptions". A multiplication with its addition is two FLOPs, as `FlopCounterMode` of torch counts.
    Raises:
        ValueError: for another command, and as the training itself for the recipe. FileNotFoundError: if there is no
            such recipe, or no such model or encoder where one is named.

    Example:
        ```python
        >>> from gap_mllm.training import dry_run_recipe
        >>> told = dry_run_recipe("quickstart", ["--model_path", str(folder)])
        >>> told["total_parameters"], told["parameters"]["geometry"]["trainable"]
        (5263648, 0)

        ```
    """
    check_names("command", [command], COMMANDS)
    is_grpo = command == "train-grpo"
    kinds = GeometryAlignedModelArguments, GeometryAlignedTrainingArguments
    if is_grpo:
        from .train_grpo import GrpoArguments, GrpoTrainingArguments  # imports TRL

        kinds = GrpoArguments, GrpoTrainingArguments
    # A recipe for a GPU is counted anywhere; bfloat16 must not be refused for want of one.
    recipe_args, args, _ = open_recipe(kinds, recipe, [*overrides, "--use_cpu", "true"])
    check_dtype(recipe_args.dtype, ("float32", "bfloat16"))
    if is_grpo:
        from .rewards import compose_rewards

        compose_rewards(recipe_args.rewards)
    assumptions = []
    config, processor = _config_and_processor(recipe_args, assumptions)
    model = _meta_model(GapMllmForConditionalGeneration if is_grpo else GapMllmForPreTraining, config, recipe_args)
    if not is_grpo:
        teaching = set_training_heads(model, args, teach=False)
    if recipe_args.lora is not None:
        model = add_lora(model, **lora_options(recipe_args, args))
    if recipe_args.quantization:
        assumptions.append("Weights are counted as dtype says; those that quantization packs take less.")
    freeze(model, args)
    config.check_attn_implementation(recipe_args.attn_implementation)
    model.set_attn_implementation("eager" if recipe_args.attn_implementation == "eager" else FUSED_ATTENTION)
    told = _parameters(model, args) | {"dtype": recipe_args.dtype}
    told["computes_in"] = "bfloat16" if args.bf16 else recipe_args.dtype
    told["attention"] = recipe_args.attn_implementation or "the best that is installed"
    memory = _kept_memory(model, args)

    told["layout"] = "padded" if is_grpo else recipe_args.layout or "block_mask"
    told["gradient_accumulation_steps"] = args.gradient_accumulation_steps
    cases = _cases(recipe_args, args, assumptions)
    options = {} if is_grpo else {"answer_weights": recipe_args.answer_weights, **recipe_args.collation}
    if not is_grpo:
        options |= {"for_pretraining": True, "point_map_side": config.point_map_side, "teaching": teaching}
    # One document after the other is as much work as one below the other, if they are of one length.
    collate = SceneCollator(processor, "padded" if told["layout"] == "packed" else told["layout"], **options)
    copies = 0
    if args.bf16 and recipe_args.dtype == "float32":
        model.to(torch.bfloat16)  # stands for autocast, which keeps a copy of each trained weight
        copies = 2 * told["trainable_parameters"]
    if args.gradient_checkpointing:
        name = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"  # before 5.23
        getattr(model, f"{name}_checkpointing_enable")({"use_reentrant": False})
    model.train()
    for case in cases:
        batch = collate(case.pop("micro_batch"))
        case["batch"] = _shape(batch, args.per_device_train_batch_size, processor, config)
        case["flops"], case["activations"] = _pass(model, args, batch, is_grpo, processor)
    told |= _work(cases, args)
    activations = max(case.pop("activations") for case in cases)
    told["sources"] = {case.pop("name"): case for case in cases} if len(cases) > 1 else {}
    memory["activations_estimate"] = activations + copies
    told["memory_bytes"] = {**memory, "total_estimate": sum(memory.values())}
    return {"recipe": str(recipe), **told, "assumptions": assumptions}


def _config_and_processor(recipe_args, assumptions):
    """Of the model that a training would start from; published sizes where none is named."""
    if recipe_args.model_path:
        folder = model_folder(recipe_args.model_path)
        check_kind(GapMllmForPreTraining, folder)
        sizes = getattr(recipe_args, "model_config", {})
        check_fusion(sizes, folder)
        options = {"use_geometry": sizes["use_geometry"]} if "use_geometry" in sizes else {}
        return GapMllmConfig.from_pretrained(folder, **options), GapMllmProcessor.from_pretrained(folder)
    model_config = getattr(recipe_args, "model_config", {})
    if recipe_args.data or not model_config:
        processor = GapMllmProcessor(default_image_processor(), build_tiny_tokenizer())
    else:
        processor = new_processor(recipe_args)
    encoder, encoder_config = getattr(recipe_args, "geometry_encoder_path", None), None
    if encoder:
        encoder_config = start_encoder_config(model_config.get("geometry_config"), encoder)
    else:
        named = "model_path or geometry_encoder_path" if model_config else "model_path"
        assumptions.append(f"No {named} is given: sizes that model_config does not name are the published ones.")
    return new_config(model_config, processor, encoder_config), processor


def _meta_model(model_class, config, recipe_args):
    with torch.device("meta"):
        return model_class._from_config(config, dtype=recipe_args.dtype)


def _parameters(model, args):
    parameters, groups = dict(model.named_parameters()), {}
    for group, names in assign_groups(model).items():
        sizes = {name: parameters[name].numel() for name in names}
        trainable = sum(size for name, size in sizes.items() if parameters[name].requires_grad)
        rate = args.group_learning_rates[group] if trainable else 0.0
        groups[group] = {"total": sum(sizes.values()), "trainable": trainable, "learning_rate": rate}
    totals = {f"{name}_parameters": sum(group[name] for group in groups.values()) for name in ("total", "trainable")}
    return {"parameters": groups, **totals}


def _kept_memory(model, args):
    """Bytes that are there throughout: weights, gradients, and what the optimiser keeps of each parameter."""
    weights = sum(each.numel() * each.element_size() for each in model.parameters())
    gradients = sum(each.numel() * each.element_size() for each in model.parameters() if each.requires_grad)
    probe = nn.Linear(64, 64, bias=False)
    optimizer_class, options = Trainer.get_optimizer_cls_and_kwargs(args, probe)
    optimizer = optimizer_class(probe.parameters(), **options)
    probe.weight.sum().backward()
    optimizer.step()
    state = [each for each in optimizer.state[probe.weight].values() if isinstance(each, torch.Tensor)]
    factor = sum(each.numel() * each.element_size() for each in state if each.numel() > 1) / probe.weight.nbytes
    return {"weights": weights, "gradients": gradients, "optimizer": round(gradients * factor)}


def _cases(recipe_args, args, assumptions):
    """The first micro-batch: rooms as they are asked, and blank pictures for rows, those of each source apart."""
    count, is_grpo = args.per_device_train_batch_size, not hasattr(recipe_args, "collation")
    repeats, sources = args.num_generations if is_grpo else 1, read_sources(recipe_args.data)
    if not recipe_args.data:
        rooms = training_rooms(recipe_args, args, RoomVariety(**recipe_args.variety))
        questions = RoomQuestionDataset(rooms, RoomQuestions(**recipe_args.questions))
    elif all(source["name"] == "rendered_rooms" for source in sources.values()):
        questions = training_questions(recipe_args, args)
    else:
        weights = read_weights("data", {name: source.get("weight", 1.0) for name, source in sources.items()})
        done = (np.arange(1000) + 0.5) / 1000
        values = [np.broadcast_to(value_at(weight, done), done.shape) for weight in weights.values()]
        questions = {name: _blank_items(recipe_args, sources[name], count, repeats, assumptions) for name in sources}
        shares = (values / np.sum(values, 0)).mean(1).tolist()
        named = zip(shares, questions.items(), strict=True)
        cases = [{"name": name, "share": share, "micro_batch": items} for share, (name, items) in named]
        told = f"Pictures of {PICTURE[1]} x {PICTURE[0]} pixels before they are resized; texts of {QUESTION_TOKENS} "
        assumptions.append(f"{told}tokens a question and {ANSWER_TOKENS} an answer.")
        questions = None
    if questions is not None:
        cases = [{"name": "", "share": 1.0, "micro_batch": [questions[index // repeats] for index in range(count)]}]
    if is_grpo:
        from .prompt_rows import question_of

        for case in cases:
            asked = map(question_of, case["micro_batch"])
            case["micro_batch"] = [replace(each, answer="0" * args.max_completion_length) for each in asked]
    return cases


def _blank_items(recipe_args, source, count, repeats, assumptions):
    """A micro-batch with as many views and questions as the recipe says of a source."""
    collation, tasks = getattr(recipe_args, "collation", {}), sections_of(recipe_args, source)["scene_tasks"]
    views = tasks.get("num_views") or source.get("max_views") or collation.get("max_views")
    if views is None:
        released = [RELEASED_VIEWS.get(task_name(task)) for task in source.get("tasks") or ()]
        known = source["name"] in ("gap_mllm", "vgllm") and released and all(released)
        views, why = (max(released), "as released") if known else (NUM_VIEWS, "the recipe does not bound them")
        assumptions.append(f"{views} views of {', '.join(source.get('tasks') or [source['name']])}: {why}.")
    texts = {"question": "0" * QUESTION_TOKENS, "answer": "0" * ANSWER_TOKENS}
    items = []
    for row in range(count):
        shown = tuple(_blank_view(row // repeats) for _ in range(views))
        asked = range(tasks.get("questions_per_scene", 1))
        items.append([SceneSample(id=f"{row}-{each}", views=shown, **texts) for each in asked])
    return [item[0] if len(item) == 1 else item for item in items]


def _blank_view(scene):
    """A view of a scene of its own, with all that any term of the loss may want."""
    height, width = PICTURE
    intrinsics = np.array([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1]])
    picture = np.full((*PICTURE, 3), scene % 256, np.uint8)
    return View(picture, np.ones(PICTURE, np.float32), intrinsics=intrinsics, camera_to_world=np.eye(4))


def _shape(batch, count, processor, config):
    """Sizes of a micro-batch."""
    merge, patch = processor.image_processor.merge_size, config.vision_config.patch_size
    grid = batch["image_grid_thw"]
    documents = batch.get("document_ids")
    is_token = batch["attention_mask"] != 0 if documents is None else documents != PADDING
    rows, columns = (grid[:, 1:].amax(0) * patch).tolist()
    return {
        "items": count,
        "views": len(grid),
        "view_size": [rows, columns],
        "visual_tokens": int(grid.prod(-1).sum()) // merge**2,
        "tokens": int(is_token.sum()),
    }


def _pass(model, args, batch, is_grpo, processor):
    """FLOPs of the passes over a micro-batch, and the most bytes that live meanwhile."""
    terms = {} if is_grpo else make_terms(args, args.terms)
    terms = {name: term for name, term in terms.items() if term.weight}
    unseen = {*LOSS_FIELDS, *(field for term in terms.values() for field in term.batch_fields)}
    inputs = {name: value for name, value in batch.items() if name not in unseen}
    config = bare_model(model).config
    encoder, fusion = config.geometry_config, config.gap_fusion_config
    if encoder.model_type == "gap_mllm_geometry_maps" or fusion.position_levels:  # which depend on what is known
        grid = batch["image_grid_thw"]
        rows = int(grid.prod(-1).sum()) + fusion.camera_tokens * len(grid)
        levels = len(encoder.tap_layers) + fusion.position_levels
        inputs["geometry_features"] = torch.zeros(levels, rows, encoder.feature_size, device="meta").requires_grad_()
    with FlopCounterMode(display=False) as counter, running_on_meta(model) as noted, ExitStack() as contexts:
        contexts.enter_context(linear_patch_embedding(bare_model(model).model.visual))
        if is_grpo:
            labels = inputs.pop("labels")
            kept = args.max_completion_length + 1
            logits = model(**inputs, logits_to_keep=kept, use_cache=False).logits[:, :-1].float() / args.temperature
            targets = labels[:, -kept + 1 :].clamp(min=0)
            loss = logits.log_softmax(-1).gather(-1, targets[..., None]).sum()
        else:
            for term in terms.values():
                term.prepare(processor)
                contexts.enter_context(term.watch(bare_model(model), batch))
            outputs = model(**inputs)
            sums = {name: term.sum(outputs, batch) for name, term in terms.items()}
            loss = sum(value_at(terms[name].weight, 0.0) * value for name, value in sums.items() if value is not None)
        forward = counter.get_total_flops()
        loss.backward()
    flops = {"forward": forward, "backward": counter.get_total_flops() - forward}
    if is_grpo:  # an answer is written with as much work as its log-probabilities take: each token is seen once
        flops |= {"answering": forward, "reference": forward if args.beta else 0}
    return flops, noted.peak


def _work(cases, args):
    """The mean over the sources, by their shares: sizes and FLOPs of a micro-batch, tokens and FLOPs of a step."""
    count = args.gradient_accumulation_steps
    largest = max(cases, key=lambda case: case["batch"]["tokens"])
    flops = {name: round(sum(case["share"] * case["flops"][name] for case in cases)) for name in largest["flops"]}
    tokens = sum(case["share"] * case["batch"]["tokens"] for case in cases)
    return {
        "batch": largest["batch"],
        "tokens_per_step": round(count * tokens),
        "flops": {**flops, "per_step": count * sum(flops.values())},
    }


def describe_dry_run(told: dict) -> str:
    """Word what `dry_run_recipe` counted, for a terminal."""
    rows = [f"{'group':<12} {'parameters':>14} {'trainable':>14} {'learning rate':>14}"]
    for name, group in told["parameters"].items():
        rate = f"{group['learning_rate']:.3g}" if group["trainable"] else "frozen"
        rows.append(f"{name:<12} {group['total']:>14,} {group['trainable']:>14,} {rate:>14}")
    rows.append(f"{'all':<12} {told['total_parameters']:>14,} {told['trainable_parameters']:>14,}")
    batch, (height, width) = told["batch"], told["batch"]["view_size"]
    rows.append(f"weights in {told['dtype']}, computes in {told['computes_in']}, attention: {told['attention']}")
    rows.append(
        f"micro-batch: {batch['items']} items, {batch['views']} views of up to {width} x {height} pixels, "
        f"{batch['tokens']:,} tokens, {batch['visual_tokens']:,} of them of views; {told['layout']}"
    )
    for name, source in told["sources"].items():
        shape, work = source["batch"], (source["flops"]["forward"] + source["flops"]["backward"]) / 1e12
        shown = f"{shape['views']} views, {shape['tokens']:,} tokens, {work:.4g} TFLOPs a micro-batch"
        rows.append(f"  {name}: {source['share']:.1%} of the items, {shown}")
    rows.append(f"step: {told['gradient_accumulation_steps']} micro-batches, {told['tokens_per_step']:,} tokens")
    rows += [f"{f'FLOPs, {name}':<28} {value / 1e12:>10.4g} T" for name, value in told["flops"].items()]
    rows += [f"{f'memory, {name}':<28} {value / 2**30:>10.3f} GiB" for name, value in told["memory_bytes"].items()]
    return "\n".join([*rows, *(f"assumed: {each}" for each in told["assumptions"])])
