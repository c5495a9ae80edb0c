/* SPDX-License-Identifier: MIT */
/*
 * filemap: mmap served from user space.
 *
 * The library answers a page fault on a filemap mapping from its own page cache. The bytes
 * come from any store that can read a byte range. One rule holds everywhere: no thread ever
 * holds the map lock while it does, or waits for, anything that can block.
 *
 * Conventions
 *   - Every function that can fail returns 0 or a negative errno. Results go through `ret_`
 *     parameters, which stay untouched on failure.
 *   - The library never prints and never exits. Messages go to the program's log function.
 *   - Lengths and offsets are bytes, and times are nanoseconds, unless a name says otherwise.
 *   - An option structure begins with its own size. Set `size` to sizeof, and leave the rest
 *     zero for the defaults. A NULL pointer in place of the structure means all defaults.
 *   - "Thread-safe": any thread may call the function at any time.
 *   - "Signal-safe": a signal handler may also call the function.
 *   - "Blocks on the store": the call waits for reads, writes or other work of the store.
 *
 * What every program must know
 *   - fork(): the child owns nothing. Every call on an object of the parent returns
 *     -EOWNERDEAD in the child. A touch of a mapping in the child is SIGSEGV, and never reads
 *     zeros.
 *   - SIGBUS: with the inline trap, a thread must leave SIGBUS unblocked while it touches a
 *     mapping. The kernel kills a process whose thread faults with SIGBUS blocked.
 *   - Signals: while a fault waits for a store, all signals of that thread are held back, as
 *     they are for a thread in an uninterruptible read. Set a deadline if a store may die.
 */
#ifndef FILEMAP_H
#define FILEMAP_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FM_VERSION_MAJOR 0
#define FM_VERSION_MINOR 1
#define FM_VERSION_PATCH 0

#if defined(__GNUC__)
#define FM_PUBLIC __attribute__((visibility("default")))
#else
#define FM_PUBLIC
#endif

/** An address space: its mappings, its page caches, its frame pool and one map lock. A frame
 *  is memory for one page. */
typedef struct fm_mm fm_mm;
/** An open object of a store, with its page cache. Reference-counted. */
typedef struct fm_file fm_file;

/** The library's version, "MAJOR.MINOR.PATCH". Static storage. Signal-safe. */
FM_PUBLIC const char *fm_version(void);

/* ------------------------------------------------------------------ address spaces */

/** How a fault reaches the library. */
enum fm_trap {
	/** FM_TRAP_INLINE. */
	FM_TRAP_DEFAULT = 0,
	/** The faulting thread gets SIGBUS and serves its own fault in the signal handler.
	 *  - Needs no privilege.
	 *  - A system call that is given a cold address fails with EFAULT: see fm_fault_in()
	 *    and fm_pin(). */
	FM_TRAP_INLINE = 1,
	/** A handler thread reads fault messages from the kernel.
	 *  - Faults of system calls are served too, if the kernel permits that: the process
	 *    has CAP_SYS_PTRACE, or vm.unprivileged_userfaultfd is 1. Otherwise a system call
	 *    fails as with the inline trap.
	 *  - A system call that waits for a page keeps its kernel locks, such as the lock of
	 *    a pipe or of the file that it writes. Other threads wait for these locks as
	 *    long.
	 *  - write() from a mapping of the same file works: the library's reads need no lock
	 *    of a local file. The library's writes need such a lock. So a read() with
	 *    O_DIRECT into a mapping of the file that it reads can wait for ever in two
	 *    cases. Case 1: fm_punch() or fm_truncate() changes those pages. Case 2: no more
	 *    pages may be dirty, and another write() to the file waits.
	 *  - A server of a FUSE file system must not map its own files. */
	FM_TRAP_THREAD = 2,
	/** No trap: only fm_fault_in() and fm_pin() bring pages in.
	 *  - A read of an absent page is SIGBUS (-ENODATA).
	 *  - A write to an absent page, or to a page that was not brought in for writing, is
	 *    SIGSEGV (-EACCES).
	 *  - The callbacks of mappings are not called. */
	FM_TRAP_CALL = 3,
};

/** How the library makes the bytes of a page appear in a mapping. */
enum fm_install {
	/** The library chooses: MOVE if the kernel has it (Linux 6.8), else COPY. */
	FM_INSTALL_AUTO = 0,
	/** The library moves the frame itself. A single page that is read alone is copied
	 *  instead.
	 *  - A copied page is protected against stray writes from the first moment.
	 *  - A moved page is protected some milliseconds later, in the background. A stray
	 *    write before that changes what this process sees of the page until the page is
	 *    read again. The write never reaches the store. */
	FM_INSTALL_MOVE = 1,
	/** The library copies the bytes into a read-only region.
	 *  - A stray write is SIGSEGV from the first moment.
	 *  - Costs up to twice the memory for a short time, counted within the budget. */
	FM_INSTALL_COPY = 2,
};

/** Flags of struct fm_mm_options. */
enum fm_mm_flags {
	/** For experiments only: every fault waits under the map lock, as in a fault path
	 *  without the rule. `lock_held_over_block` counts each such wait. */
	FM_MM_HOLD_LOCK = 1u << 0,
	/** Start a keeper: a helper process that shares the memory of this process and
	 *  outlives it.
	 *
	 *  If the process ends without fm_mm_destroy() (also by kill -9 or exec()), the
	 *  keeper writes the dirty pages of files open for writing to their stores, as the
	 *  kernel does for mmap(). The keeper then makes the data durable, and ends. The
	 *  memory stays allocated until then. The keeper does not outlive an event that ends
	 *  all processes of a cgroup or container. A keeper costs one process and one thread,
	 *  which sleep.
	 *
	 *  Limits:
	 *  - Local files only: otherwise fm_file_open() for writing returns -EOPNOTSUPP.
	 *  - At most 1024 such files open at once (-EMFILE).
	 *  - At most 16 programs with FM_KEEP for one file (-EUSERS).
	 *
	 *  The next program:
	 *  - fm_file_open() of the file, in any process of the network namespace, waits until
	 *    the keeper has ended. Other programs can call fm_keeper_wait().
	 *  - If the file belongs to the program's user and no process has the file open, the
	 *    keeper holds a lease (fcntl(2)) on the file, so that open() waits.
	 *  - If a process has the file open, the keeper first watches the file for a quarter
	 *    of a second.
	 *  - Before each write, the keeper checks whether another process has changed the
	 *    file since the end of the program. If so, the keeper writes nothing more, and
	 *    the rest is lost. fm_keeper_wait() and fm_file_open() report the loss to their
	 *    callers.
	 *
	 *  A change is another size or another mtime. These changes are not seen:
	 *  - a change whose writer sets the old mtime again
	 *  - a change in the same tick of the file system's clock as the program's own last
	 *    write (up to 10 ms; on Linux 6.13 or later never)
	 *  - a change between the keeper's check and its write (microseconds; a lease
	 *    excludes it)
	 *  - if a write by the program was under way at its end: a change between that end
	 *    and the keeper's first check, some microseconds later
	 *  The keeper takes changes for another's if the program itself made them, by other
	 *  ways than the library, in the last tenth of a second of its life.
	 *
	 *  If the store refuses a write (-ENOSPC), the keeper tries again. The keeper gives
	 *  up after 10 seconds without a success, and after two minutes in all.
	 *
	 *  Rights: the keeper has only the descriptors of the files. No capability is in
	 *  effect, and a filter leaves the keeper few system calls. When the program gives up
	 *  its user, groups or capabilities, the keeper follows within a second. */
	FM_KEEP = 1u << 1,
	/** No signal is ever used: the library installs no handler and raises nothing. For
	 *  programs that can put another mapping in the place of theirs (fm_release()), as
	 *  `filemap run` does.
	 *  - If a page cannot be read, or the access is past the end of the file, on_error of
	 *    the mapping is called (see fm_map()). The access waits until the program hands the
	 *    range back. The access is then repeated, in the program's own mapping.
	 *  - on_error runs in the trap's thread. It should note the error and wake another
	 *    thread: no access to a mapping, and no call of the library. Its result has no
	 *    meaning. It is called again if the access is repeated for another reason.
	 *  - Views are read-only memory, and pages come by COPY: the kernel itself refuses a
	 *    write, and what the kernel still reads of an evicted page (vmsplice(), MSG_ZEROCOPY)
	 *    stays as it was.
	 *  - Needs FM_TRAP_THREAD and a kernel that serves system calls by it; fm_mm_create()
	 *    returns -EPERM otherwise. No file can be opened for writing, no mapping is private,
	 *    and each mapping has on_error (-EINVAL). */
	FM_MM_NO_SIGNALS = 1u << 2,
};

