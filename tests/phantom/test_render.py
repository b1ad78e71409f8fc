"""What is rendered is what the attributes say, in the published HU, and nothing of the label."""

from __future__ import annotations

import dataclasses
import inspect
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, binary_erosion
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist
from threadpoolctl import threadpool_info, threadpool_limits  # type: ignore[import-untyped]

from osteoscope.phantom.anatomy import Spine, build_spine
from osteoscope.phantom.lesion import ARCH, MATRIX
from osteoscope.phantom.patients import LABELS, Attributes, draw_patients
from osteoscope.phantom.render import Rendering, render
from osteoscope.phantom.scanner import Acquisition
from osteoscope.phantom.vertebra import dimensions

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

PLAIN = Acquisition(kilovolt=120, kernel="medium", noise=8, thickness=3, field_of_view=180, contrast=0)
SMALL = (28, 112, 112)

BARE: dict[str, Any] = {
    "vertebrae": 1,
    "matrix": "none",
    "matrix_hu": 0.0,
    "matrix_extent": 0.0,
    "matrix_rim": 0.0,
    "collapse": 0.0,
    "fracture_sclerosis": False,
    "trabeculae": False,
    "fluid_levels": False,
    "cyst_extent": 0.0,
    "sclerotic_rim": False,
    "septa": False,
    "periosteal_reaction": False,
    "margin": 1.5,
    "canal": 0.0,
    "soft_tissue": False,
    "mass_extent": 0.0,
    "size": 45.0,
    "eccentricity": 0.4,
    "expansion": 4.0,
    "shell": 0.4,
    "attenuation": 45.0,
    "uptake": 70.0,
}
"""A lytic tumour without any further sign."""

CLOUDS: dict[str, Any] = {"matrix": "marked", "matrix_hu": 654.0, "matrix_extent": 0.5, "matrix_rim": 0.3}


def patient(level: str = "lumbar", **changes: Any) -> Attributes:
    attributes = next(p.attributes for p in draw_patients(200, 3) if p.attributes.level == level)
    return dataclasses.replace(attributes, **{**BARE, "site": "body", "bone_hu": 160.0, **changes})


def scan(attributes: Attributes, seed: int = 1, acquisition: Acquisition = PLAIN) -> Rendering:
    return render(attributes, seed, acquisition=acquisition, shape=SMALL)


def around(ct: Rendering, middle: tuple[float, float, float], radii: tuple[float, float, float]) -> NDArray[np.int16]:
    """HU of the voxels in an ellipsoid, given in LPS (x, y, z)."""
    assert ct.geometry.affine is not None
    steps, origin = np.diag(ct.geometry.affine)[:3], ct.geometry.affine[:3, 3]
    x, y, z = (
        (np.arange(count) * step + start - centre) / radius
        for count, step, start, centre, radius in zip(ct.hu.shape[::-1], steps, origin, middle, radii, strict=True)
    )
    return np.asarray(ct.hu[z[:, None, None] ** 2 + y[:, None] ** 2 + x**2 < 1])


def inside(ct: Rendering) -> NDArray[np.bool_]:
    return np.asarray(binary_erosion(ct.lesion, iterations=2), bool)


# The label ------------------------------------------------------------------------------------------------------------


def test_the_renderer_never_sees_a_label() -> None:
    assert list(inspect.signature(render).parameters) == ["attributes", "seed", "acquisition", "shape"]


def test_the_same_attributes_and_seed_under_another_label_give_identical_bytes() -> None:
    drawn = draw_patients(1, seed=6)[0]
    other = dataclasses.replace(drawn, label=next(label for label in LABELS if label != drawn.label), kind="another")
    one, same = (render(p.attributes, p.seed, shape=(12, 96, 96)) for p in (drawn, other))
    for name in ("hu", "lesion", "discriminative", "without_matrix"):
        assert getattr(one, name).tobytes() == getattr(same, name).tobytes()
    assert one.acquisition == same.acquisition


def test_another_seed_is_another_patient_of_the_same_kind() -> None:
    assert (scan(patient(), 1).hu != scan(patient(), 2).hu).mean() > 0.5


