/* SPDX-License-Identifier: MIT */
/*
 * `filemap demo`: while some threads wait for a slow store, do other threads wait, too?
 *
 * The coordinator is this process. It sets a situation up and runs the rounds of all ways, one
 * after the other. For each round the coordinator starts a new subject, which makes the mappings
 * and runs the load threads and the probe threads. Beside the subject, a monitor reads /proc of the
 * subject. The processes meet in `struct round`, which is shared memory. The coordinator has a
 * single thread and never touches a slow file. So a subject that hangs in the kernel can stop
 * neither the coordinator nor the process that undoes the set-up (command/undo.h).
 */
#define _GNU_SOURCE
#include "command/clock.h"
#include "command/tool.h"
#include "demo/json.h"
#include "demo/options.h"
#include "demo/plot.h"
#include "demo/print.h"
#include "demo/probe.h"
#include "demo/remote.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define FILE_MIN_BYTES   (16u << 20)
#define FILE_MADE_BYTES  (64u << 20)
#define LOADS            8
#define TOUCHES          3

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signo)
{
	interrupted = signo;
}

/* ------------------------------------------------------------------ words */

static void progress(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void progress(const char *format, ...)
{
	va_list args;

	if (!isatty(STDERR_FILENO))
		return;
	fprintf(stderr, "\r\033[K");
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fflush(stderr);
}

/* Colours are for a terminal whose user did not refuse them (https://no-color.org). */
static bool colours(void)
{
	const char *refused = getenv("NO_COLOR"), *term = getenv("TERM");

	return isatty(STDOUT_FILENO) && !(refused && *refused) && term && strcmp(term, "dumb");
}

/* ------------------------------------------------------------------ files */

/* Find the largest shared library: a real file that every machine has. */
static const char *find_file(void)
{
	static const char *const patterns[] = {"/usr/lib/*/lib*.so.*", "/usr/lib64/lib*.so.*",
					       "/usr/lib/lib*.so.*"};
	static char best[PATH_MAX];
	off_t best_size = 0;
	glob_t found = {0};

	for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++)
		glob(patterns[i], i ? GLOB_APPEND : 0, NULL, &found);
	for (size_t i = 0; i < found.gl_pathc; i++) {
		struct stat st;

		if (stat(found.gl_pathv[i], &st) || !S_ISREG(st.st_mode) ||
		    st.st_size <= best_size || access(found.gl_pathv[i], R_OK))
			continue;
		best_size = st.st_size;
		snprintf(best, sizeof(best), "%s", found.gl_pathv[i]);
	}
	globfree(&found);
	return best_size >= (off_t)FILE_MIN_BYTES ? best : NULL;
}

/* Write a file of `bytes` bytes in which no two pages are the same. */
static int make_file(const char *path, size_t bytes)
{
	static uint64_t block[8192];
	uint64_t state = 1;
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd < 0)
		return -errno;
	for (size_t done = 0; done < bytes; done += sizeof(block)) {
		for (size_t i = 0; i < sizeof(block) / sizeof(block[0]); i++)
			block[i] = state = state * 6364136223846793005ull + 1442695040888963407ull;
		if (write(fd, block, sizeof(block)) != (ssize_t)sizeof(block)) {
			close(fd);
			return errno ? -errno : -ENOSPC;
		}
	}
	close(fd);
	return 0;
}

static int choose_file(struct demo *demo)
{
	struct stat st;
	int error;

	if (demo->file) {
		int fd = open(demo->file, O_RDONLY | O_CLOEXEC);

		if (fd < 0 || fstat(fd, &st)) {
			demo_say("%s: %s", demo->file, strerror(errno));
			if (fd >= 0)
				close(fd);
			return -1;
		}
		close(fd);
		if (S_ISDIR(st.st_mode)) {
			demo_say("%s: is a directory; choose a file with --file", demo->file);
			return -1;
		}
		if (!S_ISREG(st.st_mode) || st.st_size < (off_t)FILE_MIN_BYTES) {
			demo_say("%s: not a regular file of 16 MiB or more; choose another with --file",
			    demo->file);
			return -1;
		}
		return 0;
	}
	demo->file = find_file();
	if (demo->file)
		return 0;
	snprintf(demo->file_made, sizeof(demo->file_made), "%s/file", demo->tmp_dir);
	undo_add(demo->undo, UNDO_UNLINK, 0, demo->file_made, NULL);
	error = make_file(demo->file_made, FILE_MADE_BYTES);
	if (error) {
		demo_say("%s: %s", demo->file_made, strerror(-error));
		return -1;
	}
	demo->file = demo->file_made;
	return 0;
}