enum fm_log_level { FM_LOG_ERROR = 0, FM_LOG_WARNING = 1, FM_LOG_INFO = 2 };
/** Receives one line without a newline.
 *  - Called from any thread, never from a signal handler, and never with a lock held.
 *  - May be called until fm_mm_destroy() returns, or until fm_mm_create() returns an error.
 *    `arg` must live as long. */
typedef void (*fm_log_fn)(void *arg, enum fm_log_level level, const char *line);

struct fm_mm_options {
	size_t size; /**< sizeof(struct fm_mm_options) */
	/** Memory for pages, in bytes. At least fm_budget_min(). 0: a quarter of the cgroup's
	 *  limit or an eighth of the machine's memory, but between 16 MiB and 1 GiB. */
	uint64_t budget_bytes;
	uint32_t trap;    /**< enum fm_trap */
	uint32_t install; /**< enum fm_install */
	uint32_t flags;   /**< enum fm_mm_flags */
	uint32_t reserved;
	fm_log_fn log; /**< NULL: silent */
	void *log_arg;
};

/**
 * The smallest budget, in bytes, that serves files of this page size: 16 frames. 0 for an
 * invalid page size.
 *
 * Why 16: instructions in progress may hold one quarter of the frames. The largest such
 * instruction, a string move that straddles pages at both ends, needs four frames at once.
 *
 * Signal-safe.
 */
FM_PUBLIC uint64_t fm_budget_min(uint32_t page_size);

/**
 * Make an address space.
 *
 * All metadata is allocated and populated here, in proportion to the budget. On an error, one
 * line to the log function says what is missing, and what to do about it.
 *
 * Thread-safe.
 * Errors:
 *   -EINVAL      invalid options; budget below fm_budget_min(4096) or above 8 TiB
 *   -ENOMEM      no memory
 *   -ENOSYS      the kernel has no userfaultfd
 *   -EPERM       userfaultfd is closed to this user
 *   -EAGAIN      no thread available: RLIMIT_NPROC, or pids.max of the cgroup
 *   -EOPNOTSUPP  a requested feature is missing
 *   -EMFILE      the process has 256 address spaces already
 */
FM_PUBLIC int fm_mm_create(const struct fm_mm_options *options, fm_mm **ret_mm);

/**
 * End an address space.
 *
 * - All dirty pages are written first.
 * - Faults in flight in other threads end with -ECANCELED: as SIGBUS, or through fm_guard().
 * - At return, all mappings, files and pins are gone, and all memory and descriptors are
 *   given back. No callback is called after the return.
 * - The call waits for threads inside a read of the store that cannot be interrupted (a local
 *   file without a deadline).
 * - If a store refuses writes, the library tries again, with pauses, for 10 seconds a file.
 * - If a store does not answer, the library waits, for each file, until 10 seconds have
 *   passed since the store last took anything. Pages that are still dirty are then given up,
 *   and never written later. A request that is under way by then may still reach the store.
 *   Its memory, descriptors and addresses are given back when the request ends.
 *
 * Do not call from inside a fault, nor concurrently with other calls on the same address
 * space.
 * Errors:
 *   -EIO      some dirty pages are lost, or may be. The log function learns of which file, how
 *             much, and why. Everything else is done
 *   -EDEADLK  called from the log function of the address space, or from an on_write_error of one
 *             of its files. Nothing is done
 */
FM_PUBLIC int fm_mm_destroy(fm_mm *mm);

/* ------------------------------------------------------------------ files */

/**
 * What happens when another process changes a file behind an open snapshot.
 *
 * A change is another size or another modification time (mtime) than the snapshot has. The
 * library checks both after each read of the store. Setting mtime (touch) is therefore a
 * change, though no byte differs. These are not changes, because they touch the inode alone:
 * chmod, chown, link, unlink, rename, setxattr, reading (atime), and the copy-up of an
 * overlay.
 *
 * Size and mtime do not show the following changes. After such a change, mapped pages may be
 * older than other pages:
 *   - Stores through a writable mmap() of the file, by any process, after the first store to
 *     a page since the kernel wrote that page back. On tmpfs: all such stores.
 *   - A rewrite in place that sets mtime back to the same nanosecond (utimensat(), touch -r),
 *     unless the library reads while mtime is different.
 *   - One write() call that was under way when the file was opened, or when
 *     FM_CHANGED_REFRESH checked the file.
 *   - Writes to a block device.
 *   - On NFS, FUSE and other remote file systems: what the kernel's attribute cache does not
 *     know yet. With a deadline the library never asks the server, so the attribute cache
 *     alone decides.
 *   - Changes within one tick of coarse time stamps. On Linux 6.13 or later, each change of a
 *     file on ext4, XFS, Btrfs and tmpfs has a time stamp of its own. Elsewhere a tick is 1
 *     to 10 ms long, and one or two seconds on ext3, FAT, and ext4 with 128-byte inodes.
 *     fm_file_open() with FM_CHANGED_ERROR waits once, until one tick has passed since the
 *     file's last change. The library does not see the change if the file is written during
 *     this wait, and for the last time in the tick in which the wait ends.
 * If this is not enough, let writers make a new file and rename() it over the old one.
 */
enum fm_changed {
	/** Pages that are not read yet fail with -ESTALE. Bytes from before and after a
	 *  change are never mixed. Growth is a change too: size and mtime cannot show that
	 *  bytes were only appended. fm_file_refresh() makes the file a new snapshot.
	 *
	 *  The program's own write() to the file is a change too. The kernel sets mtime first,
	 *  and then reads what is to be written. So a write() from a page of a mapping of the
	 *  same file fails with EFAULT if the page is not cached, also with the thread trap.
	 *  These ways out exist: FM_CHANGED_REFRESH, fm_pin() before the call, or a handle for
	 *  writing. */
	FM_CHANGED_ERROR = 0,
	/** The library drops the cached pages and reads them again. The library checks the
	 *  file after each read, and when the program touches an address past the end. A
	 *  program that maps more than the file has therefore sees growth when it touches the
	 *  new part. Bytes that were appended to an installed last page appear when a change
	 *  is found, by one of these checks or by fm_file_refresh(). Until then the rest of
	 *  that page reads as zeros. */
	FM_CHANGED_REFRESH = 1,
	/** The program itself keeps writers away, by a read lease of its own (fcntl(2),
	 *  F_SETLEASE), and ends its mappings (fm_release()) before it gives the lease up. The
	 *  library checks nothing: touch(1) is no change. If a read comes short all the same,
	 *  the access fails with -ESTALE. A handle has a cache and a view of its own. */
	FM_CHANGED_LEASE = 2,
};

