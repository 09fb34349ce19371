#!/usr/bin/env bash
# Makes .venv from requirements.lock, or brings it up to date. Called by make; PYTHON names the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "cifar-ray needs Python 3.11 or later, and '$python' is not one. Name another: make install PYTHON=python3.12" >&2
    exit 2
fi

if ! .venv/bin/python -c '' 2>/dev/null; then
    echo "Making .venv with $("$python" --version)."
    rm -rf .venv
    # Debian's Python has no ensurepip without python3-venv: its pip then serves the new .venv.
    "$python" -m venv .venv >/dev/null 2>&1 || "$python" -m venv --clear --without-pip .venv
fi

# uv, in the version of the lock and checked by its hashes, installs the rest: it downloads side by
# side and links from its cache, where pip would copy 5 GB.
sed -n '/^uv==/,/[^\\]$/p' requirements.lock >.venv/uv.txt
uv=$(sed -n 's/^uv==\([^ ]*\).*/\1/p' .venv/uv.txt)
if [ "$(.venv/bin/uv --version 2>/dev/null | cut -d' ' -f2)" != "$uv" ]; then
    pip=(.venv/bin/python -m pip)
    "${pip[@]}" --version >/dev/null 2>&1 || pip=("$python" -m pip --python .venv/bin/python)
    "${pip[@]}" --disable-pip-version-check install --quiet --require-hashes --requirement .venv/uv.txt
fi

echo "Installing the packages of requirements.lock into .venv. The first time on a machine this downloads"
echo "up to 5 GB (on Linux PyTorch brings CUDA) and takes 1 to 10 minutes; later it takes seconds."
export UV_LINK_MODE=${UV_LINK_MODE:-hardlink} UV_HTTP_TIMEOUT=${UV_HTTP_TIMEOUT:-300}
export UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-true}  # a company's own certificates count, as they do for pip
.venv/bin/uv pip sync --python .venv/bin/python --require-hashes requirements.lock
.venv/bin/uv pip install --python .venv/bin/python --quiet --offline --no-deps --no-build-isolation --editable .
