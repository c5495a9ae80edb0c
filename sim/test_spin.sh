#!/bin/sh
# SPDX-License-Identifier: MIT
# test_spin.sh MODEL: spin finds no error in the page protocol. If a rule is removed, spin finds an
# error.
set -eu
for tool in spin cc; do
	command -v $tool >/dev/null || { echo "skipped: no $tool (Debian: spin, gcc)"; exit 77; }
done
model=$(realpath "$1")
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

search() { # search [-DNAME]: spin's output goes to ./said
	spin "$@" -search -O2 -safety -m100000 "$model" >said 2>&1 || true
}

for option in '' -DONE_FRAME; do
	search $option
	if ! grep -q 'errors: 0$' said || grep -q 'Search not completed' said; then
		echo "page protocol ${option:-as it is}: spin finds an error, or does not finish"
		cat said
		exit 1
	fi
	echo "page protocol ${option:-as it is}: no error in $(sed -n 's/^ *\([0-9]*\) states, stored.*/\1/p' said) states"
done
for option in -DNO_CARRIED_PIN -DNO_IDENTITY_CHECK -DNO_GONE_CHECK; do
	search $option
	if ! grep -q 'assertion violated' said; then
		echo "page protocol $option: spin finds nothing, though a rule was taken out"
		cat said
		exit 1
	fi
	echo "page protocol $option: $(grep 'assertion violated' said)"
done
