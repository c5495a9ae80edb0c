#!/bin/sh
# SPDX-License-Identifier: MIT
# The shared library exports exactly the functions that the public header declares.
set -eu
library=${LIBRARY:?the shared library}
header=${SOURCE_ROOT:?}/include/filemap.h
command -v nm >/dev/null || { echo "skipped: no nm"; exit 77; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

nm -D --defined-only "$library" | awk '$2 ~ /[TDBRVW]/ { sub(/@.*/, "", $3); print $3 }' |
	LC_ALL=C sort >"$dir/shown"
grep '^FM_PUBLIC' "$header" | grep -o 'fm_[a-z_]*(' | tr -d '(' | LC_ALL=C sort >"$dir/declared"
[ -s "$dir/declared" ] || { echo "$header: declares nothing" >&2; exit 1; }
if ! diff "$dir/declared" "$dir/shown" >&2; then
	echo "< declared but not exported, > exported but not declared" >&2
	exit 1
fi
