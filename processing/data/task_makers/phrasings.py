"""How questions are worded, as data: several phrasings of each kind, many of them with alternatives.

`<find|locate>` is one of its alternatives, `$in_first` the phrase of that name in `PHRASES`, and what stands in braces
is filled in by the makers. The first phrasing of the tasks of GAP-MLLM is not here: it is the package's own prompt
(prompts_gap_mllm.py), which the released checkpoints know; all others are our wording. Those of held_out_phrasings.py
are for measuring, and share nothing with these.
"""

_BOX_FORM = (
    "The 3D bounding box format should be [x_center, y_center, z_center, x_size, y_size, z_size, yaw, pitch, roll]."
)
_POINT_FORM = "The 3D point format should be [x, y, z]."

PHRASES = {  # what many phrasings have in common
    "mark": "{color} <cross|mark|marker|plus sign|crosshair>",
    "frame": "<frame|picture|image|view|photo>",
    "frames": "<frames|pictures|images|views|photos>",
    "in_first": "<in the camera coordinate system of the first $frame|in the coordinate system of the first camera"
    "|in the coordinates of the first <camera|view>|in the camera frame of the first <image|picture>"
    "|in the first camera's coordinate <system|frame>|relative to the <first camera|camera of the first $frame>"
    "|with the camera of the first $frame as the origin>",
    "can_you": "<Can|Could|Would> you<| please>",
    "as_point": '<|\n<Output|Return|Write|Give> a JSON dictionary with "label" and "pointmap".'
    '|\nAnswer <in|as> JSON with the keys "label" and "pointmap".<|\n$point_form>>',
    "as_boxes": '<|\n<Output|Return|Write|Give> a <json|JSON> list where each entry has "label" and "bbox_3d".'
    '|\nAnswer with a JSON list whose entries have the keys "label" and "bbox_3d".<|\n$box_form>>',
    "as_box": '<|\n<Output|Return|Write|Give> a JSON dictionary with <|the key >"bbox_3d".'
    '|\nAnswer <in|as> JSON with the key "bbox_3d".<|\n$box_form>>',
    "as_frame": '<|\n<Output|Return|Write|Give> a JSON dictionary with the <index|frame index> in "frame".'
    '|\nAnswer <in|as> JSON with the key "frame".>',
    "point_form": _POINT_FORM,
    "box_form": _BOX_FORM,
}

