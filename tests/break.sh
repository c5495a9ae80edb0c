#!/bin/sh
# SPDX-License-Identifier: MIT
# Usage: break.sh [-k DIR] [PATCH...]
#
# break.sh shows that the test of each hazard fails without the hazard's rule. Each patch (by
# default every patch of tests/break) takes one rule out of a copy of the sources. The patch names
# its tests in `run:` lines: NAME TRAP INSTALL, with - where a test has no such setting. Each test
# must pass before the patch is applied, and must fail afterwards.
#
# With -k, DIR keeps the copy and its build for the next run. A run takes long, so ./check does
# not start break.sh. The exit status is 1 if a test did not fail, if a test failed before the
# patch, or if a patch no longer applies or compiles. tests/HAZARDS.md lists the hazards and the
# patches.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
work=
if [ "${1:-}" = -k ]; then
	mkdir -p "$2"
	work=$(cd "$2" && pwd)
	shift 2
fi
[ $# -gt 0 ] || set -- "$root"/tests/break/*.patch
if [ -z "$work" ]; then
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
fi
tree=$work/tree
build=$work/build
log=$work/log
seconds=${BREAK_SECONDS:-60} # a test that takes longer counts as failed

# fresh FILE...: copy the files that differ from the project into the copy. An equal file keeps
# its time stamp, so that ninja does not build the file again.
fresh() {
	for file in "$@"; do
		cmp -s "$root/$file" "$tree/$file" || cp "$root/$file" "$tree/$file"
	done
}

mkdir -p "$tree"
(cd "$root" && find . -path ./.git -prune -o -path './build*' -prune -o -type d -print) |
	(cd "$tree" && xargs mkdir -p)
fresh $(cd "$root" && find . -path ./.git -prune -o -path './build*' -prune -o -type f -print | sed 's|^\./||')
if [ ! -f "$build/build.ninja" ] && ! meson setup "$build" "$tree" --buildtype=debugoptimized -Dchecks=enabled \
	-Dtools=false -Dsim=false -Dman=disabled >"$log" 2>&1; then
	cat "$log"
	exit 1
fi

library=$(ninja -C "$build" -t targets all | sed -n 's|^\(src/libfilemap\.so[0-9.]*\): c_LINKER|\1|p')

compile() { # compile TEST: build the test and the shared library
	ninja -C "$build" ${JOBS:+-j "$JOBS"} "tests/$1" "$library" >"$log" 2>&1
}

# run TEST TRAP INSTALL: run the test. Leaves the exit status in `status` and the output in the
# log.
run() {
	status=0
	FM_TEST_TRAP=$2 FM_TEST_INSTALL=$3
	[ "$2" != - ] || FM_TEST_TRAP=inline
	[ "$3" != - ] || FM_TEST_INSTALL=move
	export FM_TEST_TRAP FM_TEST_INSTALL
	{
		(ulimit -c 0; LIBRARY=$build/$library SOURCE_ROOT=$tree \
			exec timeout -s KILL "$seconds" "$build/tests/$1") >"$log" 2>&1 || status=$?
	} 2>/dev/null # drops the shell's own message about a signal
}

# said STATUS: print in short what a failed test printed: the first failed check, or else the last
# line.
said() {
	words=$(grep -a -m 1 '[.][ch]:[0-9]*: ' "$log" || grep -a -v '^ *$' "$log" | tail -n 1) || :
	words=$(echo "$words" | sed 's|^[^ ]*/\([^ /]*: \)|\1|' | cut -c1-160)
	case $1 in
	137) echo "the test hangs" ;;
	1) echo "$words" ;;
	*) echo "signal $(($1 - 128))${words:+: $words}" ;;
	esac
}

bad=0 passed_before=' '
for patch in "$@"; do
	name=$(basename "$patch" .patch)
	files=$(sed -n 's|^+++ b/||p' "$patch" | cut -f1)
	sed -n 's/^run: *//p' "$patch" >"$work/runs"
	if [ ! -s "$work/runs" ]; then
		echo "$name: names no test to run"
		bad=1
	fi
	while read -r test trap install; do # each test must pass before the patch
		case $passed_before in *" $test-$trap-$install "*) continue ;; esac
		if ! compile "$test"; then
			cat "$log"
			exit 1
		fi
		run "$test" "$trap" "$install"
		if [ "$status" -ne 0 ]; then
			echo "$name: $test $trap $install: fails without the break (status $status): $(said $status)"
			bad=1
		fi
		passed_before="$passed_before$test-$trap-$install "
	done <"$work/runs"
	if ! patch -s -p1 -d "$tree" --no-backup-if-mismatch <"$patch" >"$log" 2>&1; then
		echo "$name: does not apply"
		bad=1
		fresh $files
		continue
	fi
	while read -r test trap install; do
		if ! compile "$test"; then
			echo "$name: does not compile"
			grep -m 3 ' error: ' "$log" || :
			bad=1
			break
		fi
		begun=$(date +%s)
		run "$test" "$trap" "$install"
		took=$(($(date +%s) - begun))
		if [ "$status" -eq 0 ] || [ "$status" -eq 77 ]; then
			echo "$name: $test $trap $install: NOT FOUND (status $status, $took s)"
			bad=1
		else
			echo "$name: $test $trap $install: fails as expected ($took s): $(said $status)"
		fi
	done <"$work/runs"
	fresh $files
done
exit $bad
