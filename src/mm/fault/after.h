/* SPDX-License-Identifier: MIT */
/* What is left to do when a page has been installed. */
#ifndef FM_MM_FAULT_AFTER_H
#define FM_MM_FAULT_AFTER_H

struct fault;

void fault_after_install(struct fault *vmf);

#endif
