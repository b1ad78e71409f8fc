"""What a run computes on: kernels that are made for a number of planes are there when it comes again."""

import os
import subprocess
import sys

# More sizes than twice what oneDNN keeps by itself, each asked for twice.
READ_TWICE = """
import torch
from osteoscope.training.device import choose_device

choose_device("32-true", 1)
convolution = torch.nn.Conv2d(16, 16, 3)
with torch.no_grad():
    for again in range(2):
        print("round", again, flush=True)
        for width in range(3, 1203):
            convolution(torch.zeros(1, 16, 3, width))
"""


def kernels_made(**environment: str) -> list[int]:
    """Count in a process of its own, for each of two rounds, the kernels that oneDNN made."""
    known = {name: value for name, value in os.environ.items() if not name.startswith("ONEDNN_")}
    told = subprocess.run(
        [sys.executable, "-c", READ_TWICE],
        env=known | {"ONEDNN_VERBOSE": "profile_create"} | environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [part.count("cache_miss") for part in told.split("round ")[1:]]


def test_kernels_of_a_size_seen_before_are_not_made_again() -> None:
    first, second = kernels_made()

    assert first >= 1200
    assert second == 0


def test_a_capacity_that_the_user_set_stands() -> None:
    first, second = kernels_made(ONEDNN_PRIMITIVE_CACHE_CAPACITY="8")

    assert second >= 1200
    assert second > first * 0.9