/** Flags of struct fm_file_options. */
enum fm_file_flags {
	/** Open for writing too. The file then belongs to this process:
	 *  - The library does not look for writes by other processes (`changed` has no
	 *    meaning).
	 *  - Other processes read what the last fm_sync() left in the file.
	 *  - Pages have 4096 bytes.
	 *
	 *  Dirty pages are written
	 *  - after some seconds, or when many pages are dirty
	 *  - when the file is closed or the address space is destroyed
	 *  - when the program ends by a return from main, by exit() or by quick_exit()
	 *  - when the program ends in another way, such as _exit(), only with FM_KEEP
	 *
	 *  Writes by atexit() handlers and static destructors of the program are written too.
	 *  Writes after the library's last handler may be lost: the log function learns of
	 *  the first such write. The last handler runs after the destructors of all shared
	 *  libraries. With quick_exit(), it runs after all handlers. Exception: if dlopen()
	 *  has loaded the library, handlers that are older than the library run later. */
	FM_FILE_WRITE = 1u << 0,
	/** With FM_FILE_WRITE: if the file does not exist, make an empty file (mode 0666 less
	 *  the umask). */
	FM_FILE_CREATE = 1u << 1,
	/** Lock the whole file against other processes, until the last handle and mapping of
	 *  the file in this process has gone.
	 *  - The lock is exclusive if the file is opened for writing, and shared otherwise.
	 *  - The lock is advisory. It belongs to the open file description (F_OFD_SETLK, see
	 *    fcntl(2)), and counts for processes that ask by this flag or by fcntl(). It is
	 *    not the lock of flock(2).
	 *  - If another process holds the lock, fm_file_open() returns -EWOULDBLOCK at once.
	 *    The log function learns which process, as far as the kernel knows.
	 *  - A keeper (FM_KEEP) holds the lock until the keeper ends.
	 *  - Local files without filters only (-EOPNOTSUPP). */
	FM_FILE_LOCK = 1u << 2,
};

/**
 * A write to the store failed, or a flush could not make written data durable. The bytes are
 * still in memory, dirty, and the library writes them again later.
 *
 * - `error` is the negative errno. `offset` and `len` say where; `len` 0 means the whole
 *   file.
 * - The function runs in the thread in which I/O ends, with no lock held. It should note the
 *   error and wake another thread. It must not wait for I/O, because it would wait for its
 *   own thread: no access to a mapping, no exit(). It may call fm_stats(), fm_completions()
 *   with a timeout of 0, and fm_sync() with FM_SYNC_ASYNC, and no other function of the
 *   library.
 * - The function may be called after fm_file_close(), as long as part of the file is to be
 *   written. `arg` must live until fm_mm_destroy() returns.
 */
typedef void (*fm_write_error_fn)(void *arg, uint64_t offset, uint64_t len, int error);

/** A value of `page_size`: the library adapts to the way in which the file is read. Pages
 *  have 4096 bytes. A reader that goes from one end to the other gets 2 MiB at once, as one
 *  huge page, if the budget is 13 MiB or more and pages are moved (FM_INSTALL_AUTO, Linux
 *  6.8). The statistics show the choice: `groups_made`, `group_installs`, and `groups_split`. */
#define FM_PAGE_SIZE_AUTO 0u

struct fm_file_options {
	size_t size; /**< sizeof(struct fm_file_options) */
	/** Unit of the page cache: a power of two, 4096 to 2 MiB; or FM_PAGE_SIZE_AUTO. */
	uint32_t page_size;
	/** Largest readahead window, in bytes. 0: 8 MiB. UINT32_MAX: no readahead.
	 *  - A window is never larger than an eighth of the budget.
	 *  - A window belongs to one reader of the file, which goes forwards, backwards, or
	 *    in equal steps (then the window has at most 32 pages).
	 *  - A window begins with a few pages and doubles up to 1 MiB. It grows beyond 1 MiB
	 *    while its reader has to wait. */
	uint32_t readahead_bytes;
	/** A read that takes longer than this, in nanoseconds, fails with -ETIMEDOUT. 0: the
	 *  `deadline` parameter of the URI, or no deadline. */
	uint64_t deadline_ns;
	uint32_t changed; /**< enum fm_changed */
	uint32_t flags;   /**< enum fm_file_flags */
	fm_write_error_fn on_write_error; /**< or NULL */
	void *on_write_error_arg;
	/** Bytes of address space to keep free behind the file's end, for mappings that reach
	 *  past the end and for a file that grows (fm_truncate(), FM_CHANGED_REFRESH). They
	 *  cost no memory. 0: 1 GiB; if RLIMIT_AS or RLIMIT_DATA limits the process, an
	 *  8192nd of the limit and at least 64 KiB.
	 *
	 *  The file's own addresses are reserved at open. If they are more than a 64th of such
	 *  a limit, or more than the process may have, fm_map() reserves them instead, 2 MiB or
	 *  more at a time, where the program maps. Parts of a file larger than the limit can
	 *  thus be mapped. What fm_map() has reserved stays reserved until the last handle and
	 *  mapping of the file have gone. Such a process needs /proc. */
	uint64_t reserve_bytes;
};

/**
 * Open an object of a store.
 *
 * The URI is one of
 *   PATH                             a local regular file or block device. Every text that does not
 *                                    begin with a scheme below is a path: byte for byte, without
 *                                    decoding and without parameters ("100%.db", "a?b", "log:1").
 *                                    A path that begins like a scheme is written ./memory:1M
 *   file:PATH                        the same, with parameters
 *   memory:SIZE[?seed=N]             SIZE bytes of a pattern, for tests and measurements
 *   faulty:URI?PARAMETERS            any store, made slow or bad; see fm_file_control()
 * After a scheme, parameters follow '?' and are joined by '&'. After a scheme, and in the
 * path inside a faulty:, %25 stands for a percent sign and %3F for a question mark. Sizes
 * take K, M, G, T (powers of 1024). Times take us, ms, s. Every store takes
 *   deadline=TIME                    as the option `deadline_ns`
 *   record=FILE                      write a hot set to FILE: the ranges that are touched, in the
 *                                    order of their first touch
 *   hotset=FILE                      call fm_file_hotset() at once. If FILE does not exist, the log
 *                                    function gets a line, and the file is opened
 * `record` and `hotset` may name the same FILE.
 *
 * The library writes FILE of `record` each second that brings something new, when the last
 * reference to the file has gone (at the latest when fm_mm_destroy() returns), and when the
 * program exits. The log of touches has a place for as many ranges as the budget has pages of
 * 4096 bytes. FILE says how many touches were lost.
 *
 * Environment, for all files of a process:
 *   FILEMAP_RECORD                   a folder, with one hot set for each file. `filemap record`
 *                                    sets the variable. It overrides record=
 *   FILEMAP_HOTSET                   a hot set, for files without hotset=. Only the section that
 *                                    was recorded of the same file is read
 * If a variable names something that cannot be used, the log function gets a line, and the
 * file is opened. Neither variable counts if the program runs with more rights than its user.
 *
 * Several handles of one object. A program may open again what is open already, by the same
 * name, by another name (links, bind mounts), or by a descriptor. The library compares device
 * and inode, or the device number of a block device.
 *   - If one handle is for writing, all handles of an fm_mm show the same pages at once,
 *     older handles too.
 *   - Each handle has its own right to write, and its own on_write_error, which is called
 *     while the handle is open. fm_file_sync() of each handle reports each failure.
 *   - The options of the first handle hold for all: page_size (4096), readahead_bytes,
 *     record=, hotset=. The shortest deadline counts for all. `changed` has no meaning from
 *     the moment when one handle is for writing until the last handle and mapping have gone.
 *   - Handles for reading share a cache if page_size, `changed` and deadline are the same,
 *     the URIs have neither record= nor hotset=, and the object has not changed since.
 *     Otherwise each handle has a cache of its own.
 *   - If a closed file is still being written back, the call waits, for at most 10 seconds or
 *     the deadline.
 *   - memory: stores, and filtered stores for reading, have no identity. On overlayfs the
 *     first write to a file by any process (copy-up) gives the file another inode. An older
 *     handle for reading then shows another object.
 *   - Other processes have caches of their own: see `changed`.
 *
 * Thread-safe. May block on the store.
 * Errors:
 *   -EINVAL       invalid URI or options
 *   -EISDIR, -ENOENT, -EACCES, ...: the store's
 *   -ENOSPC       the budget is below fm_budget_min(page_size)
 *   -EOVERFLOW    the object, or `reserve_bytes`, is larger than 64 TiB
 *   -EBUSY        one cache cannot serve two handles, one of which is for writing: they are in two
 *                 fm_mm; they are behind different faulty: filters; handles for reading have a
 *                 page_size above 4096, or two caches; or fm_pin() holds pages of a handle for
 *                 reading. The log function gets a line that names the first handle
 *   -EBUSY        after 30 seconds, the keeper (FM_KEEP) of a process that has ended still writes
 *                 to the file
 *   -EWOULDBLOCK  FM_FILE_LOCK: another process holds the lock
 *   -ETIMEDOUT    the file was closed, and is still being written back
 *   -EUSERS, -EMFILE, -EPIPE (the keeper has gone): with FM_KEEP, see there
 */
