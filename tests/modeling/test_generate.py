"""generate(): every decoding mode against plain forward passes, batches, caches of earlier turns, cost of encoding."""

import copy

import pytest
import torch
from transformers import DynamicCache, GenerationConfig
from transformers.generation import candidate_generator

import gap_mllm.modeling_gap_mllm
from gap_mllm import GapMllmForPreTraining
from gap_mllm.publishing_gap_mllm import CHUNKS_TAKE_IMAGES


NEW = 6  # tokens
GREEDY = {"max_new_tokens": NEW, "do_sample": False}

needs_chunks = pytest.mark.skipif(
    not CHUNKS_TAKE_IMAGES, reason="transformers before 5.23.0 gives chunks the wrong images; refused, see below"
)


@pytest.fixture(scope="module")
def calls(model):
    """The scenes of each call of the geometry encoder since the test began."""
    calls = []
    handle = model.model.geometry.register_forward_hook(lambda _, arguments, output: calls.append(arguments[1]))
    yield calls
    handle.remove()


@pytest.fixture(autouse=True)
def fresh(model, calls):
    """What generate() leaves behind on the model must not carry from one test to the next."""
    model.model.rope_deltas = None
    calls.clear()


@pytest.fixture(scope="module")
def batch(make_inputs):
    """Left-padded rows of two views of unlike sizes, of no view, of one view, and of three."""
    return make_inputs([(64, 64), (64, 96)], [], [(96, 32)], [(32, 32)] * 3)


@pytest.fixture(scope="module")
def single(make_inputs):
    return make_inputs([(64, 64), (64, 96)])


@pytest.fixture
def video_and_image(tiny_tokenizer, to_patches):
    """One row with an image and a video of three frames, the last of which fills its temporal patch twice."""
    token = tiny_tokenizer.convert_tokens_to_ids
    pixels = torch.randint(0, 256, (4, 3, 64, 64), generator=torch.Generator().manual_seed(0)) / 255
    patches, grid = to_patches(pixels[:1])
    video_patches, video_grid = to_patches(pixels[1:])
    start, image, video, end = (
        token(f"<|{name}|>") for name in ("vision_start", "image_pad", "video_pad", "vision_end")
    )
    frame = [75, start, *[video] * 4, end]
    ids = torch.tensor([[70, start, *[image] * 4, end, *frame, *frame, 71, 72]])
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == image).int() + 2 * (ids == video).int(),
        "pixel_values": patches,
        "image_grid_thw": grid,
        "pixel_values_videos": video_patches,
        "video_grid_thw": video_grid,
    }


def extended(inputs, tokens):
    """The inputs with `tokens` (B, N) behind their text."""
    ids = inputs["input_ids"]
    return {
        **inputs,
        "input_ids": torch.cat([ids, tokens], dim=1),
        "attention_mask": torch.cat([inputs["attention_mask"], torch.ones_like(tokens)], dim=1),
        "mm_token_type_ids": torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(tokens)], dim=1),
    }


@torch.no_grad()
def greedy_by_hand(model, inputs, count=NEW):
    """Forward over everything for each token: no cache, pixels anew each time."""
    answer = inputs["input_ids"][:, :0]
    for _ in range(count):
        logits = model(**extended(inputs, answer), use_cache=False).logits[:, -1]
        answer = torch.cat([answer, logits.argmax(-1, keepdim=True)], dim=1)
    return answer


def answers(inputs, sequences):
    return sequences[:, inputs["input_ids"].shape[1] :]


def take_row(inputs, row, images):
    """One row without its padding, and its images (a slice)."""
    mask = inputs["attention_mask"][row].bool()
    taken = {name: inputs[name][row : row + 1, mask] for name in ("input_ids", "attention_mask", "mm_token_type_ids")}
    if images.stop > images.start:
        counts = inputs["image_grid_thw"].prod(-1).tolist()
        taken["pixel_values"] = torch.cat(inputs["pixel_values"].split(counts)[images])
        taken["image_grid_thw"] = inputs["image_grid_thw"][images]
    return taken


IMAGES = [slice(0, 2), slice(0, 0), slice(2, 3), slice(3, 6)]  # of the rows of `batch`


