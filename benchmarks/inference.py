"""Probability and evidence for planes, beside MONAI's GradCAM and beside what the processor can do at all.

All on the same threads and the same planes, in turn, best of several rounds:

- ours: the graph of one DenseNet-121 with attention, multi-scale fusion, class maps and lesion map, and the judgement
  of all planes as one patient, on the runtime that a trial on this machine prefers;
- MONAI's ``GradCAM`` at the last dense block of its DenseNet-121 in eager torch, at the better of batch 1 and 16;
- a product of two 4096 x 4096 matrices in float32, which tells how long the graph's own multiplications and additions
  would take if nothing else had to be done (`vs_matmul_limit`), and those of the network as it is written, before
  anything in it changes places (`vs_network_limit`);
- the same network in eight bits (`int8_vs_float32`), where OpenVINO is installed;
- ``osteoscope predict`` on a CT as a process of its own, from its start to its files (`cold_start_s`), and ``--help``.

The weights are random ones, whose normalisations have seen some noise: time does not depend on what was learnt.

    python benchmarks/inference.py [--planes 64] [--threads 2] [--rounds 3] [--ct FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from osteoscope.inference.runtimes import runtimes_here
from osteoscope.processes import cores

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from osteoscope.network.classifier import TumourNetwork

SIZE = 224
SIDE = 4096


def best_of(rounds: int, *works: Callable[[], object]) -> list[float]:
    """Time pieces of work in turn: the seconds of the best round of each; the first round is not counted."""
    best = [float("inf")] * len(works)
    for number in range(rounds + 1):
        for place, work in enumerate(works):
            started = time.perf_counter()
            work()
            if number:
                best[place] = min(best[place], time.perf_counter() - started)
    return best


def made_network(channels: int, size: int) -> TumourNetwork:
    """Build the default network with random weights and normalisations that have seen noise."""
    import torch

    from osteoscope.config import NetworkConfig
    from osteoscope.network.classifier import TumourNetwork

    torch.manual_seed(0)
    network = TumourNetwork(NetworkConfig(), classes=2, in_channels=channels)
    network.train()
    with torch.no_grad():
        for _ in range(2):
            network.encoder(torch.rand(4, channels, size, size))
    return network.eval()


def operations(graph: Path, planes: int) -> float:
    """Count a graph's multiplications and additions in convolutions and matrix products, for so many planes.

    Two for each product that is summed, as is usual; all else is not counted, so the limit is one that nothing reaches.
    """
    import onnx
    from onnx import shape_inference

    model = onnx.load(graph)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = planes
    inferred = shape_inference.infer_shapes(model, data_prop=True)
    known = [*inferred.graph.value_info, *inferred.graph.output, *inferred.graph.input]
    shapes = {one.name: [length.dim_value for length in one.type.tensor_type.shape.dim] for one in known}
    shapes |= {one.name: list(one.dims) for one in inferred.graph.initializer}
    total = 0.0
    for node in inferred.graph.node:
        if node.op_type == "Conv":
            total += 2.0 * np.prod(shapes[node.output[0]]) * np.prod(shapes[node.input[1]][1:])
        elif node.op_type in {"MatMul", "Gemm"}:
            total += 2.0 * np.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    return float(total)


def written_operations(network: TumourNetwork, planes: int) -> float:
    """Count the same of a network whose transitions and taps convolve before they shrink, as DenseNet is written."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.encoder(torch.rand(1, 1, SIZE, SIZE))
    sides = [SIZE // 4 // 2**number for number in range(len(network.encoder.trunk.transitions))]
    convolutions = [f"trunk.transitions.{number}.conv" for number in range(len(sides))] + ["fusion.projections.0.2"]
    # Each of these now convolves a quarter of the positions that it would.
    moved = sum(
        2.0 * network.encoder.get_submodule(name).get_parameter("weight").numel() * side**2 * 3 / 4
        for name, side in zip(convolutions, [*sides, SIZE // 8], strict=True)
    )
    return (float(counter.get_total_flops()) + float(moved)) * planes


def against_peers(folder: Path, planes: NDArray[np.float32], *, threads: int, rounds: int) -> dict[str, Any]:
    """Time ours, MONAI's GradCAM, the matrix product and eight bits in turn."""
    import torch

    from osteoscope.bundle.format import PLANES_GRAPH
    from osteoscope.inference.engine import MemberEngine
    from osteoscope.inference.evidence import closed_form_evidence
    from osteoscope.training.export import export_member
    from osteoscope.training.quantise import quantise

    torch.set_num_threads(threads)
    network = made_network(1, SIZE)
    export_member(network, folder, planes=planes[:2], covariates=None)

    def asked(engine: MemberEngine) -> Callable[[], object]:
        def ask() -> object:
            read = engine.read(planes)
            return closed_form_evidence([read], [engine.judge(read)])

        return ask

    ours = MemberEngine(folder, threads=threads)
    works = {"ours": asked(ours)}
    if "openvino" in runtimes_here():
        quantise(network, folder, planes=planes[:16])
        works["int8"] = asked(MemberEngine(folder, threads=threads, runtime="openvino", precision="int8"))
    for name in runtimes_here():
        works[f"float32 in {name}"] = asked(MemberEngine(folder, threads=threads, runtime=name))
    works["matmul"] = lambda: torch.mm(*matrices)
    matrices = torch.rand(2, SIDE, SIDE).unbind()
    seconds = dict(zip(works, best_of(rounds, *works.values()), strict=True))
    peer = monai_gradcam(planes, rounds=max(1, rounds - 1))
    rate = 2 * SIDE**3 / seconds["matmul"]
    own, written = operations(folder / PLANES_GRAPH, len(planes)), written_operations(network, len(planes))
    milliseconds = {name: 1000 * value / len(planes) for name, value in seconds.items() if name != "matmul"}
    print(f"runtime by trial: {ours.runtime}; {rate / 1e9:.0f} GFLOP/s in the matrix product", flush=True)
    return {
        "vs_monai_gradcam": min(peer.values()) / seconds["ours"],
        "vs_matmul_limit": seconds["ours"] / (own / rate),
        "vs_network_limit": seconds["ours"] / (written / rate),
        "int8_vs_float32": seconds["ours"] / seconds["int8"] if "int8" in seconds else None,
        "runtime": ours.runtime,
        "milliseconds_a_plane": {
            **milliseconds,
            **{name: 1000 * value / len(planes) for name, value in peer.items()},
            "limit": 1000 * own / rate / len(planes),
        },
        "gflop_a_plane": {"graph": own / len(planes) / 1e9, "network": written / len(planes) / 1e9},
    }


def monai_gradcam(planes: NDArray[np.float32], *, rounds: int) -> dict[str, float]:
    """Time MONAI's GradCAM on all planes, by batch: seconds."""
    import torch
    from monai.networks.nets.densenet import DenseNet121
    from monai.visualize.class_activation_maps import GradCAM

    network = DenseNet121(spatial_dims=2, in_channels=1, out_channels=2).eval()
    explain = GradCAM(nn_module=network, target_layers="features.denseblock4")

    def at_once(batch: int) -> Callable[[], object]:
        def ask() -> object:
            return [explain(part, class_idx=1) for part in torch.split(torch.from_numpy(planes), batch)]

        return ask

    sizes = (1, 16)
    found = best_of(rounds, *map(at_once, sizes))
    return {f"MONAI GradCAM, batch {size}": seconds for size, seconds in zip(sizes, found, strict=True)}


def ct_bundle(folder: Path) -> Path:
    """Write a bundle of one network for CT, planes of 224 pixels and the default number of them."""
    from osteoscope.bundle.format import Calibration, Manifest, Member, Training, Verdicts
    from osteoscope.bundle.load import SeenCases
    from osteoscope.bundle.write import write_bundle
    from osteoscope.config import NetworkConfig, PreparationConfig, VolumeConfig
    from osteoscope.training.export import export_member

    volume = VolumeConfig(size=SIZE)
    channels = volume.channels("CT")
    planes = np.random.default_rng(0).random((2, channels, SIZE, SIZE), dtype=np.float32)
    export_member(made_network(channels, SIZE), folder / "member", planes=planes, covariates=None)
    slugs = ("osteosarcoma", "giant_cell_tumor")
    nobody = Training(
        cohort_fingerprint="0", config_fingerprint="0", patients=dict.fromkeys(slugs, 0), images=0, source="nobody",
        guessed_patients=False, seed=0, auxiliary=None, versions={},
    )  # fmt: skip
    manifest = Manifest(
        osteoscope="0",
        classes=("osteosarcoma", "giant cell tumor"),
        slugs=slugs,
        prior=dict.fromkeys(slugs, 0.5),
        preparation=PreparationConfig(volume=volume),
        network=NetworkConfig(),
        members=(Member(folder="members/0", fold=None, covariates=None),),
        calibration=Calibration(temperature=1.0, fitted_on="It was fitted on nothing."),
        verdicts=Verdicts(level=0.9, thresholds=(0.5, 0.5), counts=(20, 20), refused=None),
        evidence_threshold=None,
        modalities=("CT",),
        body_regions=("spine",),
        provenance="clinical",
        intended_use="To measure time.",
        training=nobody,
        performance={},
        files={},
    )
    write_bundle(manifest, folder / "bundle", member_folders=[folder / "member"], training_cases=SeenCases())
    return folder / "bundle"


# A process of its own that starts another: what a child's memory peaked at counts that of its parent at the start.
LAUNCHER = """
import json, os, subprocess, sys, time
started = time.perf_counter()
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
_, status, usage = os.wait4(child.pid, 0)
print(json.dumps([status, time.perf_counter() - started, usage.ru_maxrss / 1024]))
"""


def process(arguments: list[str]) -> tuple[float, float]:
    """Run the command line as a process of its own: seconds from start to end, and its peak memory in MiB."""
    command = [str(Path(sys.executable).with_name("osteoscope")), *arguments]
    launched = subprocess.run([sys.executable, "-c", LAUNCHER, *command], capture_output=True, text=True, check=True)
    status, seconds, peak = json.loads(launched.stdout)
    if status:
        raise SystemExit(f"failed: {' '.join(command)}")
    return seconds, peak


def cold_start(ct: Path, folder: Path, *, rounds: int) -> dict[str, Any]:
    """Time ``predict`` on a CT and ``--help``, each as a new process."""
    bundle = ct_bundle(folder)
    # The first makes the trial of runtimes, if there are several.
    runs = [process(["predict", str(bundle), str(ct), "-o", str(folder / f"out-{n}")]) for n in range(rounds + 1)]
    helped = [process(["--help"])[0] for _ in range(rounds)]
    return {
        "cold_start_s": min(seconds for seconds, _ in runs[1:]),
        "first_start_s": runs[0][0],
        "cold_start_peak_mib": max(peak for _, peak in runs[1:]),
        "help_s": min(helped),
    }


def main() -> None:
    """Measure, and print one JSON object last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--planes", type=int, default=64)
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--rounds", type=int, default=3)
    shared = Path(os.environ.get("OSTEOSCOPE_DATA", Path(__file__).parents[1] / ".." / "shared" / "data"))
    parser.add_argument("--ct", type=Path, default=shared / "dicom" / "totalsegmentator" / "example_ct_dicom")
    options = parser.parse_args()
    planes = np.random.default_rng(0).random((options.planes, 1, SIZE, SIZE), dtype=np.float32)
    with tempfile.TemporaryDirectory() as scratch:
        # Whatever was remembered of this machine is tried anew.
        os.environ["OSTEOSCOPE_CACHE"] = str(Path(scratch) / "cache")
        found = against_peers(Path(scratch) / "member", planes, threads=options.threads, rounds=options.rounds)
        if options.ct.is_dir():
            found |= cold_start(options.ct, Path(scratch), rounds=options.rounds)
        else:
            print(f"no CT at {options.ct}: the start was not measured")
    print(json.dumps({**found, "planes": options.planes, "threads": options.threads, "cores": cores()}))


if __name__ == "__main__":
    main()
