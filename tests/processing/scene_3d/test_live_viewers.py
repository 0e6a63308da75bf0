"""rerun and viser take the scene: a recording that verifies, a server that answers. `make test-view` installs them."""

import re
import socket
import subprocess
import sys
import urllib.request

import pytest

from gap_mllm.processing.data import render_room
from gap_mllm.processing.scene_3d import Mark3D, Scene3D, scene_from_sample, serve_viser, write_rerun


@pytest.fixture(scope="module")
def scene():
    room = scene_from_sample(render_room(3).as_sample()).sample_points(2000)
    return Scene3D(room.views, room.boxes, (Mark3D("lamp", (0.5, -1.0, 2.0)),))


def test_rerun_opens_the_recording(scene, tmp_path):
    pytest.importorskip("rerun", reason="needs rerun-sdk: make test-view")
    path = write_rerun(scene, tmp_path / "scene.rrd")

    def run(command):
        words = [sys.executable, "-m", "rerun", "rrd", command, str(path)]
        return subprocess.run(words, capture_output=True, text=True, timeout=120)

    verified = run("verify")
    assert verified.returncode == 0, verified.stderr
    told = set(re.findall(r" - /(scene\S*) - ", run("print").stdout))
    assert {f"scene/points/{view}" for view in range(4)} | {"scene/predicted/points/0"} <= told
    assert {f"scene/true/{number}/label" for number in range(len(scene.boxes))} <= told
    assert {f"scene/cameras/{view}/picture" for view in range(4)} <= told


def test_viser_serves_the_scene(scene):
    pytest.importorskip("viser", reason="needs viser: make test-view")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = serve_viser(scene, port)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as answer:
            assert answer.status == 200 and b"<html" in answer.read()
    finally:
        server.stop()
