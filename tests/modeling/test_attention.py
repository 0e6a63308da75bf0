"""Which attention each part of a model runs: by default the best that can, or what the user says, or a refusal."""

import pytest
import torch
from torch.nn import functional as F
from transformers import AttentionInterface, AutoModel

import gap_mllm
from gap_mllm import GapMllmConfig, GapMllmForConditionalGeneration, best_attn_implementation
from gap_mllm.pretrained_gap_mllm import PARTS, set_attention


@pytest.fixture(scope="module")
def batch(make_inputs):
    return make_inputs([(64, 64), (64, 64)])


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def pretend(monkeypatch):
    """A function (installed, generation): as if there were a GPU, and these versions of FlashAttention."""

    def make(installed=(2,), generation=8):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (generation, 0))
        for version in (2, 3, 4):
            name = f"is_flash_attn_{version}_available"
            monkeypatch.setattr(gap_mllm.pretrained_gap_mllm, name, lambda version=version: version in installed)

    return make


@pytest.fixture
def asked(monkeypatch):
    """What models are told to attend with, instead of doing so: the kernels are not there."""
    calls = []
    monkeypatch.setattr(
        GapMllmForConditionalGeneration, "set_attn_implementation", lambda self, asked: calls.append(asked)
    )
    return calls


def attention_of(model):
    parts = {part: getattr(model.model, name).config for part, name in PARTS.items()}
    return {part: config._attn_implementation for part, config in parts.items()}


@torch.no_grad()
def test_attention_is_chosen_for_each_part(folder, model, batch):
    parts = {"": "sdpa", "geometry_config": "eager", "gap_fusion_config": "eager", "vision_config": "eager"}
    loaded = AutoModel.from_pretrained(folder, attn_implementation=parts)
    assert attention_of(loaded) == {
        "text_config": "sdpa",
        "vision_config": "eager",
        "geometry_config": "eager",
        "gap_fusion_config": "eager",
    }
    assert loaded.model.geometry.frame_blocks[0].attn.config._attn_implementation == "eager"
    torch.testing.assert_close(loaded(**batch).logits, model(**batch).logits, rtol=1e-3, atol=1e-4)
    loaded.set_attn_implementation({"geometry_config": "sdpa", "text_config": "eager"})
    assert loaded.model.geometry.frame_blocks[0].attn.config._attn_implementation == "sdpa"
    assert attention_of(loaded)["text_config"] == attention_of(loaded)["vision_config"] == "eager"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"language_model": "sdpa"}, r"\['language_model'\], which are no parts .* text_config .* gap_fusion_config"),
        ("vllm", "encodes each view alone"),
        ({"text_config": "vllm"}, "encodes each view alone"),
    ],
)
def test_attention_that_would_not_be_followed_is_refused(folder, model, wrong, message, monkeypatch):
    monkeypatch.setitem(AttentionInterface._global_mapping, "vllm", lambda *args, **kwargs: None)  # as vLLM does
    with pytest.raises(ValueError, match=message):
        AutoModel.from_pretrained(folder, attn_implementation=wrong)
    with pytest.raises(ValueError, match=message):
        AutoModel.from_config(GapMllmConfig.from_pretrained(folder), attn_implementation=wrong)
    with pytest.raises(ValueError, match=message):
        model.set_attn_implementation(wrong)


def test_vllm_that_tells_the_language_model_alone_is_refused(folder, monkeypatch):
    monkeypatch.setitem(AttentionInterface._global_mapping, "vllm", lambda *args, **kwargs: None)
    config = GapMllmConfig.from_pretrained(folder)
    config.text_config._attn_implementation = "vllm"
    with pytest.raises(ValueError, match="encodes each view alone"):
        AutoModel.from_config(config)


