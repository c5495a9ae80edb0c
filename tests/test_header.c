/* SPDX-License-Identifier: MIT */
/*
 * The public header comes first. It compiles alone in C, and in C++ in test_header.cpp, and the
 * program links.
 */
#include "filemap.h"

int main(void)
{
	struct fm_mm_options options = {.size = sizeof(options)};

	(void)options;
	if (!fm_version())
		return 1;
	return fm_budget_min(4096) >= 16 * 4096 && fm_budget_min(1234) == 0 ? 0 : 1;
}
