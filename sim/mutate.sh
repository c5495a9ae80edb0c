#!/bin/sh
# SPDX-License-Identifier: MIT
# usage: mutate.sh [--seconds S] [--jobs J] [--sample N] [--seed K] [PATCH...]
# Does the simulator find faults? Each patch (all of sim/mutations/ by default) puts one fault into
# a copy of the sources. The simulator must then fail within S seconds. The seed that the simulator
# found must pass without the fault.
#   --seconds S   time for each fault, in seconds (60)
#   --jobs J      faults at the same time (2, or 1 on a machine with one core)
#   --sample N    only N of the patches, chosen by the seed
#   --seed K      the seed of the choice (the time; the script prints the seed)
#   --build DIR   take the unchanged objects from this build folder, which must be up to date
# The script prints one line for each fault: its name, the seconds until the simulator found the
# fault, the seed, and the simulator's message. The script builds with $CC in a temporary folder,
# and rebuilds only the files that a patch touches. Without --build it first compiles all files. Status 1: a fault was not found, or a patch
# does not apply.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cc=${CC:-cc}
seconds=60 sample= seed=$(date +%s) build=
jobs=$(($(nproc) > 1 ? 2 : 1))

usage_error() {
	echo "mutate.sh: $*; see --help" >&2
	exit 2
}

number() { # number OPTION VALUE MOST
	case $2 in
	'' | *[!0-9]* | 0* | ????????????*) usage_error "$1 '$2': not a whole number above 0" ;;
	esac
	[ "$2" -le "$3" ] || usage_error "$1 $2: at most $3"
}

# compile FILE... in ./ to ./obj; files of the library get the simulator's libc functions
compile() {
	for file in "$@"; do
		more=
		case $file in
		src/*) more='-Dcalloc=sim_calloc -Dfree=sim_free -Dabort=sim_abort' ;;
		esac
		$cc -std=gnu17 -D_GNU_SOURCE= -O2 -fno-strict-aliasing -fms-extensions -DFM_SIM=1 -DFM_DEBUG=1 -UNDEBUG -Iinclude -Isrc \
			-Isim $more -c "$file" -o "obj/$(echo "$file" | tr / _).o" || return 1
	done
}

# take_objects BUILD: copy the objects of the build folder to ./obj, under the names that compile()
# gives. Fails if an object is missing or older than its source.
take_objects() {
	for file in $(sources); do
		case $file in
		src/*) object=$1/sim/libsim_mm.a.p/.._$(echo "$file" | tr / _).o ;;
		sim/*) object=$1/sim/filemap-sim.p/$(echo "${file#sim/}" | tr / _).o ;;
		esac
		if ! [ -f "$object" ] || [ "$root/$file" -nt "$object" ]; then
			echo "mutate.sh: $object: missing, or older than $file; run ninja -C $1" >&2
			return 1
		fi
		cp "$object" "obj/$(echo "$file" | tr / _).o" || return 1
	done
}

sources() { # print the simulator's sources; the current folder is a copy of the tree
	find src/mm -name "*.c"
	echo src/api/*.c src/stats/stats.c
	find sim -name "*.c"
}

mutant() { # mutant PATCH: the current folder is a copy of the sources with all objects
	patch -s -p1 -F0 --no-backup-if-mismatch <"$1" >out 2>&1 || { echo "does not apply: $(head -n 1 out)"; return 1; }
	compile $(sed -n 's|^+++ b/\([^ 	]*\).*|\1|p' "$1") 2>out || { echo "does not compile: $(head -n 1 out)"; return 1; }
	$cc -o mutant obj/*.o
	begun=$(date +%s)
	status=0
	timeout -k 5 $((seconds + 30)) ./mutant --shrink 0 --minutes "$(echo "$seconds" | awk '{ print $1 / 60 }')" >out 2>&1 || status=$?
	took=$(($(date +%s) - begun))
	said=$(sed -n 's/^FAILED: seed \([0-9]*\), /\1, /p' out | head -n 1 | cut -c1-200)
	if [ $status -ne 1 ] || [ -z "$said" ]; then
		echo "NOT FOUND in $took s (status $status)"
		return 1
	fi
	if ! timeout 60 ../filemap-sim --shrink 0 --from "${said%%,*}" --seeds 1 >out 2>&1; then
		echo "found in $took s, but the seed also fails without the mutation: ${said%%,*}"
		return 1
	fi
	echo "found in $took s: seed $said"
}

if [ "${1:-}" = --one ]; then # a parallel part: --one SECONDS FOLDER PATCH
	seconds=$2
	name=$(basename "$4" .patch)
	mkdir "$3/$name"
	cd "$3/$name"
	cp -r ../include ../src ../sim ../obj .
	status=0
	line=$(mutant "$4") || status=1
	echo "$name: $line"
	cd ..
	rm -rf "$name"
	exit $status
fi

while [ $# -gt 0 ]; do
	case $1 in
	--help)
		sed -n '3,/^set/s/^# //p' "$0"
		exit 0
		;;
	--build)
		[ $# -gt 1 ] && [ -d "$2/sim" ] || usage_error "$1: wants a build folder"
		build=$(realpath "$2")
		shift 2
		;;
	--seconds | --jobs | --sample | --seed)
		[ $# -gt 1 ] || usage_error "$1: needs a number"
		case $1 in
		--seconds) number "$1" "$2" 86400; seconds=$2 ;;
		--jobs) number "$1" "$2" 64; jobs=$2 ;;
		--sample) number "$1" "$2" 1000; sample=$2 ;;
		--seed) number "$1" "$2" 99999999999; seed=$2 ;;
		esac
		shift 2
		;;
	--*) usage_error "unknown option $1" ;;
	*) break ;;
	esac
done
for patch in "$@"; do
	[ -f "$patch" ] && [ -r "$patch" ] || usage_error "$patch: not a readable patch"
done
for tool in patch "$cc"; do
	command -v "$tool" >/dev/null || { echo "mutate.sh: $tool: not found; install it"; exit 77; }
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
if [ $# -gt 0 ]; then
	realpath "$@" >"$work/list"
else
	ls "$root"/sim/mutations/*.patch >"$work/list"
fi
if [ -n "$sample" ]; then
	echo "a sample of $sample, chosen by --seed $seed"
	awk -v seed="$seed" 'BEGIN { srand(seed) } { print rand(), $0 }' "$work/list" | sort -n | head -n "$sample" |
		cut -d' ' -f2- >"$work/chosen"
	mv "$work/chosen" "$work/list"
fi

cp -r "$root/include" "$root/src" "$root/sim" "$work"
mkdir "$work/obj"
(
	cd "$work" || exit 1
	if [ -n "$build" ]; then take_objects "$build"; else compile $(sources); fi &&
		$cc -o filemap-sim obj/*.o
) || exit 1
if xargs -d '\n' -P "$jobs" -n 1 "$0" --one "$seconds" "$work" <"$work/list"; then
	echo "all $(wc -l <"$work/list") found"
else
	echo "mutate.sh: not all mutations were found" >&2
	exit 1
fi