@pytest.mark.parametrize(
    ("installed", "generation", "dtype", "expected"),
    [
        ((2, 3, 4), 9, torch.bfloat16, "flash_attention_4"),
        ((2, 3, 4), 10, torch.float16, "flash_attention_4"),
        ((2, 3), 9, torch.bfloat16, "flash_attention_3"),
        ((2, 3), 10, torch.bfloat16, "flash_attention_2"),
        ((2, 3, 4), 8, torch.bfloat16, "flash_attention_2"),
        ((2, 3, 4), 7, torch.float16, "sdpa"),
        ((2, 3, 4), 9, torch.float32, "sdpa"),
        ((), 9, torch.bfloat16, "sdpa"),
    ],
)
def test_the_best_attention_on_a_gpu(pretend, installed, generation, dtype, expected):
    pretend(installed, generation)
    assert best_attn_implementation("cuda:0", dtype) == expected
    assert best_attn_implementation(torch.device("cpu"), dtype) == "sdpa"


def test_every_part_gets_the_best_for_its_own_dtype(pretend, asked, tiny_model):
    pretend()
    model = tiny_model()
    set_attention(model, device="cuda")
    assert not asked  # float32
    set_attention(model, device="cuda", autocast_dtype=torch.bfloat16)  # which the encoder leaves
    flash = dict.fromkeys(["", *PARTS], "flash_attention_2")
    assert asked.pop() == {**flash, "geometry_config": "sdpa"}
    model.model.geometry.to(torch.bfloat16)
    set_attention(model, device="cuda", autocast_dtype=torch.bfloat16)
    assert asked.pop() == flash


def test_an_encoder_that_knows_no_such_attention_keeps_its_own(pretend, asked, tiny_model, monkeypatch):
    model = tiny_model().to(torch.bfloat16)
    for knows, expected in (("_supports_flash_attn", "sdpa"), ("_supports_sdpa", "eager")):
        monkeypatch.setattr(type(model.model.geometry), knows, False)
        model.model.geometry.config._attn_implementation_internal = "eager"
        pretend()
        set_attention(model, device="cuda")
        assert asked.pop()["geometry_config"] == expected
        assert asked == []


def test_from_pretrained_chooses_where_the_weights_lie(pretend, asked, folder, monkeypatch):
    pretend()
    where = torch.device("cpu")
    monkeypatch.setattr(
        gap_mllm.pretrained_gap_mllm, "_device_and_dtype", lambda part, module, *given: (where, module.dtype)
    )
    AutoModel.from_pretrained(folder, dtype="bfloat16")
    assert not asked
    where = torch.device("cuda")
    AutoModel.from_pretrained(folder, dtype="bfloat16")
    assert asked.pop()["text_config"] == "flash_attention_2"
    AutoModel.from_pretrained(folder)
    assert not asked  # float32, as the checkpoint says
    AutoModel.from_pretrained(folder, dtype="bfloat16", attn_implementation="eager")
    config = GapMllmConfig.from_pretrained(folder, attn_implementation="eager")
    loaded = AutoModel.from_pretrained(folder, config=config, dtype="bfloat16")
    assert not asked and set(attention_of(loaded).values()) == {"eager"}  # the user's word


def test_flash_attention_that_cannot_run_is_refused(tiny_model):
    model = tiny_model()
    with pytest.raises(ValueError, match="text_config would run in torch.float32 on cpu. Give dtype='bfloat16'"):
        set_attention(model, "flash_attention_2")
    with pytest.raises(ValueError, match="geometry_config would run in torch.float32 on cuda.*'geometry_config': 's"):
        set_attention(model, "flash_attention_2", "cuda", torch.bfloat16)
    with pytest.raises(ImportError, match="FlashAttention2"):
        set_attention(model.to(torch.bfloat16), "flash_attention_2", "cuda")
    with pytest.raises(ValueError, match='"fast"` is not supported'):
        set_attention(model, "fast")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@torch.no_grad()
def test_the_best_attention_runs_on_a_gpu_in_bf16(tiny_model, batch):
    model = tiny_model()
    expected = model(**batch).logits
    # FlashAttention needs heads of a multiple of 8, which all parts of the tiny model have.
    set_attention(model.to("cuda", torch.bfloat16))
    logits = model(**batch.to("cuda")).logits.float().cpu()
    mask = batch["attention_mask"].bool().cpu()
    similarity = F.cosine_similarity(logits[mask], expected[mask], dim=-1)
    assert similarity.min() > 0.95  # bf16 has 8 bits; the tiny random model has no margin to lose
