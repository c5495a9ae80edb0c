#!/bin/sh
# SPDX-License-Identifier: MIT
# break.sh [-k DIR] [PATCH...]: does each hazard's test fail without its rule? Each patch (all of break/ by default) takes
# one rule out of a copy of the sources; the tests that its `run:` lines name (NAME TRAP INSTALL; - where there is none)
# must then fail, having passed before. DIR keeps the copy and its build for the next time. Takes long: not part of ./check.
# Status 1: a test did not fail, or did before, or a patch no longer applies. HAZARDS.md has the table.
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
seconds=${BREAK_SECONDS:-60} # a test that hangs fails

# fresh FILE...: as they are in the project; those that are need not be built again.
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

compile() { # compile TEST
	ninja -C "$build" ${JOBS:+-j "$JOBS"} "tests/$1" "$library" >"$log" 2>&1
}

# run TEST TRAP INSTALL: its status, and in the log what it said.
run() {
	status=0
	FM_TEST_TRAP=$2 FM_TEST_INSTALL=$3
	[ "$2" != - ] || FM_TEST_TRAP=inline
	[ "$3" != - ] || FM_TEST_INSTALL=move
	export FM_TEST_TRAP FM_TEST_INSTALL
	{
		(ulimit -c 0; LIBRARY=$build/$library SOURCE_ROOT=$tree \
			exec timeout -s KILL "$seconds" "$build/tests/$1") >"$log" 2>&1 || status=$?
	} 2>/dev/null # the shell's own word for a signal
}

# said STATUS: what a test that failed printed, in short: the first failed check, else the last line.
said() {
	words=$(grep -a -m 1 '[.][ch]:[0-9]*: ' "$log" || grep -a -v '^ *$' "$log" | tail -n 1) || :
	words=$(echo "$words" | sed 's|^[^ ]*/\([^ /]*: \)|\1|' | cut -c1-160)
	case $1 in
	137) echo "it hangs" ;;
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
	while read -r test trap install; do # sound first
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
			echo "$name: $test $trap $install: fails as it must ($took s): $(said $status)"
		fi
	done <"$work/runs"
	fresh $files
done
exit $bad
