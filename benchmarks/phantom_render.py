"""How long a phantom's CT takes, on one core and for a cohort on several.

``seconds`` and ``longest_seconds``: processor time of a CT of 256 x 256 x 48 in one thread, over patients of all
regions and centres; ``wall_seconds``: the mean of the time that passed, which other work on the machine makes longer.
``patients_a_minute``: with --processes, over --patients. There is no peer to run beside it: no other program is known
to the authors that draws spinal tumours; so the time is also given in multiples (``matrix_products``) of that of one
2048 x 2048 float32 matrix product on the same core. The last line is one JSON object.

    OMP_NUM_THREADS=1 python benchmarks/phantom_render.py [--patients N] [--processes N] [--single N]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time

import numpy as np

from osteoscope.phantom.patients import Patient, draw_patients
from osteoscope.phantom.render import SHAPE, render


def seconds_of(patient: Patient) -> tuple[float, float]:
    """Render one patient; give processor time and wall time."""
    start, began = time.process_time(), time.perf_counter()
    render(patient.attributes, patient.seed, shape=SHAPE)
    return time.process_time() - start, time.perf_counter() - began


def seconds_of_product(side: int = 2048, repeats: int = 5) -> float:
    """Shortest time of a float32 matrix product."""
    factors = np.random.default_rng(0).standard_normal((2, side, side), dtype=np.float32)
    times = []
    for _ in range(repeats):
        start = time.process_time()
        factors[0] @ factors[1]
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--single", type=int, default=16, help="patients rendered one after the other")
    parser.add_argument("--patients", type=int, default=0, help="patients rendered by all processes together")
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    product = seconds_of_product()
    seconds_of(draw_patients(1, seed=1)[0])
    single = [seconds_of(patient) for patient in draw_patients(asked.single, seed=2)]
    processor, wall = np.mean(single, axis=0).tolist()
    longest = max(seconds for seconds, _ in single)
    print(f"one core: mean {processor:.2f} s, longest {longest:.2f} s; matrix product {product:.3f} s")
    result = {
        "seconds": processor,
        "longest_seconds": longest,
        "wall_seconds": wall,
        "matrix_products": processor / product,
    }
    if asked.patients:
        patients = draw_patients(asked.patients, seed=3)
        start = time.perf_counter()
        with multiprocessing.Pool(asked.processes) as pool:
            list(pool.imap_unordered(seconds_of, patients))
        taken = time.perf_counter() - start
        print(f"{asked.processes} processes: {asked.patients} patients in {taken:.1f} s")
        result |= {"cohort_seconds": taken, "patients_a_minute": 60 * asked.patients / taken}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
