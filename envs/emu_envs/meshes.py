"""Simplified visual meshes: the lever on rendering speed that leaves physics untouched.

robosuite's Panda is drawn with 352,217 vertices, most of them duplicated along triangle edges. A frame of 128
x 128 pixels cannot show them. Visual meshes are welded and decimated (quadric error metric, Garland and
Heckbert 1997, through fast-simplification) and cached on disk; collision meshes, inertias and textured meshes
stay as they are.
"""

import hashlib
import os
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import fast_simplification
import trimesh

from emu_envs.caches import cache_folder

MIN_TRIANGLES = 600
"""A mesh is never simplified below this: small parts would fall apart."""


def simplify_visual_meshes(xml: str, keep: float, cache: Path | None = None) -> str:
    """Return the MJCF model with its visual meshes replaced by simplified ones.

    Args:
        xml: MJCF text with absolute mesh paths.
        keep: fraction of triangles to keep, in (0, 1]; 1 returns `xml` unchanged.
        cache: folder for simplified meshes; default `cache_folder("meshes")`.

    Raises:
        ValueError: `keep` is outside (0, 1].
    """
    if not 0 < keep <= 1:
        raise ValueError(f"keep={keep} must lie in (0, 1]")
    if keep == 1:
        return xml
    root = ET.fromstring(xml)
    visual = _visual_only(root)
    for mesh in root.iter("mesh"):
        name, file = mesh.get("name"), mesh.get("file")
        if name in visual and file is not None:
            mesh.set("file", str(simplified_mesh(Path(file), keep, cache)))
    return ET.tostring(root, encoding="unicode")


def _visual_only(root: ET.Element) -> set[str]:
    """Names of meshes that no colliding geom uses and that carry no texture."""
    textured = {m.get("name") for m in root.iter("material") if m.get("texture") is not None}
    visual, kept = set(), set()
    for geom in root.iter("geom"):
        name = geom.get("mesh")
        if name is None:
            continue
        collides = geom.get("contype", "1") != "0" or geom.get("conaffinity", "1") != "0"
        (kept if collides or geom.get("material") in textured else visual).add(name)
    return visual - kept


def simplified_mesh(file: Path, keep: float, cache: Path | None = None) -> Path:
    """Path of the simplified copy of a mesh file, made on first use.

    Args:
        file: The mesh.
        keep: Fraction of triangles to keep.
        cache: Folder for simplified meshes; default `cache_folder("meshes")`.
    """
    cache = cache or cache_folder("meshes")
    content = file.read_bytes()
    key = hashlib.sha256(
        content + f"{keep} {MIN_TRIANGLES} {fast_simplification.__version__}".encode()
    ).hexdigest()[:20]
    target = cache / f"{file.stem}-{key}.stl"
    if os.access(target, os.R_OK):
        return target
    mesh = trimesh.load_mesh(file, process=False)
    # Without normals and texture seams, so that vertices which lie in one place become one.
    mesh = trimesh.Trimesh(mesh.vertices, mesh.faces, process=True)
    triangles = len(mesh.faces)
    wanted = max(MIN_TRIANGLES, round(triangles * keep))
    if wanted < triangles:
        simpler: tuple[Any, ...] = fast_simplification.simplify(
            mesh.vertices, mesh.faces, target_reduction=1 - wanted / triangles
        )
        mesh = trimesh.Trimesh(*simpler, process=True)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=cache, suffix=".tmp", delete=False) as temporary:
        mesh.export(temporary, file_type="stl")
    made = Path(temporary.name)
    made.chmod(0o644)  # others may share the cache
    made.replace(target)  # several workers may make the same mesh: all are equal
    return target
