"""Known intrinsics, poses and depth: what reaches the model by each way, in which frame, and what is refused."""

import numpy as np
import pytest
import torch
from transformers import pipeline

from gap_mllm import GapMllmForPreTraining, GapMllmGeometryMapsConfig, KnownGeometry
from gap_mllm.processing.camera_geometry_gap_mllm import transform_points, unproject_depth, view_to_first_view
from gap_mllm.processing.data import render_room


VISION = ("pixel_values", "image_grid_thw", "mm_token_type_ids")
GREEDY = {"max_new_tokens": 4, "do_sample": False}
MAPS = {
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "layer_scale_init_value": 1.0,
    "initializer_range": 0.2,
}
SIZES = [(64, 64), (64, 96)]


def turned(angle, x=0.0):
    """A pose that turns about y and steps aside."""
    pose = torch.eye(4, dtype=torch.float64)
    cos, sin = np.cos(angle), np.sin(angle)
    pose[:3, :3] = torch.tensor([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
    pose[0, 3] = x
    return pose


def known_views(sizes=tuple(SIZES), depth=2.0):
    """Tilted planes before turned cameras, as arguments of get_geometry_features."""
    cameras = [torch.tensor([[60.0, 0, w / 2], [0, 62.0, h / 2], [0, 0, 1]]) for h, w in sizes]
    maps = [depth + torch.linspace(0, 1, w).expand(h, w) for h, w in sizes]
    poses = [turned(0.3 + 0.2 * view, 0.5 * view) for view in range(len(sizes))]
    return {"intrinsics": cameras, "poses": poses, "depth": maps}


@pytest.fixture(scope="module")
def maps_model(tiny_model):
    """Session-wide: tests must not change it. Without a teacher."""
    return tiny_model(geometry_config=GapMllmGeometryMapsConfig(**MAPS))


@pytest.fixture(scope="module")
def inputs(make_inputs):
    return make_inputs(SIZES)


def features(model, inputs, **known):
    return model.model.get_geometry_features(**{name: inputs[name] for name in VISION}, **known)


def test_points_are_those_of_the_camera_geometry():
    room = render_room(1)
    depth, poses = torch.from_numpy(room.depth_m[:3]), torch.from_numpy(room.camera_to_world[:3])
    camera = torch.from_numpy(room.intrinsics[:3]).float()
    known = KnownGeometry(camera, poses, depth)
    for frame, reference in (("first", 0), ("last", 2)):
        found = torch.stack(known.checked([(128, 128)] * 3, [3], frame).points())
        to_frame = view_to_first_view(poses, reference).float()
        expected = transform_points(to_frame, unproject_depth(depth, camera))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5, equal_nan=True)


def test_what_is_known_reaches_forward_and_generate_by_either_way(maps_model, inputs):
    known = known_views()
    given = features(maps_model, inputs, **known)
    assert given.shape == (4, 4 * 4 + 4 * 6, 32)
    logits = maps_model(**inputs, geometry_features=given).logits
    assert torch.equal(maps_model(**inputs, geometry_features=KnownGeometry(**known)).logits, logits)
    tokens = [
        maps_model.generate(**inputs, geometry_features=each, **GREEDY) for each in (given, KnownGeometry(**known))
    ]
    assert torch.equal(*tokens)
    as_numpy = {name: [np.asarray(each) for each in values] for name, values in known.items()}
    assert torch.equal(features(maps_model, inputs, **as_numpy), given)
    farther = features(maps_model, inputs, **known_views(depth=3.0))
    assert (maps_model(**inputs, geometry_features=farther).logits - logits).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["intrinsics", "poses", "depth"])
def test_each_of_them_counts_and_some_views_may_lack_it(maps_model, inputs, name):
    known = known_views()
    whole = features(maps_model, inputs, **known)
    without = {**known, name: [known[name][0], None]}
    if name == "intrinsics":
        without["depth"] = [known["depth"][0], None]
    assert not torch.equal(features(maps_model, inputs, **without), whole)
    nan = torch.full_like(known[name][1], torch.nan) if name != "depth" else None
    assert torch.equal(
        features(maps_model, inputs, **{**without, name: [known[name][0], nan]}),
        features(maps_model, inputs, **without),
    )


