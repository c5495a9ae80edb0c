/* SPDX-License-Identifier: MIT */
/* The environment by which `filemap run` tells the shim its settings: numbers are bytes. */
#ifndef FM_RUN_ENVIRONMENT_H
#define FM_RUN_ENVIRONMENT_H

#define RUN_ENV_BUDGET    "FILEMAP_RUN_BUDGET"
#define RUN_ENV_MIN_SIZE  "FILEMAP_RUN_MIN_SIZE"
#define RUN_ENV_READAHEAD "FILEMAP_RUN_READAHEAD"
#define RUN_ENV_MATCH     "FILEMAP_RUN_MATCH"
#define RUN_ENV_STATS     "FILEMAP_RUN_STATS"
#define RUN_ENV_ALL       "FILEMAP_RUN_ALL"
#define RUN_ENV_VERBOSE   "FILEMAP_RUN_VERBOSE"

#define RUN_MIN_BYTES (16ull << 20) /* a smaller mapping is left to the kernel */

#endif
