/* SPDX-License-Identifier: MIT */
/*
 * A cell: one way of one workload in one round, in a process of its own. The cell joins its cgroup,
 * opens the way, warms, and starts the threads together. The clock stops when the last thread has
 * ended. The cell counts the time, and the device bytes, CPU time and memory of its own process.
 * There are no locks: each worker has its own figures.
 */
#include "bench/bench.h"

#include "command/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct work_thread {
	struct bench_worker worker;
	pthread_t id;
	uint64_t from, to, deadline_ns;
	int status;
};

static pthread_barrier_t start_line;
static uint64_t cell_deadline_ns; /* set before the threads pass the start line */

/* ------------------------------------------------------------------ counting */

/* Add up what all workers have reached. */
static void add_up(struct bench_run *run, struct work_thread *threads)
{
	struct bench_cell *cell = run->cell;
	/* If reads end in any order, only the sums over all operations can be compared. */
	bool ordered = run->way != BENCH_LIMIT &&
		       !(run->workload->nowait && bench_way_is_filemap(run->way));

	for (unsigned t = 0; t < run->threads; t++) {
		cell->out.ops += threads[t].worker.ops;
		cell->out.sum += threads[t].worker.sum;
	}
	cell->out.bytes = cell->out.ops * run->workload->unit;
	for (unsigned i = 0; i < BENCH_SUMS; i++) {
		uint64_t sum = 0;
		bool all = ordered;

		for (unsigned t = 0; t < run->threads; t++) {
			all &= threads[t].worker.ops >= 1ull << i;
			sum += threads[t].worker.sums[i];
		}
		cell->out.sums[i] = all ? sum : 0;
	}
}

/* ------------------------------------------------------------------ threads */

static void *thread_main(void *arg)
{
	struct work_thread *self = arg;
	struct bench_run *run = self->worker.run;

	pthread_barrier_wait(&start_line);
	pthread_barrier_wait(&start_line); /* the clock runs from here on */
	if (run->workload->writes)
		self->status = bench_write(&self->worker, self->from, self->to, cell_deadline_ns);
	else
		self->status = (run->ops->work ? run->ops->work : bench_touch)(
			&self->worker, self->from, self->to, cell_deadline_ns);
	pthread_barrier_wait(&start_line);
	return NULL;
}

/* Run the operations `from` to `to` of all threads. Measures the time from the start line to the
 * end of the last thread. Returns 0, or a negative value after bench_why(). */
static int run_threads(struct bench_run *run, struct work_thread *threads, uint64_t from,
		       uint64_t to, bool count, uint64_t *ret_ns)
{
	uint64_t begin_ns, device = 0, written = 0, cpu = 0;
	int status = 0;

	if (pthread_barrier_init(&start_line, NULL, run->threads + 1))
		return bench_why(run, "cannot create the barrier that starts the threads");
	for (unsigned t = 0; t < run->threads; t++) {
		threads[t] = (struct work_thread){
			.worker = {.run = run, .index = t},
			.from = bench_share(run, from),
			.to = bench_share(run, to),
		};
		if (pthread_create(&threads[t].id, NULL, thread_main, &threads[t]))
			return bench_why(run, "cannot start %u threads", run->threads);
	}
	pthread_barrier_wait(&start_line);
	if (count) {
		device = bench_device_bytes(run, "read_bytes");
		written = bench_device_bytes(run, "write_bytes");
		cpu = bench_cpu_ns();
	}
	begin_ns = bench_now_ns();
	cell_deadline_ns = run->cell->in.limit_ns ? begin_ns + run->cell->in.limit_ns : 0;
	pthread_barrier_wait(&start_line);
	pthread_barrier_wait(&start_line);
	*ret_ns = bench_now_ns() - begin_ns;
	if (count) {
		run->cell->out.cpu_ns = bench_cpu_ns() - cpu;
		run->cell->out.device_bytes = bench_device_bytes(run, "read_bytes") - device;
		run->cell->out.written_bytes = bench_device_bytes(run, "write_bytes") - written;
		run->cell->out.rss_bytes = bench_rss_bytes();
	}
	for (unsigned t = 0; t < run->threads; t++) {
		pthread_join(threads[t].id, NULL);
		status |= threads[t].status;
	}
	pthread_barrier_destroy(&start_line);
	return status;
}

