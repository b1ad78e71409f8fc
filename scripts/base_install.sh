#!/bin/sh
# The base install alone, in a clean environment, predicts with evidence: no torch, no tables, no plots. Prints its size.
# Usage: scripts/base_install.sh; needs .venv (`make test` makes it) for the bundle and the studies that are tried.
set -eu
cd "$(dirname "$0")/.."

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

# A bundle for CT whose network learnt nothing, a CT, and a picture that is out of its scope.
PYTHONPATH=tests .venv/bin/python - "$work" <<'PYTHON'
import sys
from pathlib import Path

import numpy as np
from bundles import export_tiny, write_tiny_bundle
from dicom_files import write_series
from PIL import Image

work = Path(sys.argv[1])
write_tiny_bundle(work / "bundle", export_tiny(work / "member", channels=3))
grey = np.random.default_rng(0)
write_series(work / "studies" / "ct", grey.integers(1000, 1100, (6, 48, 56), dtype=np.uint16), RescaleIntercept=-1024)
Image.fromarray(grey.integers(0, 255, (60, 48), dtype=np.uint8)).save(work / "studies" / "picture.png")
PYTHON

python="$(.venv/bin/python -c 'import sys; print(sys._base_executable)')"
"$python" -m venv "$work/venv"
bare="$(du -sm "$work/venv" | cut -f1)"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt .

installed="$("$work/venv/bin/python" -m pip list --disable-pip-version-check --format freeze | cut -d= -f1)"
for heavy in torch monai pandas scipy scikit-learn matplotlib openvino; do
    if echo "$installed" | grep -qix "$heavy"; then
        echo "the base install holds $heavy, which prediction does not need" >&2
        exit 1
    fi
done

# From elsewhere, so that nothing of the checkout is found by accident.
cd "$work"
OSTEOSCOPE_CACHE="$work/cache" venv/bin/osteoscope predict bundle studies -o out
for wanted in "overlay-*.png" "evidence-*.nii.gz"; do
    if [ -z "$(find out -name "$wanted")" ]; then
        echo "the base install wrote no $wanted" >&2
        exit 1
    fi
done
echo "The base install takes $(($(du -sm venv | cut -f1) - bare)) MB."
