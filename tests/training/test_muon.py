"""`MuonAndAdamW`: which parameters go where, and that a schedule and a checkpoint reach both."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from gap_mllm import GapMllmVggtConfig, GapMllmVggtForReconstruction
from gap_mllm.training import GeometryEncoderTrainer, GeometryEncoderTrainingArguments, MuonAndAdamW


def layers() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(3, 4, 1), nn.Flatten(), nn.Linear(8, 6), nn.LayerNorm(6), nn.Linear(6, 2))


def step(model, optimizer, seed):
    optimizer.zero_grad()
    model(torch.rand(5, 3, 2, generator=torch.Generator().manual_seed(seed))).square().sum().backward()
    optimizer.step()


def test_what_each_part_does():
    model, other = layers(), layers()
    decayed = ["0.weight", "2.weight", "4.weight"]
    both = MuonAndAdamW(model, lr=0.01, weight_decay=0.1, decayed=decayed)
    assert [len(group["params"]) for group in both.param_groups] == [2, 1, 5]
    matrices, kernels = [other[2].weight, other[4].weight], [other[0].weight]
    rest = [each for name, each in other.named_parameters() if name not in decayed]
    muon = torch.optim.Muon(matrices, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    kinds = [{"params": kernels, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(kinds, lr=0.01)
    for number in range(3):
        step(model, both, number)
        for part in (muon, adamw):
            part.zero_grad()
        other(torch.rand(5, 3, 2, generator=torch.Generator().manual_seed(number))).square().sum().backward()
        for part in (muon, adamw):
            part.step()
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


def test_a_schedule_reaches_all():
    model = layers()
    optimizer = MuonAndAdamW(model, lr=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda number: float(number == 0))
    step(model, optimizer, 0)
    schedule.step()  # the rate is 0 from here on
    before = deepcopy(model.state_dict())
    step(model, optimizer, 1)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_it_goes_on_from_a_checkpoint(tmp_path):
    model = layers()
    optimizer = MuonAndAdamW(model, lr=0.01, weight_decay=0.1)
    step(model, optimizer, 0)
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "saved")
    saved = torch.load(tmp_path / "saved", weights_only=True)
    resumed = layers()
    resumed.load_state_dict(saved["model"])
    again = MuonAndAdamW(resumed, lr=0.5)
    again.load_state_dict(saved["optimizer"])
    for number in (1, 2):
        step(model, optimizer, number)
        step(resumed, again, number)
    assert len(again.state) == len(list(model.parameters()))
    for mine, theirs in zip(resumed.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


def test_refusals(tmp_path):
    with pytest.raises(ValueError, match="Conv1d has no linear layer"):
        MuonAndAdamW(nn.Conv1d(3, 4, 1), lr=0.01)
    for optim in ("adafactor", "adamw_torch_8bit"):
        with pytest.raises(ValueError, match=f"optim is '{optim}'"):
            GeometryEncoderTrainingArguments(str(tmp_path), use_muon=True, optim=optim)


def test_the_trainer_uses_it_where_asked(tmp_path):
    sizes = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 28}
    small = {"dpt_features": 8, "dpt_out_channels": [8] * 4, "camera_num_heads": 2, "patch_embed_num_heads": 2}
    model = GapMllmVggtForReconstruction(GapMllmVggtConfig(**sizes, **small))
    options = {"learning_rate": 0.002, "adam_beta2": 0.9, "weight_decay": 0.3, "report_to": "none", "use_cpu": True}
    for use_muon in (True, False):
        args = GeometryEncoderTrainingArguments(str(tmp_path), use_muon=use_muon, **options)
        optimizer = GeometryEncoderTrainer(model, args).create_optimizer()
        assert isinstance(optimizer, MuonAndAdamW) is use_muon
        trained = {id(each) for each in model.parameters() if each.requires_grad}
        assert {id(each) for group in optimizer.param_groups for each in group["params"]} == trained
        assert {group["lr"] for group in optimizer.param_groups} == {0.002}
        assert {group["weight_decay"] for group in optimizer.param_groups} == {0.3, 0.0}
        assert all(group["betas"] == (0.9, 0.9) for group in optimizer.param_groups if "betas" in group)
