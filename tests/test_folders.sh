#!/bin/sh
# SPDX-License-Identifier: MIT
# The folders of src/mm are layers. src/mm/FOLDERS lists them, bottom first. This test fails
#   - when a file includes a header of a folder above its own,
#   - when files include each other in a circle (a header counts with its source),
#   - when an object of the static library calls a function of a folder above its own.
# First the test proves on made-up trees that each check can fail.
set -eu
root=${SOURCE_ROOT:-$(cd "$(dirname "$0")/.." && pwd)}

# includes DIR: print a line "FILE HEADER" for each include of src/mm, without suffixes.
includes() {
	(cd "$1/src/mm" && grep -rE '^#include "mm/' --include='*.[ch]' . | sed -E 's#^\./(.*)\.[ch]:.*"mm/(.*)\.h".*#\1 \2#' |
		LC_ALL=C sort -u)
}

# check_includes DIR: print each include that runs up and each circle. Fails if there is any.
check_includes() {
	includes "$1" | awk -v folders="$1/src/mm/FOLDERS" '
	BEGIN {
		while ((getline line < folders) > 0) { split(line, word, " "); floor[word[1]] = ++n }
	}
	function folder(file, part) { split(file, part, "/"); return part[1] }
	{
		if (!(folder($1) in floor)) { print $1 ": its folder is not in src/mm/FOLDERS"; bad = 1 }
		if (floor[folder($2)] > floor[folder($1)]) { print $1 " includes " $2 ", which is above"; bad = 1 }
		if ($1 != $2) { arrow[$1, $2] = 1; from[NR] = $1; to[NR] = $2; left[$1] = left[$2] = 1 }
	}
	END {
		for (more = 1; more;) { # a file that includes no remaining file is in no circle
			more = 0
			delete out
			for (i in from)
				if (left[from[i]] && left[to[i]]) out[from[i]] = 1
			for (file in left)
				if (left[file] && !(file in out)) { left[file] = 0; more = 1 }
		}
		for (file in left)
			if (left[file]) { print file ": in a circle of files, or above one"; bad = 1 }
		exit bad
	}'
}

# check_calls FOLDERS: print each call that runs up. Fails if there is any. Reads the output of nm
# -A from standard input.
check_calls() {
	awk -v folders="$1" '
	BEGIN {
		while ((getline line < folders) > 0) { split(line, word, " "); floor[word[1]] = ++n }
	}
	function folder(object, part) { # mm_fill_request.c.o
		if (!match(object, /mm_[a-z]+_/)) return ""
		split(substr(object, RSTART, RLENGTH), part, "_")
		return part[2]
	}
	{
		object = $1; sub(/:[^:]*$/, "", object); sub(/^.*:/, "", object)
		if ($(NF - 1) == "U") { user[NR] = object; name[NR] = $NF }
		else if ($(NF - 1) ~ /^[TDRBC]$/) home[$NF] = object
	}
	END {
		for (i in user) {
			a = folder(user[i]); b = folder(home[name[i]])
			if (a in floor && b in floor && floor[b] > floor[a]) { print user[i] " calls " name[i] "() of " home[name[i]]; bad = 1 }
		}
		exit bad
	}'
}

# ---- the self-test
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
mkdir -p "$tree/src/mm/low" "$tree/src/mm/high"
printf 'low  x\nhigh y\n' >"$tree/src/mm/FOLDERS"
expect() { # expect VERDICT WORDS: compare the verdict of check_includes; WORDS name the case
	if output=$(check_includes "$tree"); then verdict=good; else verdict=bad; fi
	[ "$verdict" = "$1" ] || { echo "self-test: $2 was found $verdict: $output" >&2; exit 1; }
}
echo '#include "mm/low/b.h"' >"$tree/src/mm/high/a.c"
: >"$tree/src/mm/low/b.c"
expect good "an include that runs down"
echo '#include "mm/high/a.h"' >"$tree/src/mm/low/b.c"
expect bad "an include that runs up"
echo '#include "mm/low/c.h"' >"$tree/src/mm/low/b.c"
echo '#include "mm/low/b.h"' >"$tree/src/mm/low/c.h"
expect bad "a circle"
printf 'x.a:mm_low_a.c.o: U up\nx.a:mm_high_b.c.o:0000 T up\n' >"$tree/nm"
if check_calls "$tree/src/mm/FOLDERS" <"$tree/nm" >/dev/null; then echo "self-test: a call that runs up was accepted" >&2; exit 1; fi
printf 'x.a:mm_high_a.c.o: U down\nx.a:mm_low_b.c.o:0000 T down\n' >"$tree/nm"
check_calls "$tree/src/mm/FOLDERS" <"$tree/nm" || { echo "self-test: a call that runs down was refused" >&2; exit 1; }

# ---- the real tree
status=0
check_includes "$root" || status=1
if [ -n "${1:-}" ]; then
	nm -A "$1" 2>/dev/null >"$tree/nm"
	grep -q ' T ' "$tree/nm" || { echo "$1: nm lists no function" >&2; exit 1; }
	check_calls "$root/src/mm/FOLDERS" <"$tree/nm" || status=1
fi
exit $status
