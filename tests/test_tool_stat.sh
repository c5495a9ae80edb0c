#!/bin/sh
# SPDX-License-Identifier: MIT
# `filemap stat` shows a running process, and a stopped process, whose locks cannot be taken.
set -eu
filemap=${FILEMAP:?the filemap command to test}
dir=$(mktemp -d)
worker=
trap '[ -z "$worker" ] || kill -KILL "$worker"; rm -rf "$dir"' EXIT

fail() {
	echo "$*" >&2
	cat "$dir/out" >&2
	exit 1
}

# Each read takes 20 ms, one after the other: the worker runs until this test ends the worker.
"$filemap" verify --order random 'faulty:memory:1G?delay=20ms' >/dev/null 2>&1 &
worker=$!
faults=0
while [ "$faults" -lt 3 ]; do
	kill -0 "$worker" || fail "the worker has ended"
	"$filemap" stat --json $worker >"$dir/out" 2>/dev/null || continue
	faults=$(sed -n 's/.*"faults":\([0-9]*\).*/\1/p' "$dir/out")
done
kill -STOP "$worker"
"$filemap" stat --json $worker >"$dir/out" || fail "a stopped process was not shown"
for word in "\"pid\":$worker," '"trap":"inline"' '"lock_held_over_block":0,' '"budget_bytes":[1-9]' \
	'"lock_hold_shared_ns":{"count":[1-9]' '"fault_major_ns":{"count":[1-9]' '"ra_waste":'; do
	grep -q "$word" "$dir/out" || fail "$word: not in the JSON"
done
"$filemap" stat $worker >"$dir/out" || fail "a stopped process was not shown"
for word in 'trap inline' 'fault_major .* ms ' 'lock_held_over_block  *0 ' 'p99.9'; do
	grep -q "$word" "$dir/out" || fail "$word: not in the table"
done
"$filemap" stat >"$dir/out"
grep -q "^ *$worker  filemap " "$dir/out" || fail "the worker is not in the list"
"$filemap" stat --json >"$dir/out"
grep -q "\"pid\":$worker," "$dir/out" || fail "the worker is not in the list"

# A signal ends the worker at once, in the middle of a read.
kill -CONT "$worker"
kill -TERM "$worker"
wait "$worker" && fail "the worker ended by itself"
pid=$worker
worker=
"$filemap" stat "$pid" >"$dir/out" 2>&1 && fail "a process that has ended was shown"
exit 0