@pytest.mark.parametrize("use_cache", [True, False])
def test_greedy_equals_a_loop_without_cache(model, calls, batch, use_cache):
    got = answers(batch, model.generate(**batch, **GREEDY, use_cache=use_cache))
    assert calls == [[2, 1, 3]]  # every scene once
    assert torch.equal(got, greedy_by_hand(model, batch))


def test_rows_of_a_batch_answer_as_alone(model, batch):
    together = answers(batch, model.generate(**batch, **GREEDY))
    for row, images in enumerate(IMAGES):
        one = take_row(batch, row, images)
        assert torch.equal(answers(one, model.generate(**one, **GREEDY))[0], together[row])
    assert len({tuple(row) for row in together.tolist()}) > 1


def test_the_answer_depends_on_geometry(model, batch):
    expected = model.generate(**batch, **GREEDY)
    with model.geometry_disabled():
        plain = model.generate(**batch, **GREEDY)
    assert [torch.equal(one, other) for one, other in zip(plain, expected, strict=True)] == [False, True, False, False]


def test_samples_of_a_row_follow_its_own_distribution(model, calls, batch):
    # Scores of sampled tokens are the plain forward's, for each of the rows and of its samples.
    torch.manual_seed(0)
    out = model.generate(
        **batch,
        max_new_tokens=3,
        do_sample=True,
        top_k=0,
        num_return_sequences=3,
        output_scores=True,
        return_dict_in_generate=True,
    )
    assert calls == [[2, 1, 3]]
    sampled = answers(batch, out.sequences)
    assert len({tuple(row) for row in sampled[:3].tolist()}) > 1
    scores = torch.stack(out.scores, dim=1).log_softmax(-1)
    for index in range(12):
        one = take_row(batch, index // 3, IMAGES[index // 3])
        with torch.no_grad():
            logits = model(**extended(one, sampled[index : index + 1]), use_cache=False).logits
        torch.testing.assert_close(scores[index], logits[0, -4:-1].log_softmax(-1), rtol=1e-4, atol=1e-4)


def test_sampling_at_temperature_zero_is_greedy(model, batch):
    torch.manual_seed(0)
    sampled = model.generate(**batch, max_new_tokens=NEW, do_sample=True, temperature=1e-4, num_return_sequences=2)
    expected = model.generate(**batch, **GREEDY)
    assert torch.equal(sampled, expected.repeat_interleave(2, dim=0))


@pytest.mark.parametrize("length_penalty", [1.0, 0.0, 2.0])
def test_scores_of_beams_are_those_of_a_plain_forward(model, calls, batch, length_penalty):
    out = model.generate(
        **batch,
        **GREEDY,
        num_beams=3,
        num_return_sequences=2,
        length_penalty=length_penalty,
        output_scores=True,
        return_dict_in_generate=True,
    )
    assert calls == [[2, 1, 3]]  # once for each scene, not for each beam
    best = answers(batch, out.sequences)
    for index in range(8):
        one = take_row(batch, index // 2, IMAGES[index // 2])
        with torch.no_grad():
            logits = model(**extended(one, best[index : index + 1]), use_cache=False).logits[0, -NEW - 1 : -1]
        token_scores = logits.log_softmax(-1).gather(1, best[index][:, None])
        expected = token_scores.sum() / NEW**length_penalty
        torch.testing.assert_close(out.sequences_scores[index], expected, rtol=1e-4, atol=1e-4)
    assert (out.sequences_scores[::2] >= out.sequences_scores[1::2]).all()


@needs_chunks
@pytest.mark.parametrize("chunk", [1, 3, 7, 64])
def test_chunked_prefill_equals_one_go(model, calls, batch, chunk):
    kwargs = {**GREEDY, "output_logits": True, "return_dict_in_generate": True}
    expected = model.generate(**batch, **kwargs)
    got = model.generate(**batch, **kwargs, prefill_chunk_size=chunk)
    assert torch.equal(got.sequences, expected.sequences)
    torch.testing.assert_close(torch.stack(got.logits), torch.stack(expected.logits), rtol=1e-4, atol=1e-4)
    assert calls == [[2, 1, 3]] * 2


@needs_chunks
def test_chunked_prefill_of_a_row_with_image_and_video(model, video_and_image):
    expected = model.generate(**video_and_image, **GREEDY)
    assert torch.equal(model.generate(**video_and_image, **GREEDY, prefill_chunk_size=5), expected)


def test_chunked_prefill_is_refused_where_transformers_gets_it_wrong(
    monkeypatch, model, turns, batch, video_and_image
):
    monkeypatch.setattr(gap_mllm.modeling_gap_mllm, "CHUNKS_TAKE_IMAGES", False)
    first, whole = turns([0], [])
    text, _ = turns([], [])
    chunked = GenerationConfig(max_new_tokens=2, prefill_chunk_size=5)
    refused = pytest.raises(ValueError, match="prefill_chunk_size with images, .* needs transformers >= 5.23.0")
    for inputs in (batch, video_and_image):
        for kwargs in ({}, {"num_beams": 2}, {"do_sample": True}):
            with refused:
                model.generate(**inputs, generation_config=chunked, **kwargs)
    with refused:  # the cache holds the image
        model.generate(**whole, generation_config=chunked, past_key_values=cache_of(model, first))
    expected = model.generate(**text, **GREEDY)
    assert torch.equal(model.generate(**text, **GREEDY, prefill_chunk_size=5), expected)


def test_an_image_and_a_video_of_odd_length_in_one_row(model, calls, video_and_image):
    got = answers(video_and_image, model.generate(**video_and_image, **GREEDY))
    assert calls == [[1], [3]]
    assert torch.equal(got, greedy_by_hand(model, video_and_image))
    beams = model.generate(**video_and_image, **GREEDY, num_beams=2, num_return_sequences=2)
    assert beams.shape[0] == 2 and calls[-2:] == [[1], [3]]


def test_scene_lengths_reach_the_encoder(model, calls, single):
    kwargs = {**GREEDY, "output_logits": True, "return_dict_in_generate": True}
    by_row, joint, apart = (
        model.generate(**single, **kwargs, scene_lengths=lengths).logits[0] for lengths in (None, [2], [1, 1])
    )
    assert calls == [[2], [2], [1, 1]]
    assert torch.equal(by_row, joint) and (joint - apart).abs().max() > 0.01


def test_a_static_cache_gives_the_same(model, batch):
    got = model.generate(**batch, **GREEDY, cache_implementation="static", disable_compile=True)
    assert torch.equal(got, model.generate(**batch, **GREEDY))


def test_the_pretraining_class_generates_the_same(tiny_model, batch):
    model = tiny_model(model_class=GapMllmForPreTraining)
    plain = tiny_model()
    weights = {k: v for k, v in model.state_dict().items() if not k.startswith("point_map_heads.")}
    plain.load_state_dict(weights)
    for kwargs in ({}, {"num_beams": 2}, *[{"prefill_chunk_size": 5}] * CHUNKS_TAKE_IMAGES):
        assert torch.equal(model.generate(**batch, **GREEDY, **kwargs), plain.generate(**batch, **GREEDY, **kwargs))


# Conversations: a cache that holds the first turn


@pytest.fixture
def turns(tiny_processor, picture):
    """A function (first, second) -> inputs of the first turn and of the whole conversation; each a list of seeds."""

    def make(first, second):
        conversation, inputs = [], []
        for turn, seeds in enumerate((first, second)):
            content = [{"type": "image", "image": picture(64, 64, seed)} for seed in seeds]
            conversation.append({"role": "user", "content": [*content, {"type": "text", "text": f"what {turn}"}]})
            inputs.append(
                tiny_processor.apply_chat_template(
                    conversation,
                    add_generation_prompt=True,
                    tokenize=True,
                    return_dict=True,
                    return_tensors="pt",
                )
            )
            conversation.append({"role": "assistant", "content": [{"type": "text", "text": "ok"}]})
        return inputs

    return make


@torch.no_grad()
def cache_of(model, inputs):
    cache = DynamicCache(config=model.config.text_config)
    model.model.rope_deltas = None
    model(**inputs, past_key_values=cache, use_cache=True)
    return cache


@pytest.mark.parametrize("keeps_pixels", [True, False])
def test_a_second_question_on_a_cache_equals_the_whole_conversation(model, calls, turns, batch, keeps_pixels):
    first, whole = turns([0, 1], [])
    expected = model.generate(**whole, **GREEDY)
    cache = cache_of(model, first)
    calls.clear()
    if not keeps_pixels:
        del whole["pixel_values"]
    else:
        # Another scene in between leaves its own positions behind on the model.
        model.generate(**batch, max_new_tokens=1)
        calls.clear()
    assert torch.equal(model.generate(**whole, **GREEDY, past_key_values=cache), expected)
    assert not calls  # the cached views are not encoded again


@pytest.mark.parametrize("given", ["all", "new"])
def test_new_views_on_a_cache_with_views_are_refused(model, turns, given):
    first, whole = turns([0], [1])
    if given == "new":
        whole.update(pixel_values=whole["pixel_values"][16:], image_grid_thw=whole["image_grid_thw"][1:])
    with pytest.raises(ValueError, match="'pixel_values'.* past_key_values already holds .* without past_key_values"):
        model.generate(**whole, **GREEDY, past_key_values=cache_of(model, first))


def test_first_views_on_a_cache_of_text_work(model, turns, batch):
    first, whole = turns([], [0, 1])
    expected = model.generate(**whole, **GREEDY)
    assert torch.equal(model.generate(**whole, **GREEDY, past_key_values=cache_of(model, first)), expected)
    cache = cache_of(model, first)
    model.generate(**take_row(batch, 3, IMAGES[3]), max_new_tokens=1)  # leaves its own positions behind
    assert torch.equal(model.generate(**whole, **GREEDY, past_key_values=cache), expected)


def test_new_image_tokens_without_pixels_on_a_cache_are_refused(model, turns):
    first, whole = turns([0], [1])
    del whole["pixel_values"]
    with pytest.raises(ValueError, match="4 image or video tokens, but neither"):
        model.generate(**whole, **GREEDY, past_key_values=cache_of(model, first))


@pytest.mark.parametrize("past", [2, None])
def test_new_tokens_alone_cannot_bring_views(model, turns, past):
    first, whole = turns([], [0])
    cache = cache_of(model, {name: value[:, :past] for name, value in first.items()})
    past = cache.get_seq_length()
    for name in ("input_ids", "mm_token_type_ids"):
        whole[name] = whole[name][:, past:]
    with pytest.raises(ValueError, match="generate from the whole conversation"):
        model.generate(**whole, **GREEDY, past_key_values=cache)


def test_encoded_scene_serves_many_questions(model, calls, single):
    encoded = model.model.get_image_features(
        single["pixel_values"], single["image_grid_thw"], scene_lengths=[2], return_dict=True
    )
    rest = {name: value for name, value in single.items() if name != "pixel_values"}
    expected = model.generate(**single, **GREEDY)
    calls.clear()
    for kwargs in ({}, {"num_beams": 2}):
        got = model.generate(**rest, **GREEDY, **kwargs, mm_encoder_outputs={"image": copy.copy(encoded)})
        assert torch.equal(got, expected if not kwargs else model.generate(**single, **GREEDY, **kwargs))
    assert calls == [[2]]  # by the last comparison alone


# Token types that are not given, and assistants


@pytest.mark.parametrize("rows", [[[(64, 96)]], [[(64, 96), (64, 64)]], [[(64, 96), (64, 64)], [(32, 64)], []]])
def test_token_types_follow_from_the_tokens(model, make_inputs, rows):
    inputs = make_inputs(*rows)
    expected = model.generate(**inputs, **GREEDY)
    del inputs["mm_token_type_ids"]
    assert torch.equal(model.generate(**inputs, **GREEDY), expected)


@pytest.fixture(params=["itself", "wider", "plain"])
def assistant(request, tiny_model, model):
    if request.param == "wider":
        vision = {"out_hidden_size": 64}
        return tiny_model(text_config={"hidden_size": 64}, vision_config=vision)
    return tiny_model(use_geometry=False) if request.param == "plain" else model


def test_an_assistant_with_geometry_proposes_and_the_model_decides(model, make_inputs, assistant, monkeypatch):
    inputs = make_inputs([(64, 96), (64, 64)])
    expected = model.generate(**inputs, **GREEDY)
    proposed = []

    def record(self, input_ids, scores, num_matches):
        proposed.append((num_matches, scores.shape[1] - 1))

    monkeypatch.setattr(candidate_generator.AssistedCandidateGenerator, "update_candidate_strategy", record)
    assert torch.equal(model.generate(**inputs, **GREEDY, assistant_model=assistant), expected)
    assert proposed
    if assistant is model:  # sees the views, so that all that it proposes is right
        assert all(matches == of for matches, of in proposed)
