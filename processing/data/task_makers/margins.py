"""How clear a thing must be before it is asked about: thresholds of visibility, distances and angles, in one place."""

from dataclasses import dataclass, fields, replace

from ...argument_checks import check_kinds


# One of each group may be called by the name of another, so a name of the group singles nothing out beside another.
NAME_GROUPS = (
    ("chair", "armchair", "stool", "seat"),
    ("sofa", "couch", "loveseat"),
    ("table", "desk", "counter", "nightstand", "stand"),
    ("cabinet", "cupboard", "closet", "wardrobe", "dresser", "drawer"),
    ("shelf", "bookshelf", "bookcase", "rack"),
    ("lamp", "light"),
    ("tv", "television", "monitor", "screen", "display"),
    ("bin", "trash can", "trash bin", "garbage bin", "basket", "bucket"),
    ("picture", "painting", "poster", "photo"),
    ("rug", "carpet", "mat"),
    ("pillow", "cushion"),
    ("curtain", "blinds"),
    ("box", "container", "package", "case"),
    ("bag", "backpack", "suitcase", "luggage"),
)
# No objects that one could point at; VG-LLM's detection data leaves the first four out too.
STRUCTURE_NAMES = ("wall", "ceiling", "floor", "object", "room", "unknown", "other", "otherstructure")


@dataclass(frozen=True)
class TaskMargins:
    """Thresholds of the task makers. Source: our choice.

    Units: metres, degrees, shares of a picture's pixels or width, ratios.

    Args:
        visible_share (`float`, defaults to 0.004): share of the pixels from which on an object is visible in a view.
        clear_share (`float`, defaults to 0.012): share of the pixels from which on it is clearly visible.
        absent_share (`float`, defaults to 0.0005): share of the pixels up to which it is not in the view; what lies
            between is not asked about.
        missing_share (`float`, defaults to 0.05): share of the rays through a box that may be unmeasured; with more
            the object may be there.
        box_slack_m (`float`, defaults to 0.03): metres by which a measured point may lie outside of the box it belongs
            to.
        box_inset_m (`float`, defaults to 0.05): metres from a side of the box that is turned away from the camera
            within which points may belong to the floor or wall there, and are not counted (on thin boxes: a quarter of
            the thickness).
        edge_share (`float`, defaults to 0.005): share of the width within which of a depth edge no pixels are marked;
            at least two pixels.
        edge_bend (`float`, defaults to 0.05): bend of the inverse depth that makes an edge, see `depth_edges`.
        border_share (`float`, defaults to 0.03): share of the picture's sides within which of the border nothing is
            marked.
        near_m (`float`, defaults to 0.3), far_m (`float`, defaults to 10.0): depths in metres between which marked
            pixels lie.
        mark_gap_share (`float`, defaults to 0.1): share of the width by which two marks of one view are apart at
            least.
        point_gap_m (`float`, defaults to 0.3): metres by which marked points are apart in space at least.
        side_share (`float`, defaults to 0.08): share of the width between the middles of what is left and what is
            right.
        depth_gap_m (`float`, defaults to 0.3), depth_ratio (`float`, defaults to 1.15): metres and factor by both of
            which what is nearer must be so.
        height_gap_m (`float`, defaults to 0.2): metres between the middles of what is above and what is below.
        touch_m (`float`, defaults to 0.02): metres that what is above may reach below the top of the other.
        distance_m (`float`, defaults to 0.2): smallest distance or gap in metres that is asked for.
        closer_m (`float`, defaults to 0.3), closer_ratio (`float`, defaults to 1.25): metres and factor by both of
            which what is closest must be so.
        location_gap_m (`float`, defaults to 0.2): metres around a given location within which no other object has its
            middle.
        size_ratio (`float`, defaults to 1.25): factor by which the tallest or largest is so.
        whole_share (`float`, defaults to 0.9): share of a box inside one picture from which on its size is asked for.
        upright_deg (`float`, defaults to 10.0): degrees that the third axis of an upright box may lean.
        move_m (`float`, defaults to 0.15), turn_deg (`float`, defaults to 10.0): smallest motion of the camera that is
            asked for, in metres and degrees.
        max_turn_deg (`float`, defaults to 120.0): degrees beyond which turns have no clear direction.
        dominance (`float`, defaults to 2.0): factor by which the named direction of a motion or gap outweighs each
            other one.
        direction_deg (`float`, defaults to 15.0): degrees between a direction and the border to the next.
        hidden_share (`float`, defaults to 0.15): share of an object's points known from other views from which on it
            is partly hidden.
        free_share (`float`, defaults to 0.01): share of them up to which another object does not hide it.
        name_groups (`tuple` of `tuple[str, ...]`, defaults to `NAME_GROUPS`): see `NAME_GROUPS`.
        structure_names (`tuple[str, ...]`, defaults to `STRUCTURE_NAMES`): labels of boxes that no question is about.
    Raises:
        TypeError: if a value is of another type.
        ValueError: if a number is not positive, a ratio is below 1, a share is above 1, or the three visibility
            shares do not ascend.
    """

    visible_share: float = 0.004
    clear_share: float = 0.012
    absent_share: float = 0.0005
    missing_share: float = 0.05
    box_slack_m: float = 0.03
    box_inset_m: float = 0.05
    edge_share: float = 0.005
    edge_bend: float = 0.05
    border_share: float = 0.03
    near_m: float = 0.3
    far_m: float = 10.0
    mark_gap_share: float = 0.1
    point_gap_m: float = 0.3
    side_share: float = 0.08
    depth_gap_m: float = 0.3
    depth_ratio: float = 1.15
    height_gap_m: float = 0.2
    touch_m: float = 0.02
    distance_m: float = 0.2
    closer_m: float = 0.3
    closer_ratio: float = 1.25
    location_gap_m: float = 0.2
    size_ratio: float = 1.25
    whole_share: float = 0.9
    upright_deg: float = 10.0
    move_m: float = 0.15
    turn_deg: float = 10.0
    max_turn_deg: float = 120.0
    dominance: float = 2.0
    direction_deg: float = 15.0
    hidden_share: float = 0.15
    free_share: float = 0.01
    name_groups: tuple[tuple[str, ...], ...] = NAME_GROUPS
    structure_names: tuple[str, ...] = STRUCTURE_NAMES

    def __post_init__(self):
        check_kinds(TaskMargins, vars(self))
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is not float:
                continue
            is_ratio = field.name.endswith("_ratio") or field.name == "dominance"
            low, high = (1, float("inf")) if is_ratio else (0, 1 if field.name.endswith("_share") else float("inf"))
            if not (low <= value <= high and value > 0):
                raise ValueError(f"{field.name} is {value}; expected more than 0, at least {low} and at most {high}.")
        shares = (self.absent_share, self.visible_share, self.clear_share)
        if not shares[0] < shares[1] < shares[2]:
            raise ValueError(f"absent_share, visible_share and clear_share are {shares}; expected ascending numbers.")

    def scaled(self, factor: float) -> "TaskMargins":
        """The same margins for a scene whose lengths are in another unit, of which a metre has `factor`."""
        lengths = {field.name: factor * getattr(self, field.name) for field in fields(self) if field.name[-2:] == "_m"}
        return replace(self, **lengths)


MARGINS = TaskMargins()  # where nothing else is said