def test_the_world_does_not_matter_and_the_frame_is_that_of_the_config(maps_model, tiny_model, inputs):
    known, moved = known_views(), turned(1.2, 4.0)
    other = {**known, "poses": [moved @ pose for pose in known["poses"]]}
    torch.testing.assert_close(
        features(maps_model, inputs, **other), features(maps_model, inputs, **known), rtol=1e-4, atol=1e-4
    )
    last = tiny_model(geometry_config=GapMllmGeometryMapsConfig(**MAPS), reference_frame="last")
    backwards = {name: values.__class__(values) for name, values in known.items()}
    assert not torch.equal(features(last, inputs, **backwards), features(maps_model, inputs, **known))


def test_maps_at_the_size_of_another_patch(tiny_model, inputs):
    """An encoder of 14 pixels a patch gets the depth of the nearest pixels, and intrinsics to fit."""
    room = render_room(2)
    known = KnownGeometry.from_pictures(
        torch.tensor([[1, 6, 6]]), 16, [(128, 128)], room.intrinsics[:1], None, [room.depth_m[0]]
    )
    fitted = known.checked([(96, 96)], [1])
    resized = fitted.resized([(96, 96)], [(84, 84)])
    points, small = fitted.points()[0], resized.points()[0]
    place = (torch.arange(84) + 0.5) * 96 / 84 - 0.5  # centres of the small pixels in the large map
    y, x = place[:, None], place
    fx, fy = fitted.intrinsics[0][0, 0], fitted.intrinsics[0][1, 1]
    depth = small[..., 2]
    torch.testing.assert_close(small[..., 0], (x - fitted.intrinsics[0][0, 2]) / fx * depth, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(small[..., 1], (y - fitted.intrinsics[0][1, 2]) / fy * depth, rtol=1e-4, atol=1e-4)
    assert set(depth.flatten().tolist()) <= set(points[..., 2].flatten().tolist())


def test_pretraining_and_a_trained_encoder(tiny_model, inputs):
    model = tiny_model(model_class=GapMllmForPreTraining, geometry_config=GapMllmGeometryMapsConfig(**MAPS))
    known, batch = known_views(), {**inputs, "labels": inputs["input_ids"]}
    given = model(**batch, geometry_features=features(model, inputs, **known))
    direct = model(**batch, geometry_features=KnownGeometry(**known))
    assert torch.equal(given.loss, direct.loss)
    model.train()
    model(**batch, geometry_features=KnownGeometry(**known)).loss.backward()
    assert model.model.geometry.patch_embed.proj.weight.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="came although the geometry encoder is trained"):
        model(**batch, geometry_features=features(model, inputs, **known))


def changed(name, view, value):
    def change(known):
        known[name][view] = value
        return known

    return change


MIRRORED = turned(0.2)
MIRRORED[:3, 0] *= -1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed("poses", 1, MIRRORED), r"poses of view 1 is not rigid .determinant of its rotation -1\.0.*mirrored"),
        *(
            (changed("poses", 1, lost), "poses of view 1 holds NaN, infinity or a rotation of zeros.*lost tracking")
            for lost in (torch.full((4, 4), -torch.inf), torch.eye(4).fill_diagonal_(torch.nan), torch.zeros(4, 4))
        ),
        (changed("poses", 1, torch.eye(3)), r"poses of view 1 has shape \(3, 3\); expected \(4, 4\)"),
        (changed("poses", 0, None), "poses: view 0 has none, but its camera is the world of its scene"),
        (changed("depth", 1, torch.ones(64, 64)), r"depth of view 1 has shape \(64, 64\), but the view has 64 x 96"),
        (changed("depth", 0, torch.zeros(64, 64)), "depth of view 0 is invalid everywhere"),
        (changed("depth", 0, torch.full((64, 64), torch.nan)), "depth of view 0 is invalid everywhere"),
        (changed("depth", 0, torch.ones(64, 64, dtype=torch.int32)), "depth of view 0 has dtype torch.int32.*metres"),
        (changed("intrinsics", 0, torch.eye(4)), r"intrinsics of view 0 has shape \(4, 4\); expected \(3, 3\)"),
        (changed("intrinsics", 0, -torch.eye(3)), "intrinsics of view 0 is .*focal lengths above 0"),
        (
            changed("intrinsics", 0, torch.tensor([[577.0, 0, 319.5], [0, 577, 239.5], [0, 0, 1]])),
            r"intrinsics of view 0 has its principal point at \(319.5, 239.5\), far from the middle of 64 x 64",
        ),
        (changed("intrinsics", 1, None), r"The views \[1\] have depth but no intrinsics"),
        (lambda known: {**known, "depth": known["depth"][:1]}, "depth has 1 entries, but there are 2 views"),
        (lambda known: {**known, "poses": torch.eye(4)[None]}, "poses has 1 entries, but there are 2 views"),
        (lambda known: {**known, "depth": None}, "No depth is known of the views of scene 0.*teacher_config"),
        (lambda known: {}, "No depth is known of the views of scene 0.*get_geometry_features"),
    ],
)
def test_what_cannot_be_is_refused(maps_model, inputs, change, message):
    with pytest.raises(ValueError, match=message):
        features(maps_model, inputs, **change(known_views()))


