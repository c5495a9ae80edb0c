/* SPDX-License-Identifier: MIT */
/* The work that is left after a fault has installed a page. */
#ifndef FM_MM_FAULT_AFTER_H
#define FM_MM_FAULT_AFTER_H

struct fault;

void fault_after_install(struct fault *vmf);

#endif
