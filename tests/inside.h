/* SPDX-License-Identifier: MIT */
/* The library's internal headers, for tests that look inside the library. */
#ifndef INSIDE_H
#define INSIDE_H

#include "filemap.h"
#include "io/io.h"
#include "mm/base/file.h"
#include "mm/base/mm.h"
#include "mm/base/patience.h"
#include "mm/base/self.h"
#include "mm/base/ticket.h"
#include "mm/base/view.h"
#include "mm/cache/dirty.h"
#include "mm/cache/file_dirt.h"
#include "mm/cache/index.h"
#include "mm/cache/lock.h"
#include "mm/fault/attempt.h"
#include "mm/fault/vmf.h"
#include "mm/fill/file_reads.h"
#include "mm/fill/record.h"
#include "mm/fill/share.h"
#include "mm/flush/file_writes.h"
#include "mm/flush/request.h"
#include "mm/frames/frame.h"
#include "mm/frames/frame_pool.h"
#include "mm/frames/lists.h"
#include "mm/frames/page.h"
#include "mm/frames/page_list.h"
#include "mm/frames/pool.h"
#include "mm/map/map_lock.h"
#include "mm/map/segments.h"
#include "mm/reclaim/clock.h"
#include "mm/reclaim/get.h"
#include "mm/reclaim/pin_sets.h"
#include "mm/fault/fault.h"
#include "mm/space/mm.h"
#include "mm/view/page_tables.h"
#include "mm/view/range.h"
#include "mm/view/run_in.h"
#include "os/atomic.h"
#include "os/keeper.h"
#include "os/os.h"
#include "stats/stats.h"
#include "store/hotset.h"
#include "store/store.h"
#include "trap/trap.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#endif