FM_PUBLIC int fm_file_open(fm_mm *mm, const char *uri, const struct fm_file_options *options,
			   fm_file **ret_file);

/**
 * Open the local file that a descriptor shows, for programs that get descriptors
 * (memfd_create(), O_TMPFILE, SCM_RIGHTS, files without a name). All options count except
 * FM_FILE_CREATE.
 *
 * - The descriptor stays the program's, which may close it at once.
 * - The library opens the file anew (by /proc). The offset and the status flags of the
 *   descriptor are neither used nor changed. O_APPEND, O_DIRECT and O_NONBLOCK have no
 *   effect.
 * - If the file cannot be opened anew (its permissions forbid that to this user, or there is
 *   no /proc), the library shares the open file description of the descriptor.
 *
 * Thread-safe. May block on the store.
 * Errors: as fm_file_open(), and
 *   -EBADF   not a descriptor, or opened with O_PATH
 *   -EACCES  write-only; or FM_FILE_WRITE, and not open for reading and writing
 *   -EPERM   FM_FILE_WRITE, and the file is sealed against writing
 *   -EINVAL  the description is to be shared, and has O_DIRECT, O_NONBLOCK or (with FM_FILE_WRITE)
 *            O_APPEND. The log function learns which
 */
FM_PUBLIC int fm_file_open_fd(fm_mm *mm, int fd, const struct fm_file_options *options,
			      fm_file **ret_file);

/**
 * Read the ranges that a hot set names, in the background. A hot set is a file that `record=`
 * or `filemap record` has written. The call reads the list and returns.
 *
 * - Ranges that were touched first are read first.
 * - The reads overtake no read that a thread waits for, and take no frame from another page.
 *   They end when less than a quarter of the frames are free.
 * - Pages are cached and not installed: a touch is a minor fault. `hotset_pages` counts them.
 * - Cached pages are skipped. Ranges beyond the end of the file are left out.
 * - If the list has sections of several files, the section of this file is used.
 * - If the file has changed since the recording, or the list does not know the file, the log
 *   function gets a line.
 *
 * Thread-safe. Blocks on reading the list.
 * Errors:
 *   -EINVAL                 not a hot set; the log function learns the line
 *   -EFBIG                  more than 4194304 ranges; the log function learns the line
 *   -EBUSY                  the hot set before this one is still being read
 *   -ENOENT, -EACCES, ...   the list cannot be read
 *   -ENOMEM                 no memory
 */
FM_PUBLIC int fm_file_hotset(fm_file *file, const char *path);

/**
 * Wait until no keeper (FM_KEEP) has the file: neither the keeper of a process that has
 * ended, nor the keeper of a living process. For supervisors, before they start a program
 * that opens the file without this library. Needs no fm_mm.
 *
 * `timeout_ns` counts from now. The call reaches the keepers of this network namespace, and
 * counts keepers whose user may write to the file.
 *
 * Thread-safe; not signal-safe.
 * Errors:
 *   -EINVAL                 no path
 *   -ETIMEDOUT              the time has passed
 *   -ENOENT, -EACCES, ...   the path cannot be looked up
 *   -ESTALE                 a keeper found changes by another process, and has not written the rest
 *   -EIO, -ENOSPC, ...      a keeper could not write everything
 */
FM_PUBLIC int fm_keeper_wait(const char *path, uint64_t timeout_ns);

/**
 * Give a handle back. Mappings and other handles keep the file open. Dirty pages are written
 * first, and not flushed: fm_file_sync() flushes. The handle is given back on an error too.
 *
 * Thread-safe. Blocks on the store.
 * Errors:
 *   -ETIMEDOUT  the file's deadline has passed, or the store has taken nothing for 10 seconds. The
 *               rest is written in the background
 *   the store's errors of writing
 */
FM_PUBLIC int fm_file_close(fm_file *file);

/**
 * The file's size in bytes, as far as it is known: from the open, from fm_truncate(), or from
 * the last check of the store (by FM_CHANGED_REFRESH, fm_file_refresh() or fm_invalidate()).
 *
 * Thread- and signal-safe.
 */
FM_PUBLIC int fm_file_size(fm_file *file, uint64_t *ret_size);

/**
 * Check at once whether others have changed the file, and take the changes over.
 *
 * A file that is not open for writing: if the file has changed, all cached pages are dropped,
 * also those under fm_pin(), and the size is the present one. Under FM_CHANGED_ERROR the file
 * becomes a snapshot of its present state. A program can thus go on after -ESTALE with its
 * present mappings.
 *
 * A file open for writing: for changes that were made without this library, such as
 * ftruncate() or write() by a descriptor of the program. The size is taken over. Dirty pages
 * within the size are written and flushed, and cached pages are dropped. Dirty pages beyond a
 * smaller size are lost.
 *
 * *ret_changed (may be NULL) says whether the file had changed. For a file open for writing,
 * it says whether the size had changed.
 *
 * Thread-safe, also against faults; not signal-safe. Blocks on the store. Under
 * FM_CHANGED_ERROR with coarse time stamps, the call also waits until the next change can be
 * seen (see enum fm_changed).
 * Errors:
 *   -EOPNOTSUPP  the store cannot tell
 *   the store's; for a file open for writing, also those of fm_invalidate()
 */
FM_PUBLIC int fm_file_refresh(fm_file *file, bool *ret_changed);

/**
 * Read bytes from the store itself, past the page cache, as a plain read does.
 *
 * - A read is short only at the end of the file.
 * - The file's deadline does not apply.
 * - If the file is open for writing, use a buffer and an offset that are multiples of 4096:
 *   such a read is several times as fast.
 *
 * Thread-safe. May block on the store.
 */
FM_PUBLIC int fm_file_read(fm_file *file, void *buf, size_t len, uint64_t offset, size_t *ret_len);

/**
 * Change a parameter of a store while it runs, as "key=value". Stores behind faulty: have
 *   delay=TIME or delay=MIN..MAX   time before each read
 *   rate=BYTES                     bytes a second
 *   iops=N                         reads a second
 *   error=ERRNO                    the errno of failed reads; EIO by default
 *   error-every=N                  each n-th read fails
 *   error-at=OFFSET                reads that touch the offset fail
 *   short-every=N                  each n-th read is cut short
 *   stuck=0|1                      1: reads never end
 * and, for a file open for writing,
 *   write-delay, write-error, write-error-every, write-error-at=OFFSET|none,
 *   write-short-every, write-stuck the same for writes
 *   flush-delay, flush-error, flush-error-every, flush-stuck
 *                                  the same for flushes
 *   lose=0|1                       1: the filter keeps what is written, and reads find it there.
 *                                  The store below gets it by a flush that succeeds. 0: what the
 *                                  filter has goes to the store below now. Changes of size, and
 *                                  holes, go to the store below at once
 *   crash=1, crash=SEED            with lose=1: what was not flushed is lost, as after a power
 *                                  failure. With another number than 1, each block of 4096 bytes
 *                                  is lost or has arrived, half of them each, as the number
 *                                  decides. The page cache keeps its pages: look with
 *                                  fm_file_read(). Not in a URI
 *
 * Thread-safe.
 * Errors:
 *   -EINVAL      invalid setting
 *   -EOPNOTSUPP  the store has no such parameter
 */
