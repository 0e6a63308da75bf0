"""Builders of public data sets, one file each; `SOURCES` names them. They are imported when first asked for."""

_HERE = __name__

# Registry key -> module, class.
SOURCES = {
    "synthetic_rooms": (f"{_HERE.rpartition('.')[0]}.synthetic_rooms", "SyntheticRooms"),
    "gap_mllm": (f"{_HERE}.gap_mllm", "GapMllmSource"),
    "scannet": (f"{_HERE}.scannet", "ScannetSource"),
    "scannet_posed": (f"{_HERE}.scannet_posed", "ScannetPosedSource"),
    "embodiedscan": (f"{_HERE}.embodiedscan", "EmbodiedScanSource"),
    "arkitscenes": (f"{_HERE}.arkitscenes", "ArkitScenesSource"),
}

__all__ = ["SOURCES"]
