#!/bin/sh
# SPDX-License-Identifier: MIT
# test_sim_search.sh FILEMAP_SIM: the search of small worlds. The search runs all schedules with
# one surprise, finds a failure that needs surprises, and repeats the schedule of a failure. A
# failure of a seed is reported, repeated and shrunk.
set -eu
sim=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() { echo "$*" >&2; cat "$dir/out" >&2; exit 1; }
# fails COMMAND...: the status must be 1
fails() { status=0; "$@" >"$dir/out" 2>&1 || status=$?; [ $status -eq 1 ] || fail "status $status of: $*"; }
again() { sed -n 's/^again: //p' "$dir/out" | sed -n "$1p"; }

"$sim" --exhaustive --preemptions 1 >"$dir/out" || fail "a schedule fails"
cat "$dir/out"
[ "$(grep -c ' complete;' "$dir/out")" -eq "$("$sim" --list | grep -vc '(scenario)')" ] || fail "not all are complete"

# The planted failure is an unmap that ends while a fault waits. If the page is cached, no fault
# waits without a surprise.
"$sim" --exhaustive --world fault-unmap --preemptions 0 --plant >"$dir/out" || fail "found without a surprise"
fails "$sim" --exhaustive --world fault-unmap-read --preemptions 2 --plant
head -n 1 "$dir/out" | grep -q '^FAILED: world fault-unmap-read, .*planted' || fail "no FAILED line first"
cp "$dir/out" "$dir/first"
fails $(again 1)
[ "$(head -n 1 "$dir/out")" = "$(head -n 1 "$dir/first")" ] || fail "the schedule does not repeat the failure"

# Seeds: the first failure, the command that repeats the failure, and a smaller run with its own
# command.
fails "$sim" --from 1 --seeds 2000 --plant --shrink 3
sed -n 2p "$dir/out" | grep -q '^FAILED: seed [0-9]*, step [0-9]*: planted' || fail "no FAILED line"
grep -q '^a smaller run' "$dir/out" || fail "no smaller run was printed"
cp "$dir/out" "$dir/first"
again 2 | grep -q -e '--limit ' || fail "the smaller run has no limits"
[ "$(awk '{ if (length($0) > most) most = length($0) } /^threads:/ { exit } /^ / { if (length($0) > 160) print }' \
	"$dir/out" | wc -l)" -eq 0 ] || fail "the trace is wider than 160"
one=$(again 1) two=$(again 2)
fails $one --shrink 0
grep -qxF "$(grep '^FAILED' "$dir/first" | sed -n 1p)" "$dir/out" || fail "the command does not repeat the failure"
fails $two --shrink 0
grep -qxF "$(grep '^FAILED' "$dir/first" | sed -n 2p)" "$dir/out" || fail "the command does not repeat the smaller run"
# With --json, stdout has only the JSON.
fails "$sim" --from 1 --seeds 2000 --plant --shrink 0 --json
"$sim" --from 1 --seeds 2000 --plant --shrink 0 --json 2>/dev/null | grep -q '^{"from": 1, "failures": 1, "seed": [0-9]*}$' ||
	fail "no JSON of a failure"