def test_rendering_keeps_to_one_thread_and_leaves_the_others_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    def threads() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info()]

    seen: list[int] = []

    def build(*given: Any) -> Spine:
        seen.extend(threads())
        return build_spine(*given)

    monkeypatch.setattr("osteoscope.phantom.render.build_spine", build)
    with threadpool_limits(limits=2):
        before = threads()
        scan(patient())
        assert threads() == before
    assert set(seen) == {1}


# What comes back ------------------------------------------------------------------------------------------------------


def test_arrays_share_a_shape_and_lie_in_lps() -> None:
    ct = scan(patient())
    for values, kind in (
        (ct.hu, np.int16),
        (ct.without_matrix, np.int16),
        (ct.lesion, np.uint8),
        (ct.discriminative, np.uint8),
    ):
        assert values.shape == SMALL
        assert values.dtype == kind
    assert ct.geometry.steps == pytest.approx((3.0, 180 / 112, 180 / 112))
    assert ct.geometry.plane_name == "axial"
    assert ct.hu.min() >= -1024
    # The back is behind: the spinous process and the skin lie at higher rows than the body; feet come first.
    names = list(ct.vertebrae)
    assert ct.vertebrae[names[0]][2] > ct.vertebrae[names[-1]][2]
    assert ct.hu[:, -1].mean() < -300


@pytest.mark.parametrize("side", ["left", "right"])
def test_left_is_at_higher_columns(side: str) -> None:
    ct = scan(patient(side=side, site="arch", eccentricity=0.9))
    columns = np.argwhere(ct.lesion)[:, 2].mean()
    assert (columns > SMALL[2] / 2) == (side == "left")


@pytest.mark.parametrize("shape", [(1, 96, 96), (8, 8, 96)])
def test_a_shape_that_is_no_volume_is_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="planes"):
        render(patient(), 1, shape=shape)


@pytest.mark.parametrize("level", ["cervical", "thoracic", "lumbar", "sacral"])
def test_every_region_renders_small_and_thick(level: str) -> None:
    ct = render(patient(level, size=30.0), 4, shape=(8, 96, 96), acquisition=dataclasses.replace(PLAIN, thickness=5))
    assert ct.lesion.any()
    assert ct.hu.std() > 100


# Published HU ---------------------------------------------------------------------------------------------------------


def test_trabecular_bone_has_the_density_that_was_drawn() -> None:
    means = []
    for seed in range(5):
        ct = scan(patient(vertebra="L3", bone_hu=160.0), seed)
        x, y, z = ct.vertebrae["L2"]
        means.append(around(ct, (x, y - 3, z), (9, 8, 6)).mean())
    assert np.mean(means) == pytest.approx(160, rel=0.1)


def test_tissues_have_their_published_hu() -> None:
    """At 120 kV without contrast: muscle 50-65, fat about -100, CSF 0-15 (and cord), cortex 800-1500."""
    ct = render(patient(vertebra="L3", age=20.0), 3, acquisition=dataclasses.replace(PLAIN, noise=4))
    values = ct.hu[ct.lesion == 0]
    peaks, edges = np.histogram(values[(values > -200) & (values < 100)], bins=np.arange(-200.5, 100, 2))
    middles = 0.5 * (edges[1:] + edges[:-1])
    soft, fatty = middles > 30, middles < -50
    assert 50 <= middles[soft][peaks[soft].argmax()] <= 65
    assert middles[fatty][peaks[fatty].argmax()] == pytest.approx(-100, abs=8)
    x, y, z = ct.vertebrae["L2"]
    canal = around(ct, (x, y + dimensions("L2").canal_centre - 1, z), (8, 5, 2))
    assert -10 < np.median(canal) < 25
    assert 800 < np.quantile(ct.hu, 0.9995) < 1500


def test_the_soft_part_has_its_attenuation_and_takes_up_contrast() -> None:
    plain = scan(patient("thoracic", attenuation=38.0, uptake=80.0))
    assert np.median(plain.hu[inside(plain)]) == pytest.approx(38, abs=6)
    enhanced = scan(
        patient("thoracic", attenuation=38.0, uptake=80.0), acquisition=dataclasses.replace(PLAIN, contrast=1)
    )
    assert np.median(enhanced.hu[inside(enhanced)]) == pytest.approx(118, abs=12)


