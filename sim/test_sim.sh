#!/bin/sh
# SPDX-License-Identifier: MIT
# test_sim.sh FILEMAP_SIM: a fixed range of seeds, and fresh seeds.
set -eu
sim=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

"$sim" --from 1 --seeds 20000 --jobs 2 >"$dir/fixed" || { status=$?; head -n 300 "$dir/fixed"; exit $status; }
sed -n '1,3p' "$dir/fixed"
"$sim" --seeds 2000 --jobs 2 >"$dir/fresh" || { status=$?; head -n 300 "$dir/fresh"; exit $status; }
sed -n '1,3p' "$dir/fresh"
