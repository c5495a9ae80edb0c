#!/bin/sh
# SPDX-License-Identifier: MIT
# test_sim.sh FILEMAP_SIM: a fixed range of seeds, and that a seed means the same run each time. Fresh seeds: filemap-sim.
set -eu
sim=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

"$sim" --from 1 --seeds 20000 >"$dir/fixed" || { status=$?; tail -n 80 "$dir/fixed"; exit $status; }
sed -n '1,3p' "$dir/fixed"
for seed in 7 4711 123456789; do
	"$sim" --from $seed --seeds 1 --trace >"$dir/one"
	"$sim" --from $seed --seeds 1 --trace >"$dir/two"
	sed -i '/a second/d' "$dir/one" "$dir/two" # the one line with a time
	[ "$(wc -l <"$dir/one")" -gt 50 ] || { echo "seed $seed: no trace"; exit 1; }
	cmp "$dir/one" "$dir/two"
done
