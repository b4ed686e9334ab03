from __future__ import annotations

import base64
import dataclasses
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from matcher.errors import InputError
from matcher.reconstruction import Reconstruction
from matcher.reconstruction.point_cloud import PointCloud
from matcher.reconstruction.scene_layout import (
    Viewpoint,
    frustum_colors,
    frustum_corners,
    frustum_depth,
    level_from_world,
    three_quarter_view,
    up_direction,
)
from matcher.reconstruction.still import draw_cloud
from matcher.reconstruction.viewer import write_html
from matcher.structures import ImageSize, Pose
from tests.unit.reconstruction.rendered import plane_cameras, plane_reconstruction, rendered

STRAIGHT = Viewpoint(np.array([0.0, 0, -10]), np.zeros(3), np.array([0.0, -1, 0]), 60.0)


def cloud_of(positions, colors):
    return PointCloud(
        np.array(positions, dtype=float), np.array(colors, np.uint8), np.ones(len(positions), "f4")
    )


def in_picture(view, points, aspect):
    """(M, 2) in [-1, 1] inside the picture."""
    seen = (points - view.eye) @ view.axes.T
    half = np.tan(np.radians(view.field_of_view_deg) / 2) * np.array([aspect, 1])
    assert (seen[:, 2] > 0).all()
    return seen[:, :2] / seen[:, 2:] / half


# The layout


def test_up_is_what_the_cameras_x_axes_leave():
    """The rendered cameras look down; their mean own up is tilted, the ground is not."""
    around = rendered((0.0, 90.0, 180.0, 270.0)).images
    np.testing.assert_allclose(up_direction(around), [0, 0, 1], atol=1e-6)
    few = rendered((0.0, 25.0)).images
    assert up_direction(few) @ [0, 0, 1] > np.cos(np.radians(3))
    # One camera has only its own.
    one = rendered((0.0,)).images[0]
    np.testing.assert_allclose(up_direction([one]), -one.cam_from_world.rotation[1], atol=1e-9)
    np.testing.assert_array_equal(up_direction([]), [0, -1, 0])


