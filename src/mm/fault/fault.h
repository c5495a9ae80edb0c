/* SPDX-License-Identifier: MIT */
/* filemap_fault() makes one try of one fault. */
#ifndef FM_MM_FAULT_FAULT_H
#define FM_MM_FAULT_FAULT_H

struct fault;

unsigned filemap_fault(struct fault *vmf);

#endif
