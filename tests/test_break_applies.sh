#!/bin/sh
# SPDX-License-Identifier: MIT
# The patches of tests/break and sim/mutations must apply to the sources. Each patch of
# tests/break must name tests that exist, and tests/HAZARDS.md must name the patch. tests/break.sh
# and sim/mutate.sh show what the patches do, which takes long. First the test proves on a bad
# patch that its checks can fail.
set -eu
root=${SOURCE_ROOT:-$(cd "$(dirname "$0")/.." && pwd)}
command -v patch >/dev/null || { echo "skipped: no patch(1)"; exit 77; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

applies() { # applies PATCH: sim/mutate.sh allows no fuzz, so the patches of sim get none
	case $1 in */sim/*) fuzz=0 ;; *) fuzz=2 ;; esac
	patch --dry-run -f -s -p1 -F$fuzz -d "$root" <"$1" >"$dir/said" 2>&1
}

names_tests() { # names_tests PATCH: the run: lines name tests and settings that exist
	sed -n 's/^run: *//p' "$1" >"$dir/runs"
	[ -s "$dir/runs" ] || return 1
	while read -r test trap install; do
		[ -f "$root/tests/${test%-without_poison}.c" ] || return 1
		case $trap-$install in
		inline-move | inline-copy | thread-move | thread-copy | call-move | call-copy | ---) ;;
		*) return 1 ;;
		esac
	done <"$dir/runs"
}

printf '%s\n' '--- a/meson.build' '+++ b/meson.build' '@@ -1,2 +1,1 @@' ' no such line' '-nor this one' >"$dir/bad.patch"
if applies "$dir/bad.patch" || names_tests "$dir/bad.patch"; then
	echo "a patch that does not apply was accepted"
	exit 1
fi
bad=0 count=0
for patch in "$root"/tests/break/*.patch "$root"/sim/mutations/*.patch; do
	name=$(basename "$patch" .patch)
	count=$((count + 1))
	if ! applies "$patch"; then
		echo "$patch: the patch no longer applies; make the patch again:"
		cat "$dir/said"
		bad=1
	fi
	case $patch in */sim/*) continue ;; esac
	if ! names_tests "$patch"; then
		echo "$patch: a run: line is missing, or does not say: TEST TRAP INSTALL (or: TEST - -)"
		bad=1
	fi
	if ! grep -q "\`$name\`" "$root/tests/HAZARDS.md"; then
		echo "$name: not in tests/HAZARDS.md"
		bad=1
	fi
done
echo "$count patches"
exit $bad