FM_PUBLIC int fm_file_control(fm_file *file, const char *setting);

/* ------------------------------------------------------------------ mappings */

/** A failed access, as a callback or fm_guard() sees it. */
struct fm_error {
	void *addr;      /**< the address that was touched */
	uint64_t offset; /**< its offset in the file; 0 if no mapping was found */
	int signo;       /**< SIGBUS or SIGSEGV: the signal that the program would get */
	/** A negative errno:
	 *  - -ENXIO: past the end
	 *  - -EFAULT: no mapping
	 *  - -EACCES: a write that is not allowed
	 *  - -ETIMEDOUT, -ESTALE, -ECANCELED, and the store's */
	int error;
};

enum fm_error_action {
	FM_ERROR_RAISE = 0, /**< go on: fm_guard(), the program's handler, the default action */
	FM_ERROR_RETRY = 1, /**< try the access again */
};

/** Called in the thread that faulted, with no lock held. With the inline trap the function
 *  runs in a signal handler and may make signal-safe calls only.
 *
 *  An access that has begun before fm_unmap() may call the function after fm_unmap() has
 *  returned. `arg` must live until the program's threads have left the mapping, or until
 *  fm_mm_destroy() returns. */
typedef enum fm_error_action (*fm_error_fn)(void *arg, const struct fm_error *error);

/** Flags of struct fm_map_options. */
enum fm_map_flags {
	/** The mapping may be written to. Shared (the default): the writes go to the file,
	 *  which must be open for writing. */
	FM_MAP_WRITE = 1u << 0,
	/** The mapping is private. With FM_MAP_WRITE:
	 *  - What is written stays in the mapping and never reaches the file. Each private
	 *    mapping is separate, at an address of its own.
	 *  - What does not fit into the budget goes to a scratch file without a name in
	 *    $TMPDIR or /var/tmp.
	 *  - Bytes that the program has not written are the store's, as they are at the first
	 *    touch. They include what was written to shared mappings before this mapping was
	 *    made. */
	FM_MAP_PRIVATE = 1u << 1,
};

struct fm_map_options {
	size_t size; /**< sizeof(struct fm_map_options) */
	fm_error_fn on_error;
	void *on_error_arg;
	uint32_t flags; /**< enum fm_map_flags */
	uint32_t reserved;
};

/**
 * Map bytes [offset, offset+len) of a file, read-only unless FM_MAP_WRITE is given. `offset`
 * is a multiple of 4096. `len` is not 0, and need not be a multiple of 4096.
 *
 * The mapping lives until fm_unmap() or fm_mm_destroy(). The file may be closed before.
 *
 * Past the end of the file: the rest of the last 4096-byte page reads as zeros, and bytes
 * that are written there never reach the store. A touch of any other byte past the end is
 * SIGBUS.
 *
 * Mapping the same bytes again gives the same address, with the permissions of both mappings.
 * Each fm_map() wants its own fm_unmap().
 *
 * Writes:
 *   - A write where no mapping allows writing is SIGSEGV.
 *   - A write that makes a page dirty may wait, as a read does, while too much is dirty.
 *   - If the store refuses to take what is to be written back, a write may be SIGBUS with
 *     that errno.
 *   - If a program writes page after page, one fault makes up to 63 following pages of the
 *     mapping writable. These pages are then dirty, are written back as they are, and get
 *     blocks of their own in a sparse file. Not with FM_ADVICE_RANDOM.
 *
 * What the program may do to a mapping without this library:
 *   - mprotect() and its undoing are allowed. What is written there is still written back.
 *   - MADV_DONTNEED, munmap(), mremap() and mmap(MAP_FIXED) on part of a mapping take the
 *     library's pages away: use fm_unmap() instead. The library notices when it comes to
 *     these pages.
 *   - The library then leaves the program's own memory alone, also in fm_unmap() and
 *     fm_mm_destroy(). Dirty pages that have gone are lost: `dirty_lost` counts them,
 *     fm_sync(), fm_file_close() and fm_mm_destroy() return -EIO, and the log function learns
 *     the file and the offset. fm_fault_in() and fm_pin() of such a range return -EFAULT. An
 *     access there does not reach the library.
 *   - If the range is mapped again by fm_map() while the program's memory is still there, the
 *     bytes of a file for reading appear at another address. For a file for writing this is
 *     an error.
 *   - The library cannot notice if the program unmaps and maps the very page on which the
 *     library works at that moment.
 *   - process_madvise() by other processes, compaction, khugepaged and PAGEMAP_SCAN may work on
 *     a mapping: none of them loses what was written. MADV_PAGEOUT and MADV_COLD make later
 *     accesses slower.
 *
 * Thread-safe. Never waits for a fault in flight. With FM_MAP_PRIVATE, the call first writes
 * the dirty pages of the file.
 * Errors:
 *   -EINVAL       invalid argument
 *   -EACCES       FM_MAP_WRITE without FM_MAP_PRIVATE, and the file is not open for writing
 *   -EOVERFLOW    the range goes past 2^63, or ends more than `reserve_bytes` (struct
 *                 fm_file_options) past the size that the file had when it was opened
 *   -ENOMEM       no memory; or RLIMIT_AS or RLIMIT_DATA allows no more addresses
 *   -EADDRINUSE   a file open for writing, and the program has put other memory into the range
 *   -EOWNERDEAD   in a forked child
 *   with FM_MAP_PRIVATE, the errors of fm_file_close()
 */
FM_PUBLIC int fm_map(fm_file *file, uint64_t offset, size_t len,
		     const struct fm_map_options *options, void **ret_addr);

/**
 * Unmap [addr, addr+len), all or part of mappings. `addr` is a multiple of 4096; `len` is
 * rounded up.
 *
 * - Afterwards an access is SIGSEGV, unless another mapping shows the same bytes.
 * - Ranges where nothing is mapped are skipped, as by munmap().
 * - A page may stay readable as a whole in two cases: the file's page_size is above 4096 and
 *   part of the page is still mapped; or the page is being written back, until that write
 *   ends.
 *
 * Thread-safe. Never waits for a fault.
 * Errors:
 *   -EINVAL  invalid argument
 *   -ENOMEM  a mapping was to be cut in two. The part before may be unmapped already
 */
FM_PUBLIC int fm_unmap(fm_mm *mm, void *addr, size_t len);

/**
 * Hand [addr, addr+len) back to the program, while other threads access the range.
 *
 * First put memory of your own over the range, by one mmap() or mremap() with MAP_FIXED: from
 * that moment the program sees its own memory there, and pages can no longer be installed. Then
 * call fm_release(). At return
 * - every access that waited for a page has been repeated, in the program's memory
 * - nothing of the library touches, protects or unmaps the range any more, not even
 *   fm_mm_destroy(), whatever the program maps there later
 * - all mappings of the range have gone. fm_map() of the same file gives other addresses.
 *
 * The range is page-aligned, belongs to one file that is not open for writing, and contains all
 * mappings of that file (of the one mapping, with FM_MAP_PRIVATE).
 *
 * Thread-safe. Waits until the reads that faults in the range have begun are over.
 * Errors:
 *   -EINVAL  invalid argument; the file has mappings outside the range, or is open for writing
 *   -EBUSY   the library's memory is still there
 */
FM_PUBLIC int fm_release(fm_mm *mm, void *addr, size_t len);