static int measure(struct bench_run *run)
{
	static struct work_thread threads[BENCH_THREADS_MAX];
	uint64_t warm = run->cell->in.warm_ops, ns;

	if (warm && run_threads(run, threads, 0, warm, false, &ns))
		return -1;
	if (run->workload->hot && run->map)
		bench_sum_pages(run->map, run->range_bytes);
	if (run->ops->begin)
		run->ops->begin(run);
	if (run_threads(run, threads, warm, warm + run->cell->in.ops, true, &run->cell->out.ns))
		return -1;
	if (run->ops->end)
		run->ops->end(run);
	for (unsigned t = 0; run->workload->writes && t < run->threads; t++)
		if (bench_write_check(run, t, threads[t].from, threads[t].worker.ops))
			return -1;
	add_up(run, threads);
	return 0;
}

/* ------------------------------------------------------------------ the cell */

static const struct bench_way_ops *const family_ops[] = {
	[FAMILY_FILEMAP] = &bench_filemap_ops,
	[FAMILY_KERNEL] = &bench_kernel_ops,
	[FAMILY_PREAD] = &bench_pread_ops,
	[FAMILY_LIMIT] = &bench_limit_ops,
	[FAMILY_BARE] = &bench_bare_ops,
};

/* Choose how often the clock is read: often if an operation may be long, seldom if all are
 * short. */
static uint64_t clock_mask(const struct bench_workload *workload)
{
	return workload->pattern == PATTERN_RANDOM || workload->pattern == PATTERN_ZIPF ||
			       workload->step
		       ? 7
		       : 511;
}

static int prepare(struct bench_run *run)
{
	struct bench_cell *cell = run->cell;
	const struct bench_workload *workload = run->workload;
	uint64_t step = workload->step ? workload->step : workload->unit;
	int error;

	run->slots = run->range_bytes / step;
	order_make(&run->order, ORDER_RANDOM, run->slots);
	if (cell->in.cgroup[0]) {
		error = machine_write_text(cell->in.cgroup, "0");
		if (error)
			return bench_why(run, "%.150s: %s", cell->in.cgroup, strerror(-error));
	}
	if (workload->pattern == PATTERN_ZIPF) {
		run->zipf = bench_zipf_make(run->slots, cell->in.warm_ops + cell->in.ops);
		if (!run->zipf)
			return bench_why(run, "out of memory");
	}
	run->fd = cell->in.fd;
	if (run->fd < 0)
		run->fd = open(cell->in.path, (workload->writes ? O_RDWR : O_RDONLY) | O_CLOEXEC);
	if (run->fd < 0)
		return bench_why(run, "%.150s: %s", cell->in.path, strerror(errno));
	return 0;
}

static void *settle_main(void *arg)
{
	char stack[32 << 10];

	(void)arg;
	memset(stack, 1, sizeof(stack));
	__asm__ volatile("" : : "r"(stack) : "memory");
	bench_rss_bytes();
	return NULL;
}

/* Run as many threads as the cell needs. Then the memory for threads is there before the way is
 * measured. */
static void settle(const struct bench_run *run)
{
	pthread_t id[BENCH_THREADS_MAX];
	unsigned count = 0;

	while (count < run->threads && !pthread_create(&id[count], NULL, settle_main, NULL))
		count++;
	while (count)
		pthread_join(id[--count], NULL);
}

/* Map the shared memory of a cell. Returns NULL if `fd` is something else. */
static struct bench_cell *find_cell(int fd)
{
	struct bench_cell *cell = NULL;
	struct stat st;

	if (!fstat(fd, &st) && (size_t)st.st_size == sizeof(*cell))
		cell = mmap(NULL, sizeof(*cell), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (!cell || cell == MAP_FAILED || cell->in.magic != BENCH_MAGIC ||
	    cell->in.workload >= bench_workload_count || cell->in.way >= BENCH_WAY_COUNT ||
	    !cell->in.threads || cell->in.threads > BENCH_THREADS_MAX)
		return NULL;
	return cell;
}

int bench_cell_main(int cell_fd)
{
	static struct bench_run run;
	struct bench_cell *cell = find_cell(cell_fd);

	if (!cell)
		return -1;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	run = (struct bench_run){
		.cell = cell,
		.workload = &bench_workloads[cell->in.workload],
		.ops = family_ops[bench_ways[cell->in.way].family],
		.way = cell->in.way,
		.threads = cell->in.way == BENCH_LIMIT ? 1 : cell->in.threads,
		.range_bytes = cell->in.range_bytes,
		.clock_mask = clock_mask(&bench_workloads[cell->in.workload]),
		.fd = -1,
	};
	settle(&run);
	if (prepare(&run) || run.ops->open(&run) || measure(&run) || cell->out.why[0])
		_exit(1);
	cell->out.done = true;
	_exit(0);
}
