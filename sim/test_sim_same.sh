#!/bin/sh
# SPDX-License-Identifier: MIT
# test_sim_same.sh FILEMAP_SIM FILEMAP_SIM_O0: a seed means the same run, byte for byte. That holds
# for two runs, for two build types, and for any way to share out the seeds.
set -eu
sim=$1 other=$2
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

for seed in 7 4711 123456789; do
	"$sim" --from $seed --seeds 1 --trace >"$dir/one"
	"$sim" --from $seed --seeds 1 --trace >"$dir/two"
	"$other" --from $seed --seeds 1 --trace >"$dir/three"
	sed -i '/ per second/d' "$dir/one" "$dir/two" "$dir/three" # the only line with a time
	[ "$(wc -l <"$dir/one")" -gt 50 ] || { echo "seed $seed: no trace"; exit 1; }
	cmp "$dir/one" "$dir/two"
	cmp "$dir/one" "$dir/three"
done

# For some hundred seeds, compare one number that depends on all events.
for one in "$sim --jobs 1" "$sim --jobs 2" "$other --jobs 1"; do
	$one --from 1000000 --seeds 400 --hash | grep '^hash' >>"$dir/hashes"
done
[ "$(sort -u "$dir/hashes" | wc -l)" -eq 1 ] || { echo "not the same runs:"; cat "$dir/hashes"; exit 1; }
[ "$(wc -l <"$dir/hashes")" -eq 3 ]
# The number of other seeds differs.
"$sim" --from 1000001 --seeds 400 --hash | grep '^hash' >>"$dir/hashes"
[ "$(sort -u "$dir/hashes" | wc -l)" -eq 2 ] || { echo "the hash of other seeds is the same"; exit 1; }