/**
 * Tell whether the library's memory is still everywhere in [addr, addr+len). *ret_intact is false
 * if the program has unmapped some of the range, or has put other memory there, without this
 * library (see fm_map()). The answer may be old when the call returns. Takes no lock.
 *
 * Thread-safe.
 * Errors:
 *   -EINVAL  invalid argument
 */
FM_PUBLIC int fm_intact(fm_mm *mm, const void *addr, size_t len, bool *ret_intact);

enum fm_advice {
	FM_ADVICE_NORMAL = 0,
	FM_ADVICE_RANDOM = 1,     /**< no readahead */
	FM_ADVICE_SEQUENTIAL = 2, /**< full windows at once */
	FM_ADVICE_WILLNEED = 3,   /**< start reading; does not wait */
	FM_ADVICE_DONTNEED = 4,   /**< drop the pages of the range from the cache */
	/** A weight, not a pin. From now on, a touched page of the range counts as a page
	 *  that was touched again later, and is skipped once when its turn to be evicted
	 *  comes. An installed page counts as touched. */
	FM_ADVICE_KEEP = 5,
	/** Evict the cached pages of the range before all other pages, when memory is wanted.
	 *  - Until then, a touch reads nothing from the store. A touch makes the page, and
	 *    the pages that are installed with it, like other pages again.
	 *  - Where pages are installed by COPY they stay installed, so that no touch is seen.
	 *  - Pages that are in use or pinned are not changed. */
	FM_ADVICE_COLD = 6,
};

/**
 * Advise on [addr, addr+len), as madvise(). NORMAL, RANDOM and SEQUENTIAL replace each other.
 * KEEP combines with each of them, until NORMAL ends KEEP for pages that are touched from
 * then on. The other values act once.
 *
 * Thread-safe.
 * Errors:
 *   -EINVAL  invalid argument
 *   -ENOMEM  part of the range is not mapped; the rest is advised
 */
FM_PUBLIC int fm_advise(fm_mm *mm, void *addr, size_t len, enum fm_advice advice);

/** What fm_residency() says of a page of 4096 bytes. */
enum fm_resident {
	FM_RESIDENT_CACHED = 1u << 0, /**< its bytes are in the cache: a touch reads nothing */
	FM_RESIDENT_MAPPED = 1u << 1, /**< it is installed: a touch does not fault */
	FM_RESIDENT_PINNED = 1u << 2, /**< fm_pin() holds it */
};

/**
 * Which pages of [addr, addr+len) are resident, as mincore(). `addr` is a multiple of 4096;
 * `len` is rounded up.
 *
 * `vec` has one byte for each page of 4096 bytes, also if the file's page_size is larger.
 * Each byte gets the bits of enum fm_resident. Past the end of the file the byte is 0.
 *
 * - No page needs a system call of its own. The whole call makes two, for the signal mask.
 * - The call does not wait for reads, faults or the store.
 * - Each byte is true of one moment during the call, and may be old when the call returns:
 *   every page without fm_pin() can be evicted at any time.
 * - A page that comes, goes or moves meanwhile may be reported as absent. A page that
 *   something other than the library has emptied is reported as it was before.
 *
 * Thread-safe.
 * Errors:
 *   -EINVAL  invalid argument
 *   -ENOMEM  part of the range is not mapped, and has 0 for its pages; the rest is reported
 */
FM_PUBLIC int fm_residency(fm_mm *mm, const void *addr, size_t len, unsigned char *vec);

enum fm_fault_in_flags {
	/** Do not wait: begin the reads and return -EAGAIN. Call again when fm_event_fd() is
	 *  readable, or later. The library reads only what was asked for, without readahead. */
	FM_NOWAIT = 1u << 0,
	/** As if the program had written to each page, so that system calls may write there.
	 *  The pages are dirty, and writable without a fault until they are written back, or
	 *  until fm_unpin() if fm_pin() holds them. -EACCES if no mapping allows writing. */
	FM_WRITE = 1u << 1,
};

/**
 * Bring the pages of [addr, addr+len) in and install them, as if the program had touched each
 * page. `flags`: enum fm_fault_in_flags.
 *
 * The pages can be evicted again at once: use fm_pin() to keep them. The library reads the
 * range in large pieces, several at once, as far ahead as an eighth of the frames. For many
 * ranges at once see fm_fault_in_batch().
 *
 * Thread-safe. Blocks on the store, except with FM_NOWAIT.
 * Errors:
 *   -EINVAL  invalid argument
 *   -EAGAIN  FM_NOWAIT: reads have begun
 *   -EFAULT  not mapped
 *   -EACCES  FM_WRITE, and no mapping allows writing
 *   -ENXIO   past the end
 *   the store's
 * With FM_NOWAIT, only the first call after a failed read returns the error. A read that
 * passed its deadline is begun again.
 */
FM_PUBLIC int fm_fault_in(fm_mm *mm, const void *addr, size_t len, unsigned flags);

/**
 * A descriptor for an event loop that calls fm_fault_in() or fm_pin() with FM_NOWAIT.
 *
 * - The descriptor is an eventfd, non-blocking and close-on-exec. It is made at the first
 *   call.
 * - The library writes the descriptor when something that was asked for has ended, or when
 *   there may be room for a page or read that found none. The descriptor does not say which:
 *   repeat the calls.
 * - Read the 8 bytes first and then repeat the calls, so that no event is missed. The library
 *   writes once, and not again before the next call with FM_NOWAIT.
 * - Several event loops may share the descriptor only with EPOLLET, and without reading it. A
 *   queue for each loop is better.
 * - The descriptor belongs to the fm_mm. Do not close it: fm_mm_destroy() does.
 *
 * Thread-safe.
 * Errors:
 *   -EINVAL, -EMFILE and the like
 */
FM_PUBLIC int fm_event_fd(fm_mm *mm, int *ret_fd);

/**
 * As fm_fault_in(), and keep the pages installed until fm_unpin() of the same range. System
 * calls may then use the range under every trap. The call reserves its frames first, or
 * fails.
 *
 * Thread-safe.
 * Errors: as fm_fault_in(), and
 *   -ENOMEM     pins would leave less than a quarter of the frames to all others
 *   -EOVERFLOW  a page is pinned 65,535 times already
 */
FM_PUBLIC int fm_pin(fm_mm *mm, const void *addr, size_t len, unsigned flags);
/** End one fm_pin() of the same range. Thread-safe. */
FM_PUBLIC int fm_unpin(fm_mm *mm, const void *addr, size_t len);

/* ------------------------------------------------------------------ writing back */

/** Flags of fm_sync() and fm_file_sync(). */
enum fm_sync_flags {
	FM_SYNC_ASYNC = 1u << 0, /**< begin to write dirty pages; wait for nothing */
};

/**
 * Make durable what the program wrote to [addr, addr+len) of shared mappings before the call,
 * as msync(MS_SYNC).
 *
 * The call writes dirty pages, waits for writes under way in the range, and then has the
 * store flush (fdatasync(); also the folder of a file that the open has made).
 *
 * - A page is written as it is at one moment. The library takes the page out of the view for
 *   that. A thread that writes to the page meanwhile goes on without waiting, and the page is
 *   dirty again.
 * - A page under fm_pin() is written where it is, as it is just then. If it was dirty, it
 *   stays dirty.
 * - If a write fails, the page stays dirty and readable. Each later call, and from time to
 *   time the background, tries the write again.
 * - All calls that are under way return the errno of a write or flush that has failed. If no
 *   call is under way, the next call returns the errno, even if that call has now written
 *   everything. The call after it returns 0.
 *
 * Thread-safe; not signal-safe. May block on the store; no map lock is held meanwhile.
 * Errors:
 *   -EINVAL     invalid argument
 *   -ENOMEM     part of the range is not mapped; the rest is synced
 *   -ETIMEDOUT  the file's deadline
 *   -ENOSPC, -EIO, -EDQUOT, -EROFS, ...: the store's
 */
