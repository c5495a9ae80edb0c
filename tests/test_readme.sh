#!/bin/sh
# SPDX-License-Identifier: MIT
# The example in README.md compiles unchanged against the shared library, and runs.
set -eu
root=${SOURCE_ROOT:?}
library=${LIBRARY:?the shared library}
command -v cc >/dev/null || { echo "skipped: no cc"; exit 77; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

sed -n '/^```c$/,/^```$/p' "$root/README.md" | grep -v '^```' >"$dir/example.c"
cc -Wall -Wextra -Werror -I"$root/include" -o "$dir/example" "$dir/example.c" "$library" \
	-Wl,-rpath,"${library%/*}"
printf 'abc' >"$dir/abc"
"$dir/example" "$dir/abc" >"$dir/out"
[ "$(cat "$dir/out")" = "$dir/abc: 294" ] || { cat "$dir/out" >&2; exit 1; }
"$dir/example" >"$dir/out"
[ -s "$dir/out" ]
if "$dir/example" "$dir/absent" >"$dir/out" 2>&1; then
	echo "an absent file did not make the test fail" >&2
	exit 1
fi
