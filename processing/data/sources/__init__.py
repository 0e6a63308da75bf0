"""Builders of public data sets, one file each; `SOURCES` names them. They are imported when first asked for."""

_HERE = __name__

# Registry key -> module, class.
SOURCES = {
    "synthetic_rooms": (f"{_HERE.rpartition('.')[0]}.rooms.synthetic_rooms", "SyntheticRooms"),
    "parquet": (f"{_HERE}.parquet", "ParquetSource"),
    "scanrefer": (f"{_HERE}.scanrefer", "ScanReferSource"),
    "scan2cap": (f"{_HERE}.scan2cap", "Scan2CapSource"),
    "multi3drefer": (f"{_HERE}.multi3drefer", "Multi3dReferSource"),
    "nr3d": (f"{_HERE}.nr3d", "Nr3dSource"),
    "scanqa": (f"{_HERE}.scanqa", "ScanQaSource"),
    "sqa3d": (f"{_HERE}.sqa3d", "Sqa3dSource"),
    "video3dllm": (f"{_HERE}.video3dllm", "Video3dLlmSource"),
    "vlm3r": (f"{_HERE}.vlm3r", "Vlm3rSource"),
    "gap_mllm": (f"{_HERE}.gap_mllm", "GapMllmSource"),
    "vgllm": (f"{_HERE}.vgllm", "VgllmSource"),
    "spar": (f"{_HERE}.spar", "SparSource"),
    "vsibench": (f"{_HERE}.vsibench", "VsiBenchSource"),
    "vsi590k": (f"{_HERE}.vsi590k", "Vsi590kSource"),
    "cv_bench": (f"{_HERE}.cv_bench", "CvBenchSource"),
    "blink": (f"{_HERE}.blink", "BlinkSource"),
    "mmsi": (f"{_HERE}.mmsi", "MmsiSource"),
    "scannet": (f"{_HERE}.scannet", "ScannetSource"),
    "scannet_posed": (f"{_HERE}.scannet_posed", "ScannetPosedSource"),
    "embodiedscan": (f"{_HERE}.embodiedscan", "EmbodiedScanSource"),
    "arkitscenes": (f"{_HERE}.arkitscenes", "ArkitScenesSource"),
}

__all__ = ["SOURCES"]