FM_PUBLIC int fm_sync(fm_mm *mm, void *addr, size_t len, unsigned flags);

/** As fm_sync(), for [offset, offset+len) of a file, mapped or not. `len` 0: to the end of
 *  the file. Returns 0 also if the file is not open for writing. */
FM_PUBLIC int fm_file_sync(fm_file *file, uint64_t offset, uint64_t len, unsigned flags);

/**
 * Make a file that is open for writing longer or shorter.
 *
 * - At return, what lies beyond the new end is gone from cache and store. A touch of it is
 *   SIGBUS (-ENXIO): for pages that were not installed, from the beginning of the call. Pins
 *   of these pages end too.
 * - New bytes read as zeros. Bytes that stay can be read all the time.
 * - Private mappings of the file (FM_MAP_PRIVATE) lose what lies beyond the new last page,
 *   also what was written to them. What was written within the last page stays in them.
 * - A file grows by this call only. A write past the end is SIGBUS, or, in the rest of the
 *   last page, lost.
 *
 * Thread-safe, also against faults. Blocks on writes under way, at most for the file's
 * deadline, and on the store. The store's own call (ftruncate(), fallocate()) has no deadline.
 * Errors:
 *   -EINVAL      invalid argument
 *   -EACCES      the file is not open for writing
 *   -EFBIG       beyond the reserve of the view, see `reserve_bytes` of struct fm_file_options
 *   -EBUSY       the file is to grow, and fm_pin() holds the last page, in which the file ends
 *   -EOPNOTSUPP  the store cannot do that
 *   -ETIMEDOUT   the file's deadline has passed: a write under way, or another change of the file,
 *                does not end. Nothing has changed
 *   the store's: the size is then the former one, and what was beyond the new end may be gone
 */
FM_PUBLIC int fm_truncate(fm_file *file, uint64_t size);

/**
 * Make [offset, offset+len) read as zeros, and give its space back. The range need not be
 * aligned. Nothing happens past the end of the file. Bytes that others write to the range
 * during the call are afterwards zeros or what was written.
 *
 * Thread-safe. Blocks as fm_truncate().
 * Errors:
 *   -EINVAL      invalid argument
 *   -EACCES      the file is not open for writing
 *   -EBUSY       fm_pin() holds a page of the range; part of the range may be zeros by then
 *   -EOPNOTSUPP  the store cannot do that
 *   -ETIMEDOUT   as fm_truncate(); part of the first and the last page may be zeros by then
 *   the store's: part of the range may be zeros by then
 */
FM_PUBLIC int fm_punch(fm_file *file, uint64_t offset, uint64_t len);

/**
 * Drop what is cached of [offset, offset+len), so that it is read from the store again. `len`
 * 0: to the end of the file. For bytes that others have written there, which the mappings
 * would not show.
 *
 * - Dirty pages are written first, and not flushed.
 * - At return, the file's size is the present one. A snapshot (FM_CHANGED_ERROR, not open for
 *   writing) keeps its size, and its changed pages are -ESTALE: see fm_file_refresh().
 *
 * Thread-safe. Blocks on the store.
 * Errors:
 *   -EINVAL  invalid argument
 *   -EBUSY   some page is pinned, or is written to again and again: that page was left
 *   -ETIMEDOUT  the file's deadline has passed: a write under way does not end
 *   the store's
 */
FM_PUBLIC int fm_invalidate(fm_file *file, uint64_t offset, uint64_t len);

/**
 * Reserve space for [offset, offset+len) in the store, so that write-back there does not fail
 * with ENOSPC. The file's size stays.
 *
 * Thread-safe. Blocks on the store.
 * Errors:
 *   -EINVAL      invalid argument
 *   -EACCES      the file is not open for writing
 *   -EOPNOTSUPP  the store cannot do that
 *   -ENOSPC and others: the store's
 */
FM_PUBLIC int fm_reserve(fm_file *file, uint64_t offset, uint64_t len);

/* ------------------------------------------------------------------ many ranges at once */

/**
 * A queue of ranges that are brought in while the program does something else: thousands of
 * ranges from one thread.
 *
 *     fm_queue_create(mm, 1024, &queue);
 *     fm_fault_in_batch(queue, ranges, 32, &begun);
 *     while (fm_completions(queue, ended, 32, UINT64_MAX, &count) == 0)
 *             for (size_t i = 0; i < count; i++)
 *                     use(ended[i].addr, ended[i].error, ended[i].tag);
 *
 * - Several threads may use one queue: one of them takes each range.
 * - All memory is allocated when the queue is made, 512 bytes a range.
 * - A queue belongs to its fm_mm and ends with it.
 */
typedef struct fm_queue fm_queue;

struct fm_range {
	void *addr;
	size_t len; /**< bytes, not 0; `addr` and `len` need not be aligned */
	void *tag;  /**< the program's; comes back unchanged */
	int error;  /**< set by fm_completions(): 0, or a negative errno as from fm_fault_in();
		     *   -EINVAL for a bad length. Ignored by fm_fault_in_batch() */
};

/**
 * Make a queue. `ranges`, 1 to 1048576, is the number of ranges that may be begun and not
 * taken yet.
 *
 * Thread-safe.
 * Errors:
 *   -EINVAL  invalid argument
 *   -ENOMEM  no memory
 *   -EMFILE  the process has 256 queues already
 */
FM_PUBLIC int fm_queue_create(fm_mm *mm, unsigned ranges, fm_queue **ret_queue);

/**
 * End a queue. Ranges that were not taken are given up: no thread waits for their reads,
 * which end by themselves. A thread that waits in fm_completions() gets -ECANCELED. Later
 * calls on the queue are not allowed. fm_mm_destroy() does the same to each queue that is
 * left. Does not wait for I/O.
 */
FM_PUBLIC int fm_queue_destroy(fm_queue *queue);

/**
 * Begin to bring ranges in.
 *
 * - The missing pages of all ranges are read at once, as far as the store's share of frames
 *   allows. The rest waits for its turn in the queue. The call never waits for a read or a
 *   frame.
 * - Each range that was accepted ends once, in fm_completions(): at once if its pages are
 *   cached.
 * - *ret_begun says how many ranges were accepted, from the first on. The number is below
 *   `count` if the queue is full.
 * - The array belongs to the caller again at return.
 * - If two ranges ask for the same page, the page need not be read twice.
 *
 * Thread-safe; not signal-safe.
 * Errors:
 *   -EAGAIN  the queue is full, and no range was accepted: take completions first
 *   -EINVAL  invalid argument
 */
FM_PUBLIC int fm_fault_in_batch(fm_queue *queue, const struct fm_range *ranges, size_t count,
				size_t *ret_begun);

/**
 * Take up to `count` ranges that have ended, in the order in which they ended.
 *
 * - The call installs the pages of a range that ended with 0, so that a touch is no fault.
 *   Pages that had to be evicted meanwhile are the exception: a touch reads them as any other
 *   page.
 * - A range goes on from page to page in this call, so a long range needs several calls. Call
 *   again when fm_queue_fd() is readable.
 * - The call waits up to `timeout_ns` for the first range (0: not at all; UINT64_MAX: for
 *   ever). *ret_count is 0 if the time has passed.
 * - Signals are delivered meanwhile. A signal handler must return.
 * - Several threads may wait: one thread is woken for each event.
 *
 * Thread-safe; not signal-safe.
 * Errors:
 *   -EINVAL     `count` is 0
 *   -ECANCELED  the queue or its fm_mm was destroyed meanwhile. Every range that was not taken has
 *               ended with this error
 */
FM_PUBLIC int fm_completions(fm_queue *queue, struct fm_range *ret_ranges, size_t count,
			     uint64_t timeout_ns, size_t *ret_count);