TEMPLATES: dict[str, tuple[str, ...]] = {
    "reconstruction": (
        "A {color} cross is drawn on one pixel of the frames.\n"
        'Name the object there in "label" and give the 3D point that the pixel shows in "pointmap", '
        f"in the camera coordinate system of the first frame, as a JSON dictionary.\n{_POINT_FORM}",
        "Look for the {color} cross in the frames. What is it on, and where is that point?\n"
        'Output a JSON dictionary with "label" and "pointmap", in the camera coordinate system of the first frame.\n'
        f"{_POINT_FORM}",
        "<What|Which object> is <under|at|marked by> the $mark, and where is <it|this point|that spot> "
        "$in_first?$as_point",
        "<Name|Identify|Label> the object <under|at|marked by> the $mark and <give|report|estimate|predict> the 3D "
        "<point|position|location> of the marked pixel $in_first.$as_point",
        "<Look at|Find|Look for> the $mark in the $frames. <What is it on|What does it mark|What does it show>, and "
        "where is that <point|spot|place> $in_first?$as_point",
        "<Please tell|Tell> me what the $mark is on and where <that point|this spot> is $in_first.$as_point",
        "$can_you <say|tell me> which object the $mark is on, and the <3D position|coordinates|3D point> of that "
        "pixel $in_first?$as_point",
        "<Object|Label|Name> and 3D <point|position> <at|under> the $mark, $in_first<|, please>.$as_point",
        "The $mark marks one pixel of the $frames. <Reconstruct|Estimate|Recover|Compute> its 3D <point|position> "
        "$in_first and <name|tell> what it <shows|belongs to>.$as_point",
        "<At which 3D point|Where in space|At what position> is the pixel under the $mark $in_first, and which "
        "object is it <a part of|on>?$as_point",
        "These $frames show one room. In one of them a pixel is marked with the $mark. <The task is to|Please> say "
        "which object this pixel <shows|belongs to> and give the <3D position|coordinates|3D point> of the pixel "
        "$in_first.$as_point",
    ),
    "marked_point": (
        "A {color} cross marks one pixel in one of the frames.\n"
        'Output a JSON dictionary with the 3D point of the marked pixel in "pointmap" '
        f"in the camera coordinate system of the first frame.\n{_POINT_FORM}",
        "Where in space is the point under the {color} cross?\n"
        'Output a JSON dictionary with its position in "pointmap", in the camera coordinate system of the first '
        f"frame.\n{_POINT_FORM}",
    ),
    "sparse_points": (
        "These crosses, each with its number, are drawn on the frames: {crosses}.\n"
        'For each of them, in the order given, tell what it is on ("label") and which 3D point it shows ("pointmap"), '
        f"in the camera coordinate system of the first frame, as a json list.\n{_POINT_FORM}",
        "Look for the numbered crosses in the frames: {crosses}. What is each of them on, and where is that point?\n"
        'Output a json list with "label" and "pointmap" of each cross, in this order, in the camera coordinate system '
        f"of the first frame.\n{_POINT_FORM}",
        "Numbered crosses: {crosses}. <What|Which object> is <under|at> each of them, and where are <they|these "
        "points> $in_first?",
        "<List|Give|Report> the label and the 3D <point|position> of each numbered cross, in order: {crosses}. "
        "<Coordinates|Points> are <those of|relative to> the first camera.",
    ),
    "marked_points": (
        "Numbered crosses mark pixels in the frames: {crosses}.\n"
        'Output a json list with one entry for each cross, in this order, that holds its 3D point in "pointmap" in '
        f"the camera coordinate system of the first frame.\n{_POINT_FORM}",
        "These crosses, each with its number, are drawn on the frames: {crosses}.\n"
        "Reconstruct the points that they mark, in the order given, in the camera coordinate system of the first "
        f'frame, as a json list of dictionaries with the key "pointmap".\n{_POINT_FORM}',
    ),
    "detection3d": (
        "Find every object that the frames show, in the camera coordinate system of the first frame.\n"
        'Output a json list where each entry contains the object name in "label" and its 3D bounding box in '
        f'"bbox_3d".\n{_BOX_FORM}',
        "List all objects in view with their 3D bounding boxes. The origin is the camera of the first frame.\n"
        f'Each entry of the json list has the keys "label" and "bbox_3d".\n{_BOX_FORM}',
        "<Detect|Find|Locate|Localize> all <|visible >objects in <the|these> $frames and <give|report|predict> their "
        "3D <bounding boxes|boxes> $in_first.$as_boxes",
        "<Which|What> objects are <there|visible> in <the|these> $frames, and what are their 3D <bounding "
        "boxes|boxes> $in_first?$as_boxes",
        "<Draw|Put|Place> a 3D <box|bounding box> around <every|each> <object|piece of furniture|thing> in the "
        "<room|scene>, $in_first.$as_boxes",
        "<Please list|List|Report> <every object|each piece of furniture> in <the room|the scene|view> with its "
        "<category|name> and its <3D bounding box|oriented 3D box> $in_first.$as_boxes",
        "$can_you <find|detect|list> all objects in <the|these> $frames with their 3D bounding boxes "
        "$in_first?$as_boxes",
        "<3D object detection|3D boxes of all objects|All objects with their 3D boxes>, $in_first<|, "
        "please>.$as_boxes",
        "What <is|stands> in this room? <Give|Report|List> the name and the 3D <bounding box|box> of each object "
        "$in_first.$as_boxes",
    ),
    "reasoning_segmentation": (
        "Which object does the text describe?\nText: {description}\n"
        'Output a json list of points on its surface, each with the object name in "label" and the 3D point in '
        f'"pointmap" in the camera coordinate system of the first frame.\n{_POINT_FORM}',
        "Mark this object with points on what the frames show of it.\nText: {description}\n"
        'Output a json list with "label" and "pointmap" of each point, in the camera coordinate system of the first '
        f"frame.\n{_POINT_FORM}",
    ),
    "grounding_frame": (
        "\nWhich frame is the first to show the object described in the text clearly?\n"
        'Text: {description}\nOutput a JSON dictionary with the frame index in "frame".\n',
        "\nGo through the frames in order and stop at the first one with a clear view of this object.\n"
        'Text: {description}\nOutput a JSON dictionary with the index of that frame in "frame".\n',
        "Which $frame is the first <|one >to show {description}<| clearly>?$as_frame",
        "In which $frame is {description} clearly visible for the first time?$as_frame",
        "<Find|Give|Name> the first $frame <that clearly shows|with a clear view of> {description}.$as_frame",
        "<Go|Look> through the $frames in order. Which one is the first with a clear view of {description}?$as_frame",
        "When does {description} first come clearly into view? Answer with the <index|number> of the $frame.$as_frame",
        "$can_you <tell me|say> which $frame is the first to show {description} clearly?$as_frame",
        "First $frame with a clear view of {description}<|, please>.$as_frame",
        "Text: {description}\n<Find|Give the index of> the first $frame in which this object is clearly "
        "visible.$as_frame",
        "<Please find|Please give|Find> the index of the first $frame in which {description} can be seen "
        "well.$as_frame",
    ),
    "grounding_box": (
        "Which object does the text describe?\nText: {description}\n"
        'Output a JSON dictionary with its 3D bounding box in "bbox_3d" in the camera coordinate system of the first '
        f"frame.\n{_BOX_FORM}\n",
        "Give the 3D bounding box of this object.\nText: {description}\n"
        'Output a JSON dictionary with the key "bbox_3d", in the camera coordinate system of the first frame.\n'
        f"{_BOX_FORM}\n",
        "<Find|Locate|Localize> {description} and <give|report|output|predict> its 3D <bounding box|box> "
        "$in_first.$as_box",
        "What is the 3D <bounding box|box> of {description} $in_first?$as_box",
        "Where is {description}? <Answer with|Give|Report> its 3D <bounding box|box> $in_first.$as_box",
        "<Please draw|Draw|Put> a 3D <bounding box|box> around {description}, $in_first.$as_box",
        "$can_you <find|locate> {description} and give its 3D <bounding box|box> $in_first?$as_box",
        "3D <bounding box|box> of {description}, $in_first<|, please>.$as_box",
        "Text: {description}\n<Find|Locate> <the object that the text describes|the object of the text|this object> "
        "and <give|report> its 3D bounding box $in_first.$as_box",
        "The $frames show {description}. Where is it, and how large is it? <Answer with|Give|Report> its 3D "
        "<bounding box|box> $in_first.$as_box",
        "I am looking for {description}. <Please give|Give> its 3D <bounding box|box> $in_first.$as_box",
    ),
    "dense_caption": (
        "\nWhat is located at {location} in the camera coordinate system of the first frame? Describe the object.",
        "\nOne object is located at {location} in the camera coordinate system of the first frame. Say what it is and "
        "where it stands.",
        "What is <at|located at|at the position|at the point> {location} $in_first?<| Describe it.| Describe the "
        "object.| Say what it is and where it stands.>",
        "<Describe|Please describe|Describe in detail|Write a caption for> the object <at|located at|with its center "
        "at|at the position> {location} $in_first.",
        "Which object <is|stands> at {location} $in_first, and what does it look like?",
        "<Look at|Consider> the object at {location} $in_first. What is it, and <where does it stand|what does it "
        "look like>?",
        "$can_you describe <the object|what is> at {location} $in_first?",
        "<Short description|Description|Caption> of the object at {location}<|, $in_first>, please.",
        "There is an object at {location} $in_first. <What is it?|Say what it is and where it stands.|Tell me about "
        "it.|Describe it.>",
        "Tell me about the <object|thing|piece of furniture> <at|located at> {location} $in_first.",
    ),
    "camera_distance": (
        "How far is the point under the {color} cross from the camera that took this frame?",
        "What is the straight distance between the {color} cross and the camera of the frame it is drawn in?",
        "A {color} cross marks a pixel. How far away from the camera is what it shows?",
        "How far away is the <point|spot|place> <under|at|marked by> the $mark from the camera?",
        "<Estimate|Give|Measure> the distance <between the camera and|from the camera to> the point <under|at> the "
        "$mark.",
    ),
    "point_distance": (
        "How far apart are the points under the {first} and the {second} cross?",
        "What is the straight distance in space between the two pixels marked by a {first} and a {second} cross?",
        "Measure from the {first} cross to the {second} cross: how long is the straight line between these points?",
        "How far is it from the {first} to the {second} <cross|mark|marker>?",
        "<Estimate|Give|Measure> the distance between the <points|spots|places> marked by the {first} and the "
        "{second} cross.",
    ),
    "object_distance": (
        "What is the distance between the center of {first} and the center of {second}?",
        "How far is the middle of {first} from the middle of {second}?",
        "Measured from center to center, how far apart are {first} and {second}?",
        "How far apart are the <centers|middles> of {first} and {second}?",
        "<Estimate|Give|Measure> the distance between {first} and {second}, from <center to center|middle to middle>.",
    ),
    "object_gap": (
        "What is the shortest distance between the 3D bounding boxes of {first} and {second}?",
        "How wide is the gap between the bounding box of {first} and that of {second}, where they come closest?",
        "Measured between the nearest points of their 3D bounding boxes, how far apart are {first} and {second}?",
        "How much <space|room|distance> is there between {first} and {second} where they are closest?",
        "<Estimate|Give|Measure> the <gap|smallest distance> between {first} and {second}, box to box.",
    ),
    "closest_object": (
        "Which of these objects is closest to {anchor}? Measure between the nearest points of the bounding boxes.",
        "Among the objects listed, which one has the smallest gap to {anchor}?",
        "One of these objects is nearest to {anchor}. Which one?",
        "Which object of the list is <closest|nearest> to {anchor}?",
        "<Pick|Choose|Name> the object that <is closest|is nearest|has the smallest distance> to {anchor}.",
    ),
    "object_size": (
        "What is the longest dimension (length, width or height) of {name}?",
        "How long is the longest side of the bounding box of {name}?",
        "Of the length, width and height of {name}, how large is the largest?",
        "How long is {name} along its longest side?",
        "<Estimate|Give|Measure> the <longest side|largest dimension|longest edge> of {name}.",
    ),
    "object_height": (
        "How tall is {name}, from its lowest to its highest point?",
        "What is the height of {name}?",
        "How much does {name} measure from bottom to top?",
        "How high is {name}?",
        "<Estimate|Give|Measure> the height of {name}.",
    ),
    "object_count": (
        'How many objects of the kind "{name}" do the frames show?',
        'Count the objects called "{name}" in these frames. Each one counts once, however many frames show it.',
        'Over all frames together, how many different objects labelled "{name}" can be seen?',
        'How many objects called "{name}" <are there|can be seen|are visible> in the <room|scene|frames>?',
        '<Count|Give the number of> all objects of the kind "{name}" in the <room|scene|frames>.',
    ),
    "depth_order": (
        "In {view}, crosses mark pixels: {colors}. In which order are these points, from nearest to the camera to "
        "farthest?",
        "Sort the points under the {colors} crosses in {view} by their distance from its camera, the nearest first.",
        "Which order of the crosses in {view} ({colors}) goes from near to far, seen from the camera of that frame?",
        "<Sort|Order|Rank> the {colors} crosses in {view} from <near to far|nearest to farthest|closest to farthest>.",
        "In {view}, what is the order of the {colors} crosses by <depth|distance from the camera>, the "
        "<closest|nearest> first?",
    ),
    "nearest_object": (
        "Which of these objects is nearest to the camera in {view}?",
        "In {view}, which of the objects listed is closest to the camera?",
        "Seen from the camera of {view}, which of these objects is the nearest?",
        "Which object <is|stands> <closest|nearest> to the camera of {view}?",
        "<Pick|Choose|Name> the object that is <closest|nearest> to the camera in {view}.",
    ),
    "left_right": (
        "In {view}, is {first} to the left or to the right of {second}?",
        "Looking at {view}: on which side of {second} does {first} appear?",
        "Where is {first} in the picture of {view}, relative to {second}?",
        "Is {first} left or right of {second} in {view}?",
        "As seen in {view}, on which side of {second} is {first}?",
    ),
    "near_far": (
        "In {view}, is {first} nearer to the camera than {second}, or farther away?",
        "Compare the distances from the camera of {view}: where is {first}, relative to {second}?",
        "Seen from the camera of {view}, how does the distance of {first} compare with that of {second}?",
        "Is {first} <closer to|nearer to> the camera of {view} than {second}, or farther from it?",
        "In {view}, which of the two is {first}: <closer to|nearer to> the camera than {second}, or farther away?",
    ),
    "front_behind": (
        "Seen from the camera of {view}, is {first} in front of {second} or behind it?",
        "In {view}, does {first} stand in front of {second} or behind it, as the camera sees them?",
        "Looking from where {view} was taken, where is {first} relative to {second}?",
        "Is {first} in front of or behind {second} in {view}?",
        "In {view}, where does {first} stand: in front of {second}, or behind it?",
    ),
    "above_below": (
        "Is {first} above or below {second}?",
        "With respect to the vertical, where is {first} relative to {second}?",
        "Does {first} lie above {second} or below it?",
        "Is {first} over or under {second}?",
        "Vertically, where is {first} <relative to|compared to> {second}?",
    ),
    "higher_lower": (
        "Is {first} higher above the floor than {second}, or lower?",
        "Compare heights above the floor: where is {first}, relative to {second}?",
        "Which holds for {first}: is it higher up or lower down than {second}?",
        "Is {first} <at a greater height|higher up> than {second}, or <lower|lower down>?",
        "<Look at|Compare> the heights of {first} and {second}. Where is {first}?",
    ),
    "facing_direction": (
        "If I stand at {position} and face {facing}, where is {target}, seen from above?",
        "Imagine standing at the place of {position} and looking towards {facing}. In which direction is {target}?",
        "From {position}, with {facing} straight ahead, in which direction does {target} lie?",
        "Standing at {position} and <facing|looking at> {facing}, <where|in which direction> is {target}?",
        "<Suppose|Assume|Imagine> that I stand at {position} and look <at|towards> {facing}. <Where|In which "
        "direction> is {target}?",
    ),
    "camera_motion": (
        "From {before} to {after}, in which direction did the camera mainly move, seen from the camera of {before}?",
        "How did the position of the camera change between {before} and {after}? Directions are those of the camera "
        "of {before}.",
        "Which way was the camera carried from {before} to {after}, as seen in {before}?",
        "<In which direction|Which way> did the camera move from {before} to {after}, as seen in {before}?",
        "The camera moved between {before} and {after}. <In which direction|Which way>, seen from {before}?",
    ),
    "camera_turn": (
        "From {before} to {after}, in which direction did the camera mainly turn?",
        "Compare where the camera looks in {before} and in {after}: which way was it turned?",
        "Which rotation takes the view of {before} towards that of {after}, seen from the camera of {before}?",
        "<In which direction|Which way> did the camera <turn|rotate> between {before} and {after}?",
        "The camera turned from {before} to {after}. <In which direction|Which way>?",
    ),
    "camera_path": (
        "How far is the camera of {before} from the camera of {after}?",
        "What is the straight distance between the places where {before} and {after} were taken?",
        "By how much did the position of the camera change between {before} and {after}?",
        "How far did the camera <move|travel> from {before} to {after}, in a straight line?",
        "<Estimate|Give|Measure> the straight distance from the camera of {before} to that of {after}.",
    ),
    "camera_angle": (
        "By which angle do the viewing directions of {before} and {after} differ?",
        "How large is the angle between the directions in which the camera looks in {before} and in {after}?",
        "Between {before} and {after}, by how many degrees did the viewing direction of the camera change?",
        "How far did the viewing direction turn from {before} to {after}?",
        "<Estimate|Give|Measure> the angle between the viewing directions of {before} and {after}.",
    ),
    "farthest_view": (
        "Which of these frames was taken farthest from the place of {view}?",
        "Among the frames listed, where was the camera farthest from where it was in {view}?",
        "Compare the places of the camera: which of these frames is the farthest away from {view}?",
        "Which frame of the list was taken <farthest from|at the greatest distance from> {view}?",
        "<Pick|Choose|Name> the frame whose camera is farthest from that of {view}.",
    ),
    "object_view": (
        "Which of these objects can be seen in {view}?",
        "{view_start} shows only one of these objects. Which one?",
        "Of the objects listed, which one is visible in {view}?",
        "Which object of the list <is visible|can be seen|appears> in {view}?",
        "<Pick|Choose|Name> the object that can be seen in {view}.",
    ),
    "view_of_object": (
        "Which of these frames shows {name}?",
        "In which of the frames listed is {name} visible?",
        "Only one of these frames has {name} in view. Which one?",
        "Where can {name} be seen? <Pick|Choose> the frame.",
        "<Pick|Choose|Name> the frame <that shows|with> {name}.",
    ),
    "appearance_order": (
        "In which order do these objects first appear in the frames: {names}?",
        "Go through the frames in order. When are {names} seen for the first time, relative to each other?",
        "Sort by first appearance in the frames: {names}.",
        "<Put|Bring> {names} into the order in which they <first appear|come into view>.",
        "Which comes into view first, and which after that: {names}?",
    ),
    "occlusion": (
        "In {view}, which of these objects hides a part of {name} from the camera?",
        "A part of {name} cannot be seen in {view}. Which object stands in front of it?",
        "Which object partly covers {name} in {view}?",
        "<What|Which object> <hides|covers|blocks> a part of {name} in {view}?",
        "<Pick|Choose|Name> the object that stands in front of {name} in {view}.",
    ),
    "point_match": (
        "The red cross in {before} marks a point. Which cross in {after} marks the same point in space?",
        "One of the crosses in {after} is on the place that the red cross in {before} shows. Which one?",
        "Find the point under the red cross of {before} again among the crosses in {after}.",
        "Which cross in {after} is on the same <point|place|spot> as the red cross in {before}?",
        "<Pick|Choose|Name> the cross of {after} that marks the same point as the red cross of {before}.",
    ),
}

CHOICE_ENDINGS = (  # besides the package's own; "right" would be taken for a direction
    "\n<Options|Choices|The choices are>:\n{options}\n<Answer with the letter only.|Answer with one letter."
    "|Reply with the letter of the correct <option|choice>.|Give the letter of the <correct|true> answer.>",
    "\n<Choose from|Pick one of|Select one of> these <options|answers>:\n{options}\n<The letter is enough."
    "|Answer with its letter.>",
    "\n{options}\n<Which letter is correct?|Answer with the letter.>",
)
