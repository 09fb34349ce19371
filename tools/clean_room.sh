#!/usr/bin/env bash
# Clones the last commit into an empty folder and runs README's two commands there, in an environment
# of PATH and HOME alone. Only uv's download cache is lent, so that 5 GB are not fetched again;
# CLEAN_ROOM_CACHE=none fetches them.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -n "$(git status --porcelain)" ]; then
    echo "Note: the clean room sees what is committed; this folder has changes that are not." >&2
fi

room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
git clone --quiet . "$room/cifar-ray"
mkdir "$room/home"

cache=${CLEAN_ROOM_CACHE:-$(.venv/bin/uv cache dir 2>/dev/null || echo none)}
lent=(PATH="$PATH" HOME="$room/home")
if [ "$cache" != none ]; then
    lent+=(UV_CACHE_DIR="$cache")
fi
for target in demo test; do
    echo "== clean room: make $target"
    env -i "${lent[@]}" make -C "$room/cifar-ray" "$target"
done
echo "== clean room: make demo and make test both succeeded"