@pytest.mark.parametrize(
    ("matrix", "hu", "extent"), [("moderate", 654.0, 0.25), ("marked", 654.0, 0.6), ("ivory", 1190.0, 0.9)]
)
def test_matrix_has_its_mean_and_fills_its_share(matrix: str, hu: float, extent: float) -> None:
    ct = scan(patient("thoracic", matrix=matrix, matrix_hu=hu, matrix_extent=extent, matrix_rim=0.3, size=55.0))
    dense = (ct.discriminative & MATRIX) > 0
    assert ct.hu[dense].mean() == pytest.approx(hu, rel=0.1)
    assert (dense & (ct.lesion > 0)).sum() / ct.lesion.sum() == pytest.approx(extent, abs=0.08)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("extent", [0.25, 0.6])
def test_the_densest_matrix_is_as_dense_as_published(seed: int, extent: float) -> None:
    """Mean 654 and maximum 787 +- 194: the densest hundredth within one deviation, no voxel beyond two."""
    ct = scan(patient("thoracic", **{**CLOUDS, "matrix_extent": extent}, size=55.0), seed)
    dense = ct.hu[(ct.discriminative & MATRIX) > 0]
    assert np.quantile(dense, 0.99) == pytest.approx(787, abs=194)
    assert dense.max() < 787 + 2 * 194


def test_cysts_have_a_level_with_the_heavy_part_behind() -> None:
    ct = scan(patient("sacral", vertebra="S1", site="arch", size=70.0, fluid_levels=True, cyst_extent=0.75))
    solid = scan(patient("sacral", vertebra="S1", site="arch", size=70.0))
    changed = ((ct.hu != solid.hu) & inside(ct)).astype(int)
    values = ct.hu[changed > 0]
    light, heavy = values[values < 36], values[values >= 44]
    assert min(len(light), len(heavy)) > 0.1 * len(values)
    rows = np.broadcast_to(np.arange(SMALL[1])[None, :, None], SMALL)
    assert np.median(rows[(changed > 0) & (ct.hu < 25)]) <= np.median(rows[(changed > 0) & (ct.hu > 50)])


# The tumour -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [30.0, 50.0, 70.0])
def test_the_largest_diameter_is_the_size(size: float) -> None:
    measured = []
    for seed in (1, 2, 3):
        ct = scan(patient("lumbar", size=size, site="body and arch", soft_tissue=True, mass_extent=20.0), seed)
        places = np.argwhere(ct.lesion) * np.array(ct.geometry.steps)
        measured.append(pdist(places[ConvexHull(places).vertices]).max())
    assert np.mean(measured) == pytest.approx(size, rel=0.12)


def test_a_tumour_of_the_body_leaves_the_arch_and_one_of_the_arch_is_marked_there() -> None:
    body, arch = scan(patient(size=35.0)), scan(patient(site="arch", size=45.0))
    assert not (body.discriminative & ARCH).any()
    share = ((arch.discriminative & ARCH) > 0).sum() / arch.lesion.sum()
    assert share > 0.5
    assert np.argwhere(arch.lesion)[:, 1].mean() > np.argwhere(body.lesion)[:, 1].mean() + 8


def test_a_lytic_tumour_takes_the_bone_away() -> None:
    ct = scan(patient(size=40.0))
    assert np.quantile(ct.hu[inside(ct)], 0.9) < 120


def volume_above(ct: Rendering, hu: float, within: NDArray[np.bool_]) -> int:
    return int(((ct.hu > hu) & within).sum())


@pytest.mark.parametrize(
    ("sign", "hu"),
    [
        ({"septa": True}, 150),
        ({"trabeculae": True}, 120),
        ({"sclerotic_rim": True}, 330),
        ({"periosteal_reaction": True}, 200),
        ({"shell": 0.95, "expansion": 8.0}, 200),
    ],
    ids=["septa", "trabeculae", "rim", "periosteum", "shell"],
)  # fmt: skip
def test_each_sign_adds_bone_where_the_tumour_is(sign: dict[str, Any], hu: float) -> None:
    without: dict[str, Any] = {"shell": 0.05, "expansion": 8.0}
    ct, bare = scan(patient(**{**without, **sign})), scan(patient(**without))
    near = np.asarray(binary_dilation(bare.lesion, iterations=3), bool)
    assert volume_above(ct, hu, near) > 1.1 * volume_above(bare, hu, near) + 20


