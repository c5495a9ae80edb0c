#!/bin/sh
# SPDX-License-Identifier: MIT
# mutate.sh [-s SECONDS] [PATCH...]: can the simulator find faults? Each patch (all of mutations/ by default) puts one
# into a copy of the sources; the simulator must then fail within SECONDS (60). Builds with $CC, in a temporary folder.
# Status 1: a mutation was not found, or its patch no longer applies.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
seconds=60
if [ "${1:-}" = -s ]; then
	seconds=$2
	shift 2
fi
[ $# -gt 0 ] || set -- "$root"/sim/mutations/*.patch
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
flags="-std=gnu17 -D_GNU_SOURCE= -O2 -fno-strict-aliasing -DFM_SIM=1 -DFM_DEBUG=1 -I$work/include -I$work/src -I$work/sim"
cc=${CC:-cc}
cp -r "$root/include" "$root/src" "$root/sim" "$work"
mkdir "$work/obj"

compile() { # compile FILE...: those of the library get the simulator's libc calls
	for file in "$@"; do
		case $file in
		src/*) more='-Dcalloc=sim_calloc -Dfree=sim_free -Dabort=sim_abort' ;;
		*) more= ;;
		esac
		(cd "$work" && $cc $flags $more -c "$file" -o "obj/$(echo "$file" | tr / _).o")
	done
}

cd "$work"
compile src/mm/*.c src/api/*.c src/stats/stats.c sim/*.c
$cc -o filemap-sim obj/*.o
bad=0
for patch in "$@"; do
	name=$(basename "$patch" .patch)
	rm -rf src
	cp -r "$root/src" src
	if ! patch -s -p1 --no-backup-if-mismatch <"$patch" >/dev/null; then
		echo "$name: does not apply"
		bad=1
		continue
	fi
	files=$(sed -n 's|^+++ b/||p' "$patch" | cut -f1)
	compile $files
	$cc -o mutant obj/*.o
	begun=$(date +%s)
	status=0
	timeout "$((seconds + 5))" ./mutant --shrink 0 --minutes "$(echo "$seconds" | awk '{ print $1 / 60 }')" >out 2>&1 || status=$?
	took=$(($(date +%s) - begun))
	if [ "$status" -eq 1 ]; then
		echo "$name: found in $took s: $(grep '^FAILED' out | cut -c1-120)"
	else
		echo "$name: NOT FOUND in $took s (status $status)"
		bad=1
	fi
	for file in $files; do
		cp "$root/$file" "$file"
	done
	compile $files
done
exit $bad