def test_what_cannot_pass_it_refuses_it_by_name(model, maps_model, inputs):
    known = known_views()
    with pytest.raises(ValueError, match="GapMllmVggtModel reads pixels alone, .*'gap_mllm_geometry_maps'"):
        features(model, inputs, **known)
    with pytest.raises(ValueError, match="GapMllmVggtModel reads pixels alone"):
        model(**inputs, geometry_features=KnownGeometry(**known))
    with pytest.raises(ValueError, match=r"The model got depth, .*geometry_features=model\.model\.get_geometry"):
        maps_model(**inputs, depth=known["depth"])
    with pytest.raises(ValueError, match=r"generate\(\) got intrinsics, poses, .*KnownGeometry"):
        maps_model.generate(**inputs, intrinsics=known["intrinsics"], poses=known["poses"])
    with pytest.raises(ValueError, match="GapMllmModel got depth"):
        maps_model.model.get_image_features(**{name: inputs[name] for name in VISION}, depth=known["depth"])
    with pytest.raises(ValueError, match="No depth is known"):
        maps_model.generate(**inputs, **GREEDY)
    with pytest.raises(ValueError, match="KnownGeometry holds nothing"):
        maps_model(**inputs, geometry_features=KnownGeometry())


def test_processors_and_pipelines_refuse_it(model, tiny_processor, picture):
    messages = tiny_processor.build_messages("detection3d", [picture()])
    depth = torch.ones(1, 64, 64)
    for options in ({"depth": depth}, {"processor_kwargs": {"depth": depth}}):
        with pytest.raises(ValueError, match="The processor got depth, but hands on pixels and text alone"):
            tiny_processor.apply_chat_template(messages, tokenize=True, return_dict=True, **options)
    with pytest.raises(ValueError, match="The processor got intrinsics, poses, but"):
        tiny_processor(text="what is it?", intrinsics=[torch.eye(3)], poses=[torch.eye(4)])
    with pytest.raises(ValueError, match=r"generate\(\) got depth"):
        tiny_processor.ask(model, [messages], task="detection3d", depth=depth)
    ask = pipeline("image-text-to-text", model=model, processor=tiny_processor)
    with pytest.raises(ValueError, match="The processor got depth"):
        ask(text=messages, max_new_tokens=2, depth=depth)


def test_pictures_and_maps_must_meet():
    grid, camera = torch.tensor([[1, 6, 8]]), [torch.eye(3)]
    with pytest.raises(ValueError, match="picture 0 has 480 x 480 pixels .* but the view 96 x 128"):
        KnownGeometry.from_pictures(grid, 16, [(480, 480)], camera)
    with pytest.raises(ValueError, match="picture 0 has 480 x 640 pixels .* but its depth map 100 x 100"):
        KnownGeometry.from_pictures(grid, 16, [(480, 640)], depth=[torch.ones(100, 100)])
    with pytest.raises(ValueError, match="intrinsics has 1 entries, but there are 2 views"):
        KnownGeometry.from_pictures(grid.repeat(2, 1), 16, [(480, 640)] * 2, camera)


def test_intrinsics_belong_to_the_sizes_that_are_given_as_those_of_the_pictures():
    """ARKit's are of 1920 x 1440, whatever frames are saved at; those of 960 x 720 lie just in the middle half."""
    grid = torch.tensor([[1, 24, 32]])
    for width, height in ((1920, 1440), (960, 720)):
        camera = torch.tensor([[width, 0, (width - 1) / 2], [0, width, (height - 1) / 2], [0, 0, 1.0]])
        known = KnownGeometry.from_pictures(grid, 16, [(height, width)], [camera])
        torch.testing.assert_close(
            known.intrinsics[0], torch.tensor([[512, 0, 255.5], [0, 512, 191.5], [0, 0, 1.0]]), rtol=1e-6, atol=1e-4
        )
        with pytest.raises(ValueError, match="intrinsics of view 0 has .* 480 x 640 .*measured on, as picture_sizes"):
            KnownGeometry.from_pictures(grid, 16, [(480, 640)], [camera])
