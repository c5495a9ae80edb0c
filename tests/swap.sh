#!/bin/sh
# SPDX-License-Identifier: MIT
# Usage: swap.sh BUILD [TEST...]
#
# swap.sh runs tests with less memory than the tests use, and with swap for the rest. A page that
# the kernel has swapped out must still be found, and must be writable. By default the script runs
# tests of writes, mappings and pins. The script needs root and cgroup v1. The swap file (64 MiB,
# in TMPDIR) and the cgroup are removed at the end. The script makes the whole system swap, so
# ./check does not run the script.
#
# The exit status is 1 if a test failed, and 77 if the script cannot run here.
set -eu
build=${1:?usage: swap.sh BUILD [TEST...]}
shift
[ $# -gt 0 ] || set -- test_write test_write_errors test_write_pin test_private test_map test_pin test_torture test_write_torture
group=/sys/fs/cgroup/memory/filemap-swap.$$
file=$(mktemp "${TMPDIR:-/var/tmp}/filemap-swap.XXXXXX")
failed=0
clean_up() {
	swapoff "$file" 2>/dev/null || :
	rm -f "$file"
	[ ! -d "$group" ] || rmdir "$group" || echo "swap.sh: $group is left" >&2
}
trap clean_up EXIT
trap 'exit 1' HUP INT TERM
cannot() {
	echo "swap.sh: cannot run here: $*" >&2
	exit 77
}
[ "$(id -u)" -eq 0 ] || cannot "only root can add swap"
mkdir "$group" 2>/dev/null || cannot "no memory cgroups (v1)"
dd if=/dev/zero of="$file" bs=1M count=64 status=none
mkswap -q "$file" && swapon "$file" || cannot "no swap file in $(dirname "$file")"
echo $((9 << 20)) >"$group/memory.limit_in_bytes"
for test in "$@"; do
	for trap in inline thread; do
		for install in move copy; do
			status=0
			(
				sh -c 'echo $PPID' >"$group/cgroup.procs"
				FM_TEST_TRAP=$trap FM_TEST_INSTALL=$install exec "$build/tests/$test"
			) >"$file.out" 2>&1 || status=$?
			echo "$test-$trap-$install: status $status"
			[ "$status" -eq 0 ] || [ "$status" -eq 77 ] || {
				failed=1
				cat "$file.out"
			}
			rm -f "$file.out"
		done
	done
done
[ "$failed" -eq 0 ]
