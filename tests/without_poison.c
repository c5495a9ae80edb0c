/* SPDX-License-Identifier: MIT */
/*
 * This file is linked into a test with --wrap=uffd_has_poison. The thread trap then reports errors
 * as on a kernel before Linux 6.6, which has no UFFDIO_POISON.
 */
#include "trap/internal.h"

bool __wrap_uffd_has_poison(const struct trap *trap);
bool __wrap_uffd_has_poison(const struct trap *trap)
{
	(void)trap;
	return false;
}
