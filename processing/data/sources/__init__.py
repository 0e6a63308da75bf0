"""Sources of public data by family, each in `<family>/<name>_source.py`; `SOURCES` is the one list of them.

scannet/ holds ScanNet's scenes and the text sets about them, scans/ other scanned rooms, chat/ turns in words, bench/
benchmarks, spar/ SPAR, parquet/ what this package writes. A module is imported when its source is asked for.
"""

_FAMILIES = {
    "parquet": {"parquet": "ParquetSource"},
    "chat": {
        "gap_mllm": "GapMllmSource",
        "vgllm": "VgllmSource",
        "video3dllm": "Video3dLlmSource",
        "vlm3r": "Vlm3rSource",
        "vsi590k": "Vsi590kSource",
        "chat": "ChatSource",
    },
    "scannet": {
        "scannet": "ScannetSource",
        "scannet_posed": "ScannetPosedSource",
        "scanrefer": "ScanReferSource",
        "scan2cap": "Scan2CapSource",
        "multi3drefer": "Multi3dReferSource",
        "nr3d": "Nr3dSource",
        "scanqa": "ScanQaSource",
        "sqa3d": "Sqa3dSource",
    },
    "scans": {"embodiedscan": "EmbodiedScanSource", "arkitscenes": "ArkitScenesSource"},
    "spar": {"spar": "SparSource"},
    "bench": {
        "vsibench": "VsiBenchSource",
        "vstibench": "VstiBenchSource",
        "ca_vqa": "CaVqaSource",
        "cv_bench": "CvBenchSource",
        "blink": "BlinkSource",
        "mmsi": "MmsiSource",
    },
}

# Registry key -> module, class. Your own: SOURCES["mine"] = ("my_package.my_module", "MySource").
SOURCES = {"synthetic_rooms": (f"{__name__.rpartition('.')[0]}.rooms.synthetic_rooms", "SyntheticRooms")}
for _family, _classes in _FAMILIES.items():
    SOURCES |= {name: (f"{__name__}.{_family}.{name}_source", kind) for name, kind in _classes.items()}

# Sources that make what is asked for, and prepare nothing: registry key -> module, dataclass of their options.
RENDERED = {"rendered_rooms": (f"{__name__.rpartition('.')[0]}.rooms.rendered_rooms", "RenderedRooms")}

__all__ = ["RENDERED", "SOURCES"]
