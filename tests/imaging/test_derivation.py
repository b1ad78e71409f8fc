"""What an image was made from others for is told by the words of its image type and descriptions."""

from __future__ import annotations

import pytest

from osteoscope.imaging.derivation import derivation_of, is_original


@pytest.mark.parametrize(
    ("text", "derivation"),
    [
        ("Topogram 0.6", "localiser"),
        ("3 plane LOC", "localiser"),
        ("Survey_MST", "localiser"),
        ("Sagittal,1 stack,1 dimension,temporal position,ext loc ref", ""),
        ("Cor MIP", "projection"),
        ("ADC", "map"),
        ("DTI FA", "map"),
        ("vibe FA 15", ""),
        ("t1_fl3d_FA5", ""),
        ("fa=8", ""),
        ("sag MPR", "reformatted"),
        ("axial", ""),
        ("LOW DOSE CT SKELETAL SURVEY 2.0 BR60", ""),
        ("Bone survey thorax", ""),
        ("Myeloma_survey", ""),
        ("SAG T2 (pilot study)", ""),
        ("pilot", "localiser"),
        ("T1 DCE perfusion", ""),
    ],
)
def test_descriptions_tell_it_by_their_words(text: str, derivation: str) -> None:
    assert derivation_of("ORIGINAL\\PRIMARY", text) == derivation


def test_the_image_type_tells_it() -> None:
    assert derivation_of("DERIVED\\SECONDARY\\PROJECTION IMAGE", "") == "projection"
    assert derivation_of("DERIVED\\PRIMARY\\DIFFUSION\\ADC", "") == "map"
    assert derivation_of("DERIVED\\PRIMARY", "T1 perfusion") == "map"
    assert [is_original(kinds) for kinds in ("ORIGINAL\\PRIMARY", "", "DERIVED\\PRIMARY")] == [True, True, False]
