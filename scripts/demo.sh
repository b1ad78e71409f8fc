#!/bin/sh
# The main job to a report. Without a folder: on phantoms, which need no data. With one of the public radiograph archive:
# cohort, plain network, optimised network.
# Usage: scripts/demo.sh [FOLDER] [PRESET]
set -eu

data="${1:-}"
preset="${2:-quick}"
out="runs/demo"

if [ -z "$data" ]; then
    exec osteoscope demo -o "$out-phantom" --preset "$preset"
fi

osteoscope cohort from-btxrd "$data" -o "$out/cohort" --class osteosarcoma --class "giant cell tumor"
osteoscope train "$out/cohort" -o "$out/$preset-plain" --preset "$preset" --network plain
osteoscope train "$out/cohort" -o "$out/$preset" --preset "$preset" --beside "$out/$preset-plain"

echo
echo "Open $out/$preset/report.html in a browser."