/**
 * A descriptor for poll() and its like: readable while fm_completions() has something to do.
 *
 * - Do not read the descriptor: fm_completions() does.
 * - The descriptor may be readable though no range has ended.
 * - The descriptor belongs to the queue. Do not close it: it ends with the queue.
 * - Without this call, no descriptor is made, and no time is spent on one.
 *
 * Thread-safe.
 * Errors:
 *   -EINVAL, -EMFILE and the like
 */
FM_PUBLIC int fm_queue_fd(fm_queue *queue, int *ret_fd);

/* ------------------------------------------------------------------ errors */

/**
 * Run body(arg). If an access in the body would raise SIGBUS or SIGSEGV on a mapping, the
 * access ends the body instead. The return is then the negative errno of the access, and
 * *ret_error (may be NULL) has the rest. Returns 0 if the body returned.
 *
 * The body must only access memory: its locks and allocations are not undone. The signal mask
 * is restored. Guards nest. Thread-safe.
 */
FM_PUBLIC int fm_guard(void (*body)(void *arg), void *arg, struct fm_error *ret_error);

/**
 * For programs that install their own SIGBUS handler after the library's: call this function
 * first in that handler. Returns true if the signal was a fault on a mapping and has been
 * served: return from the handler at once. Install the handler with SA_SIGINFO and a full
 * sa_mask. Signal-safe.
 *
 * Before Linux 6.6 the thread trap also has a SIGSEGV handler. A program that installs its
 * own SIGSEGV handler calls this function first in that handler too. The reason: to fail an
 * access of a system call, the library takes away the rights of the page for a moment. If
 * another thread accesses the page in that moment, the access must be repeated.
 */
FM_PUBLIC bool fm_handle_sigbus(int signo, siginfo_t *info, void *ucontext);

/* ------------------------------------------------------------------ statistics */

/* One table from which the structure, the names and the JSON keys are made: X(name, help). */
#define FM_COUNTERS(X)                                                                         \
	X(faults, "faults that ended; each fault counts once, whatever the number of tries")   \
	X(faults_major, "faults that needed a read of the store")                              \
	X(faults_minor, "faults that began no read")                                           \
	X(faults_sigbus, "faults that ended in SIGBUS")                                        \
	X(faults_segv, "faults that ended in SIGSEGV")                                         \
	X(fault_retries, "tries beyond the first, after the map lock was dropped")             \
	X(fault_in_again, "fm_fault_in() calls that returned -EAGAIN")                         \
	X(reads, "reads of a store")                                                           \
	X(read_bytes, "bytes read from stores")                                                \
	X(read_errors, "reads that failed")                                                    \
	X(read_timeouts, "failed reads that passed their deadline")                            \
	X(read_short, "reads that returned too few bytes and were continued")                  \
	X(ra_windows, "readahead windows submitted")                                           \
	X(ra_pages, "pages read ahead")                                                        \
	X(ra_hits, "pages read ahead that were touched")                                       \
	X(ra_waste, "pages read ahead that were evicted untouched")                            \
	X(hotset_pages, "pages of hot sets that were read ahead; ra_pages includes them")      \
	X(ra_aborted, "readahead requests aborted because a fault needed one of their pages")  \
	X(installs_move, "pages installed by MOVE")                                            \
	X(installs_copy, "pages installed by COPY")                                            \
	X(install_exists, "installs that found the page already there")                        \
	X(install_busy, "installs or evictions that met EBUSY")                                \
	X(emptied_behind, "installed pages that the program or the kernel had emptied")        \
	X(evictions, "pages evicted so that another page gets the frame")                      \
	X(deactivations, "pages taken out of the view but kept cached")                        \
	X(reactivations, "deactivated pages that were touched again")                          \
	X(reclaim_direct, "reclaim passes by a fault")                                         \
	X(reclaim_background, "reclaim passes by the background thread")                       \
	X(frame_waits, "waits for a free frame")                                               \
	X(progress_keeps, "instructions whose pages were kept until they completed")           \
	X(progress_waits, "waits for a slot that keeps the pages of an instruction")           \
	X(pt_released, "empty 2 MiB ranges whose page table was given back")                   \
	X(lock_shared, "map lock taken shared")                                                \
	X(lock_exclusive, "map lock taken exclusive")                                          \
	X(lock_contended, "times that a thread had to wait for the map lock")                  \
	X(lock_held_over_block, "times a thread was about to block with the map lock held")    \
	X(maps, "fm_map() calls")                                                              \
	X(unmaps, "fm_unmap() calls")                                                          \
	X(advises, "fm_advise() calls")                                                        \
	X(files_changed, "files that had changed since they were opened")                      \
	X(dirtied, "pages that became dirty")                                                  \
	X(writes, "writes to a store")                                                         \
	X(write_bytes, "bytes written to stores")                                              \
	X(write_errors, "writes that failed")                                                  \
	X(flushes, "flushes of a store")                                                       \
	X(flush_errors, "flushes that failed")                                                 \
	X(syncs, "fm_sync() and fm_file_sync() calls")                                         \
	X(write_throttled, "write faults that waited because too many pages were dirty")       \
	X(write_in_place, "pages written from the view, because they could not be taken out")  \
	X(dirty_lost, "dirty pages that were lost: emptied by the program, or given up")       \
	X(spilled, "private pages written to a scratch file")                                  \
	X(groups_made, "groups: 2 MiB of small frames whose memory is one huge page")          \
	X(groups_split, "groups that were split because one page was handled alone")           \
	X(group_installs, "installs of a whole group at once")

#define FM_GAUGES(X)                                                                           \
	X(budget_bytes, "memory budget")                                                       \
	X(charged_bytes, "the part of the budget in use: frames and page tables")              \
	X(frames, "frames within the budget")                                                  \
	X(frames_used, "frames that hold a page")                                              \
	X(pages_installed, "pages installed in views")                                         \
	X(pt_ranges, "2 MiB ranges with a page table")                                         \
	X(mappings, "mappings")                                                                \
	X(views, "views")                                                                      \
	X(files, "open files")                                                                 \
	X(pins, "pages pinned by fm_pin()")                                                    \
	X(dirty_pages, "pages that are dirty")                                                 \
	X(writeback_pages, "pages that are being written")                                     \
	X(unflushed_pages, "pages that were written but are not durable yet")                  \
	X(requests, "requests under way")

#define FM_HISTOGRAMS(X)                                                                       \
	X(fault_minor_ns, "latency of minor faults")                                           \
	X(fault_major_ns, "latency of major faults")                                           \
	X(lock_wait_ns, "waits for the map lock")                                              \
	X(lock_hold_shared_ns, "time the map lock was held shared")                            \
	X(lock_hold_exclusive_ns, "time the map lock was held exclusive")                      \
	X(read_ns, "latency of reads of a store")                                              \
	X(write_ns, "latency of writes to a store")                                            \
	X(throttle_ns, "time that write faults waited because too many pages were dirty")

struct fm_histogram_summary {
	uint64_t count, p50_ns, p99_ns, p999_ns, max_ns;
};

struct fm_stats {
	size_t size; /**< sizeof(struct fm_stats), set by the caller */
#define FM_X(name, help) uint64_t name;
	FM_COUNTERS(FM_X)
	FM_GAUGES(FM_X)
#undef FM_X
#define FM_X(name, help) struct fm_histogram_summary name;
	FM_HISTOGRAMS(FM_X)
#undef FM_X
};

/**
 * The present statistics of an address space. Takes no lock. Each figure is read separately,
 * so sums may differ by what happens meanwhile.
 *
 * Thread-safe.
 * Errors:
 *   -EINVAL  `size` is wrong
 */
FM_PUBLIC int fm_stats(fm_mm *mm, struct fm_stats *ret_stats);

#ifdef __cplusplus
}
#endif
#endif
