/* SPDX-License-Identifier: MIT */
#include "filemap.h"

int main()
{
	fm_mm_options options = {};

	options.size = sizeof(options);
	return fm_version() && fm_budget_min(4096) >= 16 * 4096 ? 0 : 1;
}