static int make_tmp(struct demo *demo)
{
	const char *base = getenv("TMPDIR");
	int error;

	snprintf(demo->tmp_dir, sizeof(demo->tmp_dir), "%.150s/filemap-demo.XXXXXX",
		 base && *base ? base : "/tmp");
	if (!mkdtemp(demo->tmp_dir)) {
		demo_say("%s: %s; set TMPDIR", demo->tmp_dir, strerror(errno));
		return -1;
	}
	undo_add(demo->undo, UNDO_RMDIR, 0, demo->tmp_dir, NULL);
	snprintf(demo->cached_path, sizeof(demo->cached_path), "%s/cached", demo->tmp_dir);
	undo_add(demo->undo, UNDO_UNLINK, 0, demo->cached_path, NULL);
	error = make_file(demo->cached_path, DEMO_CACHED_BYTES);
	if (error)
		demo_say("%s: %s", demo->cached_path, strerror(-error));
	return error;
}

static void *shared_memory(size_t len)
{
	void *mem = mmap(NULL, len, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	return mem == MAP_FAILED ? NULL : mem;
}

/* ------------------------------------------------------------------ one round */

struct run {
	struct demo *demo;
	const struct situation *situation;
	struct round_spec spec;
	pid_t subject, helper; /* helper: 0 if the situation has none */
	bool subject_gone;
	int status;
};

static bool subject_gone(struct run *run)
{
	if (!run->subject_gone && waitpid(run->subject, &run->status, WNOHANG) == run->subject)
		run->subject_gone = true;
	return run->subject_gone;
}

/* Poll until the phase is reached, the subject has ended, or the time is up. */
static bool wait_ready(struct run *run, unsigned limit_ms)
{
	struct round *round = run->demo->round;

	for (unsigned ms = 0; ms < limit_ms && !interrupted; ms += 5) {
		if (atomic_load(&round->phase) >= PHASE_READY || subject_gone(run))
			break;
		tool_sleep_ms(5);
	}
	return atomic_load(&round->phase) == PHASE_READY;
}

/* Return the number of samples of the probe that has the fewest. */
static uint64_t samples_least(const struct round *round)
{
	uint64_t least = UINT64_MAX;

	for (unsigned i = 0; i < PROBE_JUDGED; i++) {
		uint64_t n = ((const volatile struct recorder *)&round->rec[i])->n;

		if (!(PROBE_SPECIAL & 1u << i) && n < least)
			least = n;
	}
	return least;
}

static bool samples_enough(const struct run *run)
{
	return samples_least(run->demo->round) >= situation_samples_min(run->situation);
}

static bool round_done(struct run *run, uint64_t elapsed_ns)
{
	struct round *round = run->demo->round;
	const struct round_spec *spec = &run->spec;
	uint64_t control_ns = 2 * (uint64_t)run->demo->delay_ms * NSEC_PER_MSEC;

	if (way_is_control(spec->way))
		return elapsed_ns >= control_ns && samples_enough(run);
	/* Rounds of filemap go on until there are enough samples. Rounds of the kernel do not: many
	 * samples after the load would hide stalls. */
	if (spec->way == WAY_FILEMAP && !samples_enough(run))
		return false;
	if (spec->max_ns && elapsed_ns >= spec->max_ns)
		return true;
	return atomic_load(&round->loads_done) >= spec->threads && elapsed_ns >= spec->min_ns;
}

static void child_start(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
}

/* Start the processes beside the subject. Each process waits for the measured part by itself. */
static void start_others(struct run *run)
{
	struct demo *demo = run->demo;
	pid_t pid = demo_fork(demo);

	if (!pid) {
		child_start();
		_exit(monitor_run(run->subject, demo->round));
	}
	if (run->spec.load == LOAD_REMOTE) {
		pid = demo_fork(demo);
		if (!pid) {
			child_start();
			_exit(remote_run(&run->spec, run->subject, demo->round));
		}
	}
	if (run->situation->helper &&
	    (run->situation->control_has_helper || !way_is_control(run->spec.way))) {
		run->helper = demo_fork(demo);
		if (!run->helper) {
			child_start();
			_exit(run->situation->helper(demo, &run->spec, demo->round, run->subject));
		}
	}
}

/* Fail the round if the helper has ended early. A full memory cgroup, for example, can kill the
 * helper. The subject then meets an easier situation than the situation's name says. */
static void check_helper(struct run *run)
{
	siginfo_t info = {0};

	if (run->helper <= 0 ||
	    waitid(P_PID, (id_t)run->helper, &info, WEXITED | WNOHANG | WNOWAIT) || !info.si_pid)
		return;
	round_fail(run->demo->round, "the helper process ended early, by %s %d",
		   info.si_code == CLD_EXITED ? "status" : "signal", info.si_status);
}

/* Run the measured part of a round. Returns the length of the part. */
static uint64_t measure(struct run *run)
{
	struct demo *demo = run->demo;
	struct round *round = demo->round;
	bool load = !way_is_control(run->spec.way);
	uint64_t limit_ns = (10 * (uint64_t)demo->delay_ms + 20000) * NSEC_PER_MSEC;
	uint64_t elapsed_ns = 0;

	if (load && run->situation->begin)
		run->situation->begin(demo);
	round->start_ns = tool_now_ns();
	round_set_phase(round, PHASE_MEASURE);
	while (!interrupted && atomic_load(&round->phase) == PHASE_MEASURE && !subject_gone(run)) {
		elapsed_ns = tool_now_ns() - round->start_ns;
		if (round_done(run, elapsed_ns) || elapsed_ns > limit_ns)
			break;
		tool_sleep_ms(10);
	}
	if (elapsed_ns > limit_ns)
		round_fail(round, "not done after %u s: %u of %u loads ended, some probe has %llu samples",
			   (unsigned)(limit_ns / NSEC_PER_SEC), atomic_load(&round->loads_done),
			   run->spec.threads, (unsigned long long)samples_least(round));
	if (load && run->situation->end)
		run->situation->end(demo);
	check_helper(run);
	round_set_phase(round, PHASE_STOP);
	return elapsed_ns;
}

static void fill_spec(struct run *run, enum way way)
{
	struct demo *demo = run->demo;

	run->spec = (struct round_spec){
		.way = way,
		.load = run->situation->load,
		.truth = demo->file,
		.cached_path = demo->cached_path,
		.threads = LOADS,
		.touches = TOUCHES,
		.probes = run->situation->probes,
	};
	run->situation->fill(demo, &run->spec);
}

/* Run one round. 0, or -1 and the reason in `failure` of the round. */
static int run_round(struct demo *demo, const struct situation *situation, enum way way,
		     uint64_t *ret_ns)
{
	struct run run = {.demo = demo, .situation = situation};
	struct round *round = demo->round;
	unsigned mark = undo_mark(demo->undo);

	memset(round, 0, sizeof(*round));
	fill_spec(&run, way);
	run.subject = demo_fork(demo);
	if (!run.subject) {
		child_start();
		_exit(subject_run(&run.spec, round));
	}
	if (run.subject < 0) {
		round_fail(round, "fork: %s", strerror(errno));
		return -1;
	}
	if (wait_ready(&run, 60000)) {
		start_others(&run);
		tool_sleep_ms(50);
		*ret_ns = measure(&run);
	}
	for (unsigned ms = 0; ms < demo->delay_ms + 10000 && !subject_gone(&run); ms += 5)
		tool_sleep_ms(5);
	if (!run.subject_gone)
		round_fail(round, "the subject does not end");
	else if (WIFSIGNALED(run.status))
		round_fail(round, "the subject died by signal %d", WTERMSIG(run.status));
	else if (WEXITSTATUS(run.status))
		round_fail(round, "the subject failed");
	undo_to(demo->undo, mark);
	return round->failure[0] ? -1 : 0;
}

/* ------------------------------------------------------------------ the run */

static void run_situation(struct demo *demo, struct report *report, const struct plan *plan,
			  size_t index)
{
	const struct situation *situation = &demo_situations[index];
	unsigned mark = undo_mark(demo->undo);
	unsigned ways = situation->ways & plan->ways;
	char why[SITUATION_WHY] = "";

	if (!ways)
		return;
	if (ways & situation->setup_ways) {
		progress("%s: setting up", situation->name);
		if (situation->setup(demo, situation, why)) {
			for (enum way way = 0; way < WAY_COUNT; way++) {
				if (ways & situation->setup_ways & WAY_BIT(way))
					report_skip(report, way, index, why);
			}
			ways &= ~situation->setup_ways;
		}
	}
	for (unsigned r = 0;
	     r < plan->rounds || (r < plan->rounds_most && report_is_close(report, index)); r++) {
		unsigned now = r < plan->rounds ? ways : ways & (WAY_BIT(WAY_CONTROL) | WAY_BIT(WAY_FILEMAP));

		for (enum way way = 0; way < WAY_COUNT && !interrupted; way++) {
			uint64_t round_ns = 0;

			if (!(now & WAY_BIT(way)))
				continue;
			progress("%s: %s, round %u of %u", situation->name, demo_way_names[way],
				 r + 1, r < plan->rounds ? plan->rounds : plan->rounds_most);
			if (run_round(demo, situation, way, &round_ns))
				report_round_failed(report, way, index, demo->round->failure);
			else
				report_add_round(report, way, index, demo->round, round_ns);
		}
	}
	undo_to(demo->undo, mark);
}

/* Test in a process of its own whether filemap can run here. 0, or a positive number and the reason
 * in `failure` of the round. */
static int check_filemap(struct demo *demo)
{
	struct round_spec spec = {.way = WAY_CONTROL,
				  .truth = demo->file,
				  .path = demo->file,
				  .threads = 1,
				  .touches = 1};
	unsigned mark = undo_mark(demo->undo);
	pid_t pid;
	int status = 0;

	memset(demo->round, 0, sizeof(*demo->round));
	pid = demo_fork(demo);
	if (!pid) {
		void *subject;

		child_start();
		_exit(filemap_subject.open(&spec, demo->round, &subject) ? 1 : 0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		status = 1 << 8;
	undo_to(demo->undo, mark);
	return WEXITSTATUS(status);
}

static int run_all(struct demo *demo, const struct plan *plan, struct report *report)
{
	report->delay_ms = demo->delay_ms;
	report->rounds = plan->rounds;
	report->file = demo->file;
	for (size_t i = 0; i < demo_situation_count && !interrupted; i++) {
		if (plan->situations & (1u << i))
			run_situation(demo, report, plan, i);
	}
	progress("%s", "");
	if (interrupted)
		return 1;
	report_judge(report);
	if (demo->json)
		json_report(report);
	else if (demo->all)
		print_all(report);
	else
		print_story(report, colours());
	fflush(stdout);
	if (demo->plot && plot_report(report, demo->plot, demo->all))
		report_failure(report, "%s: no picture", demo->plot);
	print_summary(report, demo->json ? stderr : stdout);
	return report->failure_count ? 1 : 0;
}

static void catch_interrupts(void)
{
	struct sigaction action = {.sa_handler = on_interrupt};

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
}

static int run_demo(struct demo *demo, const struct plan *plan)
{
	const unsigned filemap_ways =
		WAY_BIT(WAY_CONTROL) | WAY_BIT(WAY_FILEMAP) | WAY_BIT(WAY_HOLD);
	struct report *report = calloc(1, sizeof(*report));
	int status;

	if (!report) {
		demo_say("out of memory");
		return 1;
	}
	if ((demo->plot && demo_check_plot(demo->plot)) || make_tmp(demo) || choose_file(demo)) {
		status = 1;
	} else if (plan->ways & filemap_ways && check_filemap(demo)) {
		demo_say("filemap can't run here: %s", demo->round->failure);
		status = 77;
	} else {
		status = run_all(demo, plan, report);
	}
	report_free(report);
	return status;
}

int verb_demo(int argc, char **argv)
{
	struct demo demo = {.delay_ms = DELAY_DEFAULT_MS};
	struct plan plan = {0};
	int status = demo_parse_options(argc, argv, &demo, &plan);

	if (status)
		return status - 1;
	if (!plan.rounds) {
		plan.rounds = ROUNDS_DEFAULT;
		plan.rounds_most = ROUNDS_MOST;
	}
	if (!plan.rounds_most)
		plan.rounds_most = plan.rounds;
	if (!plan.situations)
		plan.situations = (1u << demo_situation_count) - 1;
	if (!plan.ways)
		plan.ways = WAY_BIT(WAY_COUNT) - 1;
	demo.coordinator = getpid();
	demo.round = shared_memory(sizeof(*demo.round));
	demo.control = shared_memory(sizeof(*demo.control));
	if (!demo.round || !demo.control) {
		demo_say("out of memory");
		return 1;
	}
	catch_interrupts();
	if (undo_start(&demo.undo)) {
		demo_say("can't start the process that undoes: %s", strerror(errno));
		return 1;
	}
	status = run_demo(&demo, &plan);
	undo_end(demo.undo);
	if (interrupted) {
		/* All is undone. Let the signal end this process. */
		signal(interrupted, SIG_DFL);
		raise(interrupted);
	}
	return status;
}
