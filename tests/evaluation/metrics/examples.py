"""A right prediction and its reference, for every metric."""

POSES = [[[1.0, 0, 0, x], [0, 1.0, 0, 0], [0, 0, 1.0, 0], [0, 0, 0, 1.0]] for x in (0.0, 1.0)]
BOX = [0.0, 0, 2, 1, 1, 1, 0, 0, 0]
GOOD = {  # a right prediction and its reference
    "blink": ("B", {"answer": "(B)", "task": "Relative_Depth"}),
    "ca_vqa": ("2.5 m", {"answer": "2.5", "task": "regression"}),
    "camera_pose": (POSES, POSES),
    "captions": ("a brown chair", {"captions": ["a brown chair"], "iou": 0.7}),
    "cv_bench": ("B", {"answer": "(B)", "source": "COCO", "task": "Count"}),
    "depth": ([[1.0, 2.2]], [[1.0, 2.0]]),
    "detection3d": (f'[{{"label": "bed", "bbox_3d": {BOX}}}]', {"boxes": [{"label": "bed", "bbox_3d": BOX}]}),
    "frame_accuracy": ('{"frame": 3}', {"frames": [3], "num_frames": 32}),
    "grounding3d": (
        f'{{"frame": 0, "bbox_3d": {BOX}}}',
        {"bbox_3d": BOX, "camera_to_world": POSES, "axis_align_matrix": POSES[0]},
    ),
    "grounding_axis_aligned": (BOX[:6], BOX[:6]),
    "mmsi": ("B", {"answer": "B", "question_type": "motion"}),
    "multi3drefer": ([BOX[:6]], [BOX[:6]]),
    "reconstruction": ('{"pointmap": [0, 0, 2.5]}', {"point": [0.0, 0, 2], "scene_id": "a"}),
    "scanqa": ("brown", {"answers": ["brown"]}),
    "spar_bench": ("2.5 m", {"answer": "2.5", "task": "depth_prediction_oc"}),
    "sqa3d": ("two", {"answer": "two", "question": "How many?"}),
    "vsibench": ("B", {"answer": "B", "question_type": "route_planning"}),
    "vstibench": ("B", {"answer": "B", "question_type": "camera_movement_direction"}),
}
