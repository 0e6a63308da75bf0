"""Wordings that are for measuring only: nothing may be trained on them, and phrasings.py takes nothing from them.

They are written as people ask who know the task, and not our prompts: other words, other order, with a reason or none.
"""

HELD_OUT: dict[str, tuple[str, ...]] = {
    "reconstruction": (
        "I put a small {color} X somewhere in these shots. What did I hit, and how far to the right, down and ahead "
        "of the opening shot's camera is it?",
        "Take the spot highlighted in {color}. I need the thing it sits on plus its xyz, first camera = origin.",
        "{color} cross -> class + xyz?",
        "Our robot must reach whatever carries the {color} sign. Report the target's category and the goal position; "
        "the axes start where image number one was shot.",
        "Identify whatever the {color} symbol overlaps, then localise that exact surface point in the reference "
        "camera's space. Output format: json.",
        "If a laser were aimed at the {color} cross, what would it strike, and at which coordinates as the first view "
        "has them?",
        "Unproject the pixel carrying the {color} tag (metres, OpenCV axes, camera 0) and add its semantic class.",
        "Hi! There's something drawn in {color} on one of the stills. What's beneath it, and whereabouts in space is "
        "that? Thanks.",
    ),
    "detection3d": (
        "What furniture do we have here, and how big is each item? I need cuboids with rotation, in the first "
        "camera's axes.",
        "Run a 3D detector on this clip; coordinates live in camera 0.",
        "Make an inventory of the place: every item with centre, dimensions and Euler angles, all with respect to the "
        "opening shot.",
        "Boxes, please! All of them, with names.",
        "I would like to rebuild this interior in a simulator. Which items does it need, and which oriented cuboids "
        "enclose them?",
        "For an augmented reality app: enumerate the physical things present together with tight volumes, expressed "
        "in the initial view. json only.",
        "Tell the robot about anything it might bump into, as labelled 9-DoF boxes.",
        "Could someone go over these stills and note down each item's name, size and pose?",
    ),
    "grounding_frame": (
        "I want a thumbnail of {description}. Which shot comes first among those that would do?",
        "At what index does the video begin to give an unobstructed look at {description}?",
        "{description}: earliest good frame?",
        "Scroll from the start and tell me the number at which to pause to have {description} properly in sight.",
        "Return the id of the earliest still on which one recognises {description} without trouble, as json.",
        "Our annotators want to know when {description} is caught by the camera for the first time. Which number do "
        "they jot down?",
    ),
    "grounding_box": (
        "How big is {description}, how is it turned, and where? One cuboid in the first camera's axes will do.",
        "Target: {description}. Enclose it tightly in 3D.",
        "The gripper should move around {description}; what volume must it avoid, as seen by camera 0?",
        "We were told to measure {description}. Write down centre, extents and angles with respect to image number "
        "one.",
        "{description} -> 9-DoF cuboid, json.",
        "Somebody mentioned {description}. Can the pictures tell where it stands and how much space it takes?",
        "Fit an oriented cuboid to {description} (reference: opening shot).",
    ),
    "dense_caption": (
        "Fly to {location}, with the opening shot as the reference. What would I bump into there?",
        "A robot reports contact at {location} (camera 0). Explain to its owner what it has met.",
        "{location} -> one-line caption, please.",
        "Suppose a blind visitor asks what occupies {location} in the first camera's axes. What do we say?",
        "Which furnishing is centred around {location}? A sentence about its colour, size or neighbours helps.",
        "I only have the coordinates {location} of an item here. Give me words for it.",
    ),
    "sparse_points": (
        "There are several little signs on these stills, namely {crosses}. For every one of them I need the item "
        "beneath and its xyz in camera 0.",
        "Unproject all tags ({crosses}) and add classes, as a json array.",
    ),
    "marked_point": ("Unproject the pixel carrying the {color} tag, camera 0.", "{color} cross -> xyz?"),
    "marked_points": ("Unproject all tags ({crosses}), camera 0.", "xyz of every sign ({crosses}), in a json array?"),
    "reasoning_segmentation": (
        "Touch {description} in a few places and tell me where each touch would be, camera 0.",
        "Sample some surface points of this: {description}. Output: json.",
    ),
    "camera_distance": (
        "If I walked from the lens straight to what the {color} cross sits on, how far would that be?",
        "Range to the {color} tag?",
    ),
    "point_distance": (
        "A string is stretched from the {first} tag to the {second} one. What is its length?",
        "Gap between what the {first} and {second} signs are on?",
    ),
    "object_distance": (
        "From the heart of {first} to the heart of {second}: what does a tape measure say?",
        "Center distance {first} - {second}?",
    ),
    "object_gap": (
        "How wide a robot could pass between {first} and {second}?",
        "What clearance is left between {first} and {second}?",
    ),
    "closest_object": (
        "Which of the following would {anchor} touch first if it grew in all directions?",
        "Nearest neighbour of {anchor}?",
    ),
    "object_size": (
        "I must carry {name} through a corridor. What is its greatest extent?",
        "Greatest side of {name}?",
    ),
    "object_height": ("Up to where does {name} rise, counted from its own lowest end?", "Vertical extent of {name}?"),
    "object_count": (
        'I was told to count. So how often does "{name}" occur in here?',
        '"{name}": how many pieces altogether?',
    ),
    "depth_order": (
        "A ray goes out from the camera in {view}. Line the {colors} signs up by how soon it gets to them.",
        "Depth ranking of {colors} in {view}?",
    ),
    "nearest_object": (
        "Stretch out an arm at the camera of {view}. Which of these would one get hold of first?",
        "Smallest depth in {view}?",
    ),
    "left_right": (
        "Reading {view} like a line of text, does {first} come earlier or later than {second}? Say it as a side.",
        "{first} vs {second} in {view}: which side?",
    ),
    "near_far": (
        "With the eyes of the camera in {view}: does {first} have more or less depth than {second}?",
        "{first} vs {second} in {view}: depth?",
    ),
    "front_behind": (
        "In {view}, would {first} cover {second}, or be covered by it?",
        "{first} vs {second} in {view}: who is in front?",
    ),
    "above_below": (
        "If {first} fell, would it land on {second}, or is it underneath?",
        "{first} vs {second}: which way along gravity?",
    ),
    "higher_lower": (
        "With a spirit level at hand: does {first} begin at a higher or a lower level than {second}?",
        "{first} vs {second}: elevation?",
    ),
    "facing_direction": (
        "My back is against {position} and my nose points to {facing}. Where do I turn to for {target}?",
        "Position {position}, heading {facing}: bearing of {target}?",
    ),
    "camera_motion": (
        "Whoever held the camera took a step between {before} and {after}. Which one, in terms of {before}?",
        "Translation {before} to {after}?",
    ),
    "camera_turn": (
        "Whoever held the camera swung it between {before} and {after}. How?",
        "Rotation {before} to {after}?",
    ),
    "camera_path": (
        "How long is the line that joins the two places where {before} and {after} were shot?",
        "Baseline of {before} and {after}?",
    ),
    "camera_angle": (
        "How much did the optical axis swing from {before} to {after}?",
        "Angle of the optical axes of {before} and {after}?",
    ),
    "farthest_view": (
        "Starting at the tripod of {view}, the longest walk leads to the tripod of which frame?",
        "Greatest baseline with {view}?",
    ),
    "object_view": ("What is caught by the camera in {view}?", "{view_start} contains which of these?"),
    "view_of_object": ("I need evidence of {name}. Which frame has it?", "{name}: which frame?"),
    "appearance_order": (
        "Scroll from the start. In what succession do we meet {names}?",
        "Chronology of {names}?",
    ),
    "occlusion": (
        "What should be carried away to get the whole of {name} into {view}?",
        "Occluder of {name} in {view}?",
    ),
    "point_match": (
        "The red sign of {before} is stuck to the scene. Which sign of {after} is stuck to that very place?",
        "Correspondence of the red cross, {before} to {after}?",
    ),
}
HELD_OUT_CHOICE_ENDINGS = (
    "\nPossible replies:\n{options}\nJust type A, B, C or whichever fits.",
    "\nMultiple choice:\n{options}\nYour pick?",
    "\n{options}\nRespond with a single capital letter and nothing else.",
)