def test_a_mass_reaches_out_of_the_bone_and_canal_tumour_into_the_canal() -> None:
    bare = scan(patient("thoracic", size=60.0))
    mass = scan(patient("thoracic", size=60.0, soft_tissue=True, mass_extent=30.0))
    assert mass.lesion.sum() > 1.2 * bare.lesion.sum()
    filled = scan(patient("thoracic", size=60.0, canal=0.6))
    x, y, z = filled.vertebrae[patient("thoracic").vertebra]
    size = dimensions(patient("thoracic").vertebra)
    middle = (x, y + size.canal_centre, z)
    counts = []
    for ct in (bare, filled):
        shown = dataclasses.replace(ct, hu=ct.lesion.astype(np.int16))
        counts.append(around(shown, middle, (0.4 * size.canal_width, 0.4 * size.canal_depth, 6)).mean())
    assert counts[0] < 0.15
    assert counts[1] == pytest.approx(0.6, abs=0.2)


def test_a_wide_margin_is_blurred_and_a_narrow_one_is_sharp() -> None:
    """Bone outside of the tumour, within 4 mm, is eaten where the margin is wide."""
    held: dict[str, Any] = {"shell": 0.02, "size": 38.0, "expansion": 0.5}
    narrow, wide = (scan(patient(**held, margin=margin)) for margin in (0.6, 10.0))
    ring = np.asarray(binary_dilation(narrow.lesion, iterations=2), bool) & (narrow.lesion == 0) & (narrow.hu > 150)
    assert wide.hu[ring].mean() < 0.85 * narrow.hu[ring].mean()


def test_a_fracture_lowers_the_spine_and_may_be_dense() -> None:
    whole, broken = scan(patient(vertebra="L2")), scan(patient(vertebra="L2", collapse=0.5))
    heights = [ct.vertebrae["L1"][2] - ct.vertebrae["L3"][2] for ct in (whole, broken)]
    assert heights[1] < heights[0] - 6
    dense = scan(patient(vertebra="L2", collapse=0.5, fracture_sclerosis=True, site="arch", size=25.0))
    dark = scan(patient(vertebra="L2", collapse=0.5, site="arch", size=25.0))
    assert (dense.hu.astype(int) - dark.hu).sum() > 20_000


# The counterfactual ---------------------------------------------------------------------------------------------------


def test_taking_the_matrix_out_changes_nothing_but_the_matrix() -> None:
    clouds = patient("thoracic", size=55.0, **CLOUDS)
    ct = scan(clouds)
    assert (ct.without_matrix == scan(dataclasses.replace(clouds, matrix="none")).hu).all()
    changed = ct.hu != ct.without_matrix
    dense = np.asarray(binary_dilation((ct.discriminative & MATRIX) > 0, iterations=6), bool)
    assert changed.sum() > 1000
    assert not (changed & ~dense).any()
    assert np.median(ct.without_matrix[inside(ct)]) == pytest.approx(45, abs=12)


def test_without_matrix_there_is_nothing_to_take_out() -> None:
    ct = scan(patient())
    assert (ct.hu == ct.without_matrix).all()
    assert not (ct.discriminative & MATRIX).any()


# The scanner ----------------------------------------------------------------------------------------------------------


def darker_at_140(ct: Rendering) -> float:
    return float(ct.hu[ct.hu > 600].mean())


@pytest.mark.parametrize(
    ("change", "measure"),
    [
        ({"kilovolt": 140}, darker_at_140),
        ({"kernel": "soft"}, lambda ct: float(np.abs(np.diff(ct.hu.astype(float), axis=2)).mean())),
        ({"noise": 2.0}, lambda ct: float(ct.hu[inside(ct)].std())),
    ],
    ids=["kilovolt", "kernel", "noise"],
)  # fmt: skip
def test_settings_of_the_scanner_are_seen(change: dict[str, Any], measure: Callable[[Rendering], float]) -> None:
    normal, changed = scan(patient()), scan(patient(), acquisition=dataclasses.replace(PLAIN, **change))
    assert measure(changed) < 0.97 * measure(normal)


def test_left_out_settings_are_those_of_the_centre() -> None:
    thickness = {centre: render(patient(centre=centre), 5, shape=(8, 64, 64)).acquisition.thickness for centre in "AC"}
    assert thickness["A"] == 3
    assert thickness["C"] >= 4
