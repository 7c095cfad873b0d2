from pathlib import Path

import pytest
import trimesh
from emu_envs.meshes import simplify_visual_meshes

MODEL = """<mujoco><asset>
<mesh name="seen" file="{file}"/><mesh name="touched" file="{file}"/><mesh name="painted" file="{file}"/>
<material name="wood" texture="grain"/></asset><worldbody>
<geom type="mesh" mesh="seen" contype="0" conaffinity="0"/>
<geom type="mesh" mesh="touched"/>
<geom type="mesh" mesh="painted" material="wood" contype="0" conaffinity="0"/>
</worldbody></mujoco>"""


@pytest.fixture
def model(tmp_path: Path) -> str:
    file = tmp_path / "ball.stl"
    file.write_bytes(trimesh.creation.icosphere(subdivisions=5).export(file_type="stl"))
    return MODEL.format(file=file)


def meshes(xml: str) -> dict[str, trimesh.Trimesh]:
    import xml.etree.ElementTree as ET

    return {
        str(m.get("name")): trimesh.load_mesh(str(m.get("file"))) for m in ET.fromstring(xml).iter("mesh")
    }


def test_only_meshes_that_are_just_looked_at_are_simplified(model: str, tmp_path: Path) -> None:
    before, after = meshes(model), meshes(simplify_visual_meshes(model, 0.1, tmp_path / "cache"))
    assert len(after["seen"].faces) <= 0.11 * len(before["seen"].faces)
    assert len(after["touched"].faces) == len(before["touched"].faces)
    assert len(after["painted"].faces) == len(before["painted"].faces)
    assert after["seen"].volume == pytest.approx(before["seen"].volume, rel=0.02)


def test_a_simplified_mesh_is_made_once(model: str, tmp_path: Path) -> None:
    first = simplify_visual_meshes(model, 0.1, tmp_path / "cache")
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    assert simplify_visual_meshes(model, 0.1, tmp_path / "cache") == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()} == made


def test_everything_is_kept_at_one_and_nonsense_is_refused(model: str) -> None:
    assert simplify_visual_meshes(model, 1.0) == model
    with pytest.raises(ValueError, match=r"keep=0.0 must lie in"):
        simplify_visual_meshes(model, 0.0)


def test_a_mesh_in_a_shared_cache_can_be_read_by_others(model: str, tmp_path: Path) -> None:
    simplify_visual_meshes(model, 0.1, tmp_path / "cache")
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "cache").iterdir()} == {0o644}
