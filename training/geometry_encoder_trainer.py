"""Training of a geometry encoder (VGGT) from pictures alone: depth, points and camera poses as targets."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from .losses import confidence_loss, log_depth_loss, point_loss, pose_loss
from .term_trainer import TermTrainer, TermTrainingArguments


@dataclass
class GeometryEncoderTrainingArguments(TermTrainingArguments):
    """`TermTrainingArguments` with the weights of the reconstruction terms."""

    point_weight: float = field(default=1.0, metadata={"help": "Weight of the points' error in metres."})
    depth_weight: float = field(default=1.0, metadata={"help": "Weight of the absolute log-depth error."})
    pose_weight: float = field(default=2.0, metadata={"help": "Weight of the pose encoding's error."})
    confidence_weight: float = field(default=0.1, metadata={"help": "Weight of both confidence terms."})
    confidence_alpha: float = field(
        default=0.5, metadata={"help": "Error in metres at which the confidence falls to its least value, 1."}
    )


class GeometryEncoderTrainer(TermTrainer):
    """Trains `GapMllmVggtForReconstruction` on batches of `collate_scenes`.

    No pose is an input: the encoder learns metric depth, points and relative pose from pixels. Points are supervised
    in the camera frame of the first view, in metres. Source: VGGT's losses; `gap_mllm.training.losses` says
    where ours differ.

    Example:
        ```python
        >>> from gap_mllm import GapMllmVggtForReconstruction
        >>> from gap_mllm.processing.data import load_multiview
        >>> from gap_mllm.training import GeometryEncoderTrainer, GeometryEncoderTrainingArguments
        >>> from gap_mllm.training import SceneGeometryDataset
        >>> from gap_mllm.training.rooms import collate_scenes
        >>> model = GapMllmVggtForReconstruction.from_pretrained(encoder_folder)
        >>> rooms = load_multiview("rendered_rooms", split="train", num_rooms=2)  # or rows with depth and poses
        >>> scenes = SceneGeometryDataset(rooms, patch_size=model.config.patch_size, num_views=2)
        >>> args = GeometryEncoderTrainingArguments("run", max_steps=1, save_strategy="no", report_to="none")
        >>> trainer = GeometryEncoderTrainer(model, args, train_dataset=scenes, data_collator=collate_scenes)
        >>> output = trainer.train()
        {'loss': ...}
        {'train_runtime': ...}
        >>> output.global_step, sorted(key for key in trainer.state.log_history[0] if "loss" in key)
        (1, ['loss', 'loss_confidence', 'loss_depth', 'loss_points', 'loss_pose'])

        ```
    """

    def count_items(self, inputs: Mapping[str, torch.Tensor]):
        pixels = sum(int(valid.sum()) for valid in inputs["valid"])
        views = sum(inputs["scene_lengths"])
        return {"points": pixels, "depth": pixels, "confidence": 2 * pixels, "pose": views}

    @property
    def term_weights(self):
        args = self.args
        return {
            "points": args.point_weight,
            "depth": args.depth_weight,
            "pose": args.pose_weight,
            "confidence": args.confidence_weight,
        }

    def floating_point_ops(self, inputs: Mapping[str, torch.Tensor]):
        return 0  # Trainer counts tokens of text; there are none

    def compute_terms(self, model: nn.Module, inputs: Mapping[str, torch.Tensor]):
        is_tensor = isinstance(inputs["images"], torch.Tensor)
        output = model(inputs["images"], None if is_tensor else inputs["scene_lengths"])

        def flat(value: torch.Tensor, trailing: int = 0):
            if is_tensor:
                return value.reshape(-1, *value.shape[value.ndim - trailing :])
            return torch.cat([view.reshape(-1, *view.shape[view.ndim - trailing :]) for view in value])

        valid, depth, points = flat(inputs["valid"]), flat(inputs["depth"]), flat(inputs["points"], 1)
        predicted_depth, predicted_points = flat(output.depth), flat(output.world_points, 1)
        depth_error = (predicted_depth - depth).abs()[valid]
        point_error = (predicted_points - points).norm(dim=-1)[valid]
        alpha = self.args.confidence_alpha
        pose = inputs["pose_enc"] if is_tensor else torch.stack(list(inputs["pose_enc"]))
        return {
            "points": point_loss(predicted_points, points, valid).sum,
            "depth": log_depth_loss(predicted_depth, depth, valid).sum,
            "confidence": confidence_loss(depth_error, flat(output.depth_conf)[valid], alpha).sum
            + confidence_loss(point_error, flat(output.world_points_conf)[valid], alpha).sum,
            "pose": pose_loss(output.pose_enc_iterations, pose).sum,
        }, output
