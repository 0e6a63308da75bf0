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
        visible_share (`float`): of the pixels: from here on an object is visible in a view.
        clear_share (`float`): of the pixels: from here on it is clearly visible.
        absent_share (`float`): of the pixels: up to here it is not in the view; what lies between is not asked about.
        missing_share (`float`): of the rays through a box: with more of them unmeasured the object may be there.
        box_slack_m (`float`): a measured point may lie so far outside of the box it belongs to.
        box_inset_m (`float`): points within this of a side of the box that is turned away from the camera may belong
            to the floor or wall there, and are not counted (on thin boxes: a quarter of the thickness).
        edge_share (`float`): of the width: pixels that near a depth edge are not marked; at least two pixels.
        edge_bend (`float`): bend of the inverse depth that makes an edge, see `depth_edges`.
        border_share (`float`): of the picture's sides: no marks so near to the border.
        near_m, far_m (`float`): marked pixels lie within these depths.
        mark_gap_share (`float`): of the width: two marks of one view are that far apart.
        point_gap_m (`float`): marked points are that far apart in space.
        side_share (`float`): of the width: gap between the middles of what is left and what is right.
        depth_gap_m, depth_ratio (`float`): what is nearer must be so by both.
        height_gap_m (`float`): between the middles of what is above and what is below.
        touch_m (`float`): what is above may reach that far below the top of the other.
        distance_m (`float`): smallest distance or gap that is asked for.
        closer_m, closer_ratio (`float`): what is closest must be so by both.
        location_gap_m (`float`): a given location belongs to one object: no other middle is so near.
        size_ratio (`float`): the tallest or largest is so by this factor.
        whole_share (`float`): of a box inside one picture: from here on its size is asked for.
        upright_deg (`float`): a box whose third axis leans less stands upright.
        move_m, turn_deg (`float`): smallest motion of the camera that is asked for.
        max_turn_deg (`float`): turns beyond have no clear direction.
        dominance (`float`): the named direction of a motion or gap outweighs each other one by this factor.
        direction_deg (`float`): distance from the border between two directions.
        hidden_share (`float`): of an object's points known from other views: from here on it is partly hidden.
        free_share (`float`): of them: up to here another object does not hide it.
        name_groups (`tuple` of `tuple[str, ...]`): see `NAME_GROUPS`.
        structure_names (`tuple[str, ...]`): labels of boxes that no question is about.
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

__all__ = ["MARGINS", "NAME_GROUPS", "STRUCTURE_NAMES", "TaskMargins"]