def test_up_turns_with_the_world():
    images = rendered((0.0, 90.0, 180.0, 270.0)).images
    turn = Rotation.from_euler("xyz", [0.3, 2.0, -1.1]).as_matrix()
    turned = [
        dataclasses.replace(
            image,
            cam_from_world=Pose(
                image.cam_from_world.rotation @ turn.T, image.cam_from_world.translation
            ),
        )
        for image in images
    ]
    np.testing.assert_allclose(up_direction(turned), turn @ [0, 0, 1], atol=1e-6)
    level = level_from_world(turned)
    np.testing.assert_allclose(level @ level.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(level) == pytest.approx(1)
    np.testing.assert_allclose(level[1], turn @ [0, 0, 1], atol=1e-6)


def test_a_frustum_is_the_photographs_view():
    image = plane_cameras(1)[0]
    corners = frustum_corners(image, 2.0)
    np.testing.assert_allclose(corners[0], 0)
    np.testing.assert_allclose(corners[1:5, 2], 2)
    # 160 x 120 px at focal 300, the principal point in the middle.
    np.testing.assert_allclose(np.abs(corners[1:5, 0]), 2 * 80 / 300)
    np.testing.assert_allclose(corners[1, :2], [-160 / 300, -120 / 300])
    np.testing.assert_allclose(corners[3, :2], [160 / 300, 120 / 300])
    assert corners[5, 1] < corners[1, 1]  # the tip is above
    cameras = plane_cameras(4)
    assert frustum_depth(cameras, np.zeros((0, 3))) == pytest.approx(np.sqrt(2) * 150 / 3)
    assert frustum_depth(cameras[:1], np.zeros((0, 3))) == 1
    colors = frustum_colors(5)
    assert len(np.unique(colors, axis=0)) == 5
    assert (colors.min(axis=1) < 120).all()  # none is pale
    assert frustum_colors(0).shape == (0, 3)


@pytest.mark.parametrize("aspect", [0.7, 1.0, 16 / 9])
def test_the_view_holds_points_and_cameras(aspect):
    scene = rendered()
    points = scene.cloud().positions
    view = three_quarter_view(scene.images, points, aspect)
    centers = np.array([image.center for image in scene.images])
    assert np.abs(in_picture(view, centers, aspect)).max() < 1
    placed = np.abs(in_picture(view, points[(points - view.eye) @ view.axes[2] > 0], aspect))
    assert np.mean(placed.max(axis=1) < 1) > 0.93
    assert np.quantile(placed, 0.99) > 0.6  # and they fill it
    # From above and behind: the cameras look away from the viewer.
    assert (view.eye - view.target) @ view.up > 0
    assert all(
        image.cam_from_world.rotation[2] @ (view.target - view.eye) > 0 for image in scene.images
    )


def test_a_view_of_little():
    for images, points in (
        ((), np.zeros((0, 3))),
        ((), np.ones((1, 3))),
        (plane_cameras(1), np.zeros((0, 3))),
    ):
        view = three_quarter_view(images, points, 1.5)
        assert np.isfinite(view.axes).all()
        assert draw_cloud(PointCloud.empty(), images, size=ImageSize(30, 40)).shape == (30, 40, 3)


# The still


def test_the_nearest_point_is_seen_where_it_projects():
    size = ImageSize(101, 151)
    cloud = cloud_of(
        [[0, 0, 0], [0, 0, 5], [2, -1, 0], [0, 0, -11]],
        [[200, 0, 0], [0, 0, 200], [0, 200, 0], [9, 9, 9]],
    )
    picture = draw_cloud(cloud, size=size, viewpoint=STRAIGHT, point_px=3).astype(int)
    assert picture[50, 75].tolist() == pytest.approx([200, 0, 0], abs=12)
    focal = 101 / 2 / np.tan(np.radians(30))
    right, above = round(75 + 2 / 10 * focal), round(50 - 1 / 10 * focal)
    assert picture[above, right].argmax() == 1
    colored = np.ptp(picture, axis=2) > 60
    assert 8 < colored.sum() < 60
    # Nothing else than two points and the ground, which is light.
    assert picture[~colored].mean() > 225


def test_points_behind_are_shaded():
    """A disc of points in front of a wall leaves a dark rim on the wall."""
    y, x = np.mgrid[-3:3:200j, -3:3:200j]
    wall = np.stack([x, y, np.full_like(x, 4.0)], -1).reshape(-1, 3)
    front = wall[np.hypot(wall[:, 0], wall[:, 1]) < 1] - [0, 0, 4]
    cloud = cloud_of(np.concatenate([wall, front]), np.full((len(wall) + len(front), 3), 200))
    picture = draw_cloud(cloud, size=ImageSize(120, 120), viewpoint=STRAIGHT, point_px=3)
    assert np.median(picture[50:70, 50:70]) == 200
    assert picture[60].min() < 150
    assert np.median(picture[20:30, 40:80]) > 190


def test_cameras_are_drawn_and_hidden():
    images = plane_cameras(2)
    size = ImageSize(90, 120)
    without = draw_cloud(PointCloud.empty(), size=size)
    drawn = draw_cloud(PointCloud.empty(), images, size=size)
    assert (np.abs(drawn.astype(int) - without).max(axis=2) > 60).sum() > 60
    assert len(np.unique(without[:, 0], axis=0)) > 5  # a gentle ramp
    with pytest.raises(InputError, match="point_px"):
        draw_cloud(PointCloud.empty(), point_px=0)


def test_a_reconstruction_draws_itself(tmp_path):
    scene = rendered((0.0, 12.0))
    picture = scene.draw(tmp_path / "a.png", size=ImageSize(120, 160))
    with Image.open(tmp_path / "a.png") as opened:
        np.testing.assert_array_equal(np.asarray(opened), picture)
    np.testing.assert_array_equal(scene.draw(size=ImageSize(120, 160)), picture)
    with pytest.raises(InputError, match="path"):
        scene.draw(tmp_path / "a.xyz")
    scene.write_ply(tmp_path / "a.ply")
    scene.write_glb(tmp_path / "a.glb")
    assert (
        b"comment world frame of the reconstruction, an arbitrary unit"
        in (tmp_path / "a.ply").read_bytes()
    )
    assert len(list(tmp_path.iterdir())) == 3


# The page


def scene_of(path):
    text = path.read_text("utf-8")
    return json.loads(re.search(r'id="scene">(.*?)</script>', text, re.DOTALL)[1]), text


def test_the_page_holds_the_scene(tmp_path):
    scene = plane_reconstruction()
    scene = dataclasses.replace(
        scene, unregistered={"x</script><b>.jpg": "sees <nothing>"}, model="small", licence="MIT"
    )
    cloud = scene.cloud()
    write_html(tmp_path / "a.html", scene, cloud, title="A & B", max_points=500)
    values, text = scene_of(tmp_path / "a.html")
    cells = np.frombuffer(base64.b64decode(values["positions"]), "<u2").reshape(-1, 3)
    colors = np.frombuffer(base64.b64decode(values["colors"]), np.uint8).reshape(-1, 3)
    shown = cloud.thinned(500)
    np.testing.assert_array_equal(colors, shown.colors)
    middle = (shown.positions.min(0) + shown.positions.max(0)) / 2
    placed = np.array(values["low"]) + cells / 65535 * np.array(values["span"]) + middle
    step = np.ptp(shown.positions, axis=0).max() / 65535
    np.testing.assert_allclose(placed, shown.positions, atol=step)
    assert values["about"] == f"4 photographs, {len(cloud)} points (500 shown); small (MIT)"
    assert values["missing"] == [["x</script><b>.jpg", "sees <nothing>"]]
    assert [camera["name"] for camera in values["cameras"]] == ["0.png", "1.png", "2.png", "3.png"]
    center = np.array(values["cameras"][2]["corners"][0]) + middle
    np.testing.assert_allclose(center, scene.images[2].center, rtol=1e-5)
    # Self-contained: nothing is fetched, and a name cannot end the script.
    assert "http" not in text
    assert "<b>.jpg" not in text
    assert text.count("</script>") == 2
    assert "/*SCENE*/" not in text


def test_the_page_of_nothing(tmp_path):
    write_html(tmp_path / "a.html", Reconstruction(()), PointCloud.empty())
    values, _ = scene_of(tmp_path / "a.html")
    assert (values["positions"], values["cameras"]) == ("", [])
    with pytest.raises(InputError, match="html"):
        write_html(tmp_path / "a.txt", Reconstruction(()), PointCloud.empty())


def test_the_script_of_the_page_runs(tmp_path):
    """Node runs it against a page and a WebGL that only note what is asked of them."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    scene = rendered((0.0, 25.0))
    scene.write_html(tmp_path / "a.html", title="Things")
    script = re.findall(r"<script>\n(.*?)</script>", (tmp_path / "a.html").read_text(), re.DOTALL)
    values, _ = scene_of(tmp_path / "a.html")
    (tmp_path / "run.js").write_text(
        _BROWSER.replace("SCENE", json.dumps(json.dumps(values))) + script[0] + _DRIVE
    )
    done = subprocess.run(
        [node, str(tmp_path / "run.js")], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["title"] == "Things"
    assert seen["draws"][:2] == [[0, len(scene.cloud())], [1, 2 * 2 * 10]]
    # The page's matrix and ours put the first camera at the same place.
    view = three_quarter_view(scene.images, scene.cloud().positions, 16 / 9)
    ours = in_picture(view, scene.images[0].center[None], 16 / 9)[0] * [1, -1]
    np.testing.assert_allclose(seen["first"], ours, atol=2e-3)
    assert seen["label"] == "0.jpg"
    assert seen["through"] == pytest.approx([0, 0], abs=1e-6)
    assert seen["moved"]
    assert seen["reset"]


_BROWSER = """
const calls = [], handlers = {}, elements = {}, frames = [];
const element = (id) => elements[id] ??= {
  style: {}, checked: true, value: "2", clientWidth: 1600, clientHeight: 900, append() {},
  setPointerCapture() {}, addEventListener: (kind, run) => { (handlers[id] ??= {})[kind] = run; },
};
const noted = new Proxy({ drawArrays: (mode, first, count) => calls.push([mode, count]),
  POINTS: 0, LINES: 1, getProgramParameter: () => true, getAttribLocation: () => 0,
  createShader: () => ({}), createProgram: () => ({}), createBuffer: () => ({}) },
  { get: (known, name) => name in known ? known[name] : () => {} });
element("view").getContext = () => noted;
element("scene").textContent = SCENE;
globalThis.document = { getElementById: element, createElement: () => element("new") };
globalThis.window = { devicePixelRatio: 1, addEventListener() {} };
globalThis.requestAnimationFrame = (run) => frames.push(run);
const flush = () => { while (frames.length) frames.shift()(); };
"""
_DRIVE = """
flush();
const at = (p) => {
  const m = clipMatrix();
  const row = (r) => m[r] * p[0] + m[r + 4] * p[1] + m[r + 8] * p[2] + m[r + 12];
  const [x, y, w] = [0, 1, 3].map(row);
  return [x / w, y / w];
};
const send = (kind, x, y, more) => handlers.view[kind](
  { pointerId: 1, buttons: 1, clientX: x, clientY: y, preventDefault() {}, ...more });
const first = at(scene.cameras[0].corners[0]);
const before = JSON.stringify(view);
const middle = scene.cameras[0].corners.slice(1, 5).reduce((s, c) => add(s, c, 0.25), [0, 0, 0]);
const pixel = [(at(middle)[0] + 1) * 800, (1 - at(middle)[1]) * 450];
send("pointermove", ...pixel);
const label = elements.name.textContent;
send("pointerdown", ...pixel); send("pointerup", ...pixel); flush();
const through = at(middle);
handlers.view.dblclick(); flush();
send("pointerdown", 0, 0); send("pointermove", 90, 50); send("pointerup", 90, 50);
send("wheel", 0, 0, { deltaY: -100 }); flush();
const moved = JSON.stringify(view) !== before;
handlers.reset.click(); flush();
console.log(JSON.stringify({ title: document.title, draws: calls, first, label, through, moved,
  reset: JSON.stringify(view) === before }));
"""
