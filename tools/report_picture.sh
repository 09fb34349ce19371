#!/usr/bin/env bash
# Makes docs/report.png again: the report of the demo's drawn images, in Chromium.
# Needs chromium on the PATH and a .venv.
set -euo pipefail
cd "$(dirname "$0")/.."
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python=$PWD/.venv/bin/python
picture=$PWD/docs/report.png

(cd "$room" && env -u CIFAR_RAY_DATA CIFAR_RAY_CACHE="$room/cache" PYTHONPATH="$OLDPWD" \
    "$python" -m examples.demo)
# The path of a temporary folder means nothing to a reader.
sed "s|$room/demo|/data|g" "$room/demo/labels/report.html" >"$room/report.html"
chromium --headless --no-sandbox --disable-gpu --disable-background-networking --hide-scrollbars \
    --user-data-dir="$room/profile" --force-device-scale-factor=2 --window-size=1160,1480 \
    --screenshot="$room/report.png" "file://$room/report.html" >/dev/null 2>&1
"$python" - "$room/report.png" "$picture" <<'PYTHON'
import sys

from PIL import Image

with Image.open(sys.argv[1]) as image:
    small = image.convert("RGB").resize((1160, 1480), Image.Resampling.LANCZOS)
    small.quantize(256).save(sys.argv[2], optimize=True)
PYTHON
ls -l "$picture"
